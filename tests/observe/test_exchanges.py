"""`Exchanged` and the events of connections and nodes."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress

import pytest

from metacache import (
    AsyncClient,
    AsyncCluster,
    AsyncPool,
    Client,
    Cluster,
    ConnectError,
    ConnectionLost,
    Dialled,
    MetacacheError,
    Node,
    NodesChanged,
    NodeState,
    Pool,
    Retried,
    Settings,
    StateChanged,
    Waited,
    connect,
    connect_async,
)
from metacache.testing import Memcached
from tests.observe.recorder import Recorder
from tests.scripted import Peer, Script, ScriptedServer, in_turn

KEYS = [f"key{number}" for number in range(100)]


def dead_node() -> Node:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return Node(f"127.0.0.1:{sock.getsockname()[1]}")


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def test_a_part_of_a_batch_on_one_node_is_one_exchange(recorder: Recorder) -> None:
    with Memcached() as one, Memcached() as two:
        with Cluster([one.node, two.node], observer=recorder) as cluster:
            client = cluster.client()
            client.set_many(dict.fromkeys(KEYS[:50], b"12345"))
            recorder.clear()
            client.get_many(KEYS)
        parts = recorder.exchanges
        assert {part.node.name for part in parts} == {one.node.name, two.node.name}
        assert len(parts) == 2
        assert sum(part.requests for part in parts) == 100
        assert sum(part.hits for part in parts) == 50
        # "mg key42 v f" and CRLF; "VA 5 f…" and "12345" for a hit, "EN" for a miss.
        assert sum(part.sent for part in parts) == sum(len(f"mg {key} v f\r\n") for key in KEYS)
        flags = len(b"f%d" % Client(Pool(one.node))._core.operations.frame.flags)
        assert sum(part.received for part in parts) == 50 * (len("VA 5 \r\n12345\r\n") + flags) + 50 * 4


def test_a_single_request_has_its_size(recorder: Recorder) -> None:
    with Memcached() as server, Pool(server.node, observer=recorder) as pool:
        client = Client(pool)
        client.set("key", b"12345")
        client.get("key")
        client.get("absent")
        client.get_or_compute("computed", lambda: b"1")
    found = [(each.verb, each.requests, each.hits) for each in recorder.exchanges]
    assert found == [("set", 1, 0), ("get", 1, 1), ("get", 1, 0), ("get_or_compute", 1, 0), ("get_or_compute", 1, 0)]
    assert recorder.exchanges[1].sent == len("mg key v f\r\n")
    assert recorder.exchanges[2].received == len("EN\r\n")
    (dialled,) = recorder.of(Dialled)
    assert dialled.error is None
    assert 0 < dialled.seconds < 10


def test_a_dead_node_gives_dials_and_changes_of_state(recorder: Recorder) -> None:
    dead = dead_node()
    states: list[tuple[NodeState, NodeState]] = []
    url = f"memcached://{dead.name}/?timeout=0.5"
    with connect(url, observer=recorder, on_state_change=lambda _, before, after: states.append((before, after))) as c:
        for _ in range(5):
            with suppress(MetacacheError):
                c.get("key")
    wanted = [(NodeState.UP, NodeState.SUSPECT), (NodeState.SUSPECT, NodeState.DOWN)]
    assert states == wanted
    assert [(change.before, change.after) for change in recorder.of(StateChanged)] == wanted
    assert [dial.error for dial in recorder.of(Dialled)] == [ConnectError] * 3
    assert [(each.error, each.sent) for each in recorder.exchanges] == [(ConnectError, 0)] * 3
    recorder.clear()
    states.clear()

    async def main() -> None:
        async with connect_async(
            url, observer=recorder, on_state_change=lambda _, before, after: states.append((before, after))
        ) as client:
            for _ in range(5):
                with suppress(MetacacheError):
                    await client.get("key")

    asyncio.run(main())
    assert states == wanted
    assert [dial.error for dial in recorder.of(Dialled)] == [ConnectError] * 3


def stale_scripts() -> tuple[Script, Script]:
    """Return the scripts of a connection that ends after its second request, and of the next one."""

    def miss(peer: Peer) -> None:
        peer.request().answer(b"EN")

    return in_turn(miss, Peer.request, Peer.fin), in_turn(miss)


def test_a_read_that_meets_a_stale_connection_is_a_retry(recorder: Recorder) -> None:
    with ScriptedServer(*stale_scripts()) as server, Pool(server.node, observer=recorder) as pool:
        client = Client(pool)
        assert client.get("a") is None
        assert client.get("b") is None
    assert [(retry.verb, retry.error) for retry in recorder.of(Retried)] == [("get", ConnectionLost)]
    assert len(recorder.of(Dialled)) == 2
    assert [each.error for each in recorder.exchanges] == [None, None]


def test_a_batch_of_reads_that_meets_a_stale_connection_is_a_retry(recorder: Recorder) -> None:
    with ScriptedServer(*stale_scripts()) as server, Pool(server.node, observer=recorder) as pool:
        client = Client(pool)
        assert client.get("a") is None
        assert client.get_many(["b"]) == {}
    assert [(retry.verb, retry.error) for retry in recorder.of(Retried)] == [("get_many", ConnectionLost)]


def test_an_asyncio_read_that_meets_a_stale_connection_is_a_retry(recorder: Recorder) -> None:
    async def main(node: Node) -> None:
        async with AsyncPool(node, observer=recorder) as pool:
            client = AsyncClient(pool)
            assert await client.get("a") is None
            assert await client.get("b") is None

    with ScriptedServer(*stale_scripts()) as server:
        asyncio.run(main(server.node))
    assert [(retry.verb, retry.error) for retry in recorder.of(Retried)] == [("get", ConnectionLost)]


def test_keys_of_a_dead_node_are_retried_on_the_next_one(recorder: Recorder) -> None:
    settings = Settings(timeout=2.0, on_node_down="next")
    with Memcached() as server:
        dead = dead_node()
        with Cluster([server.node, dead], settings=settings, observer=recorder) as cluster:
            client = cluster.client()
            for key in KEYS:
                with suppress(MetacacheError):
                    client.get(key)
        assert [(retry.verb, retry.node.name, retry.error) for retry in recorder.of(Retried)] == [
            ("get", dead.name, ConnectError)
        ]
        recorder.clear()

        async def main() -> None:
            async with AsyncCluster([server.node, dead], settings=settings, observer=recorder) as async_cluster:
                async_client = async_cluster.client()
                for _ in range(4):
                    await async_client.get_many_outcomes(KEYS)

        asyncio.run(main())
        assert [(retry.verb, retry.node.name) for retry in recorder.of(Retried)] == [("get_many", dead.name)]


def test_waits_for_a_connection_are_events_and_counts(recorder: Recorder) -> None:
    with Memcached() as server:
        with Pool(server.node, settings=Settings(pool_size=1, timeout=10.0), observer=recorder) as pool:
            client = Client(pool)
            client.set("key", b"x" * 500_000)
            threads = [threading.Thread(target=lambda: [client.get("key") for _ in range(20)]) for _ in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            statistics = pool.statistics
        waits = recorder.of(Waited)
        assert statistics.waits == len(waits) > 0
        assert all(wait.is_served and wait.seconds >= 0 for wait in waits)
        assert sum(wait.seconds for wait in waits) == pytest.approx(statistics.wait_seconds)
        recorder.clear()

        async def main() -> None:
            settings = Settings(pool_size=1, max_in_flight=4, timeout=10.0)
            async with AsyncPool(server.node, settings=settings, observer=recorder) as async_pool:
                async_client = AsyncClient(async_pool)
                await asyncio.gather(*(async_client.get(key) for key in KEYS))
                statistics = async_pool.statistics
                async_waits = recorder.of(Waited)
                assert statistics.waits == len(async_waits) > 0
                assert all(wait.is_served for wait in async_waits)
                assert sum(wait.seconds for wait in async_waits) == pytest.approx(statistics.wait_seconds)

        asyncio.run(main())


def test_other_nodes_are_an_event(recorder: Recorder) -> None:
    one, two = Node("127.0.0.1:1"), Node("127.0.0.1:2")
    with Cluster([one], observer=recorder) as cluster:
        cluster.set_nodes([one, two])
        cluster.set_nodes([one, two])
    assert recorder.events == [NodesChanged((one,), (one, two))]


def test_admin_commands_are_exchanges(recorder: Recorder) -> None:
    with Memcached() as server, Cluster([server.node], observer=recorder) as cluster:
        cluster.ping()
        assert cluster.stats()[server.node]
        cluster.version()
    assert [each.verb for each in recorder.exchanges] == ["ping", "stats", "version"]
