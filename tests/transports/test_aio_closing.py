"""Connections that close or are never opened: each caller gets an error, none waits forever, and no socket leaks."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Final

import pytest

from metacache import (
    AsyncClient,
    AsyncCluster,
    AsyncConnection,
    ClosedError,
    ConnectError,
    Node,
    OperationTimeout,
    Settings,
    ValueTooLargeError,
)
from metacache.testing import Memcached
from tests.certificates import authority
from tests.conftest import start_tls
from tests.scripted import Asked, Peer, ScriptedServer, answering, silent
from tests.transports.aio_rig import HIT, PATIENT, SHORT, client_of, nothing_left, run_alone, settled, until

GUARDED: Final = Settings(timeout=10.0, connect_timeout=SHORT, username="user", password="secret")


@pytest.mark.both_loops
async def test_closing_with_a_frozen_server_waits_until_the_last_deadline(memcached: Memcached) -> None:
    connection = AsyncConnection(memcached.node, settings=PATIENT)
    async with nothing_left():
        client = AsyncClient(connection)
        assert await client.set("key", b"v")
        memcached.freeze()
        calls = [asyncio.create_task(client.with_options(timeout=seconds).get("key")) for seconds in (0.05, 0.1, 0.15)]
        await until(lambda: connection.load == 3)
        async with asyncio.timeout(5.0):
            await connection.aclose()
            assert [type(error) for error in await settled(*calls)] == [OperationTimeout] * 3
    memcached.thaw()


@pytest.mark.both_loops
async def test_closing_a_connection_waits_for_a_running_batch(shared_memcached: Memcached) -> None:
    items = {f"ending:{number}": b"x" * 1000 for number in range(3000)}  # many windows
    connection = AsyncConnection(shared_memcached.node, settings=PATIENT)
    async with nothing_left():
        batch = asyncio.create_task(AsyncClient(connection).set_many(items))
        await until(lambda: connection.load > 0)
        await connection.aclose()
        async with asyncio.timeout(5.0):
            assert all((await batch).values())
        with pytest.raises(ClosedError):
            await AsyncClient(connection).get_many(["ending:1"])


async def test_an_authentication_that_is_never_answered_leaves_no_socket() -> None:
    ended = threading.Event()

    def script(peer: Peer) -> None:
        peer.request()
        peer.expect_end()
        ended.set()

    with ScriptedServer(script) as server:
        connection = AsyncConnection(server.node, settings=GUARDED)
        with pytest.raises(ConnectError, match="did not answer the authentication"):
            await AsyncClient(connection).get("key")
        await until(ended.is_set)  # before the test closes the connection
        assert connection.load == 0
        await connection.aclose()


async def test_a_request_made_during_the_authentication_is_counted_correctly() -> None:
    asked, go_on = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        peer.request()
        asked.set()
        assert go_on.wait(10.0)
        peer.send(b"STORED\r\n")
        answering(HIT, HIT)(peer)

    with ScriptedServer(script) as server:
        connection = AsyncConnection(server.node, settings=Settings(timeout=10.0, username="user", password="secret"))
        async with AsyncClient(connection, owns=True) as client:
            calls = [asyncio.create_task(client.get("first"))]
            await until(asked.is_set)
            calls.append(asyncio.create_task(client.get("second")))
            await until(lambda: connection.waiting == 2)
            await asyncio.sleep(0)
            go_on.set()
            assert await asyncio.gather(*calls) == [b"right", b"right"]
            assert connection.load == 0


async def test_a_server_without_a_free_connection_is_a_connect_error_and_used_again_when_it_has_one() -> None:
    def full(peer: Peer) -> None:
        peer.request()  # else the client may read the error before it sends the request
        peer.send(b"ERROR Too many open connections\r\n")
        peer.fin()

    with ScriptedServer(full, answering(HIT)) as server:
        async with client_of(server.node) as client:
            with pytest.raises(ConnectError, match=r"no free connection \(-c\)"):
                await client.set("key", b"v")
            assert await client.get("key") == b"right"


async def test_a_connection_closed_from_another_loop_fails_the_requests_that_wait_on_it() -> None:
    with ScriptedServer(silent) as server:
        connection = AsyncConnection(server.node, settings=PATIENT)
        call = asyncio.create_task(AsyncClient(connection).set("key", b"v"))
        await until(lambda: " 1 in flight" in repr(connection))
        await asyncio.to_thread(asyncio.run, connection.aclose())
        async with asyncio.timeout(5.0):
            with pytest.raises(ClosedError) as raised:
                await call
        assert raised.value.maybe_applied


async def test_abandoned_requests_use_no_memory_while_the_server_does_not_read(memcached: Memcached) -> None:
    connection = AsyncConnection(memcached.node, settings=Settings(timeout=30.0, max_in_flight=1))
    async with nothing_left():
        client = AsyncClient(connection)
        assert await client.set("key", b"v")
        memcached.freeze()
        for _ in range(2000):
            call = asyncio.create_task(client.set("key", b"v"))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            call.cancel()
            await asyncio.wait([call])
        assert connection.waiting < 200
        memcached.thaw()
        assert await client.get("key") is not None
        await connection.aclose()


async def test_a_cluster_sends_no_part_of_a_batch_with_a_value_that_is_too_large(shared_memcached: Memcached) -> None:
    nodes = [Node(shared_memcached.node.address, name=name) for name in ("a", "b", "c")]
    async with AsyncCluster(nodes, settings=Settings(timeout=10.0, max_value_size=100)) as cluster:
        client = cluster.client(prefix="whole:")
        items = {f"key-{number}": b"small" for number in range(30)}
        with pytest.raises(ValueTooLargeError):
            await client.set_many({**items, "large": b"x" * 101})
        assert await client.get_many(items) == {}


async def test_a_cluster_closed_while_it_finds_its_nodes_gives_waiting_calls_a_closed_error() -> None:
    looking = asyncio.Event()

    async def find(_: AsyncCluster) -> list[Node]:
        looking.set()
        await asyncio.sleep(10.0)
        return []

    async with nothing_left():
        cluster = AsyncCluster(find)
        call = asyncio.create_task(cluster.client().get("key"))
        await looking.wait()
        await cluster.aclose()
        with pytest.raises(ClosedError):
            await call


async def test_a_failure_to_find_nodes_that_no_caller_waits_for_logs_no_error() -> None:
    go_on = asyncio.Event()

    async def find(_: AsyncCluster) -> list[Node]:
        await go_on.wait()
        raise ConnectError("no answer")

    async with nothing_left(), AsyncCluster(find) as cluster:
        call = asyncio.create_task(cluster.client().get("key"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
        go_on.set()
        await asyncio.sleep(0.01)
        with pytest.raises(ConnectError, match="no answer"):
            await cluster.client().get("key")


def test_a_tls_connection_closed_after_its_loop_warns_of_nothing(tmp_path: Path) -> None:
    trusted = tmp_path / "trusted.pem"
    authority().cert_pem.write_to_path(trusted)
    body = """
        import asyncio, gc, ssl, sys
        from metacache import Settings, connect_async
        tls = ssl.create_default_context(cafile=sys.argv[2])
        client = connect_async(sys.argv[1], settings=Settings(tls=tls, timeout=10.0))
        asyncio.run(client.set("key", b"v"))
        asyncio.run(client.aclose())
        del client
        gc.collect()
        print("done")
    """
    with start_tls(tmp_path) as server:
        assert run_alone(body, server.url, str(trusted)) == "done\n"


def test_each_of_many_requests_gets_its_own_reply() -> None:
    def script(peer: Peer) -> None:
        asked: list[Asked] = peer.requests(1200)
        peer.send(b"".join(each.reply(b"VA 4 f0", each.line.split(b" ")[1][-4:]) for each in asked))
        peer.expect_end()

    async def main() -> None:
        with ScriptedServer(script) as server:
            async with client_of(server.node, Settings(timeout=10.0, max_in_flight=2000)) as client:
                found = await asyncio.gather(*(client.get(f"key-{number:04}") for number in range(1200)))
                assert found == [b"%04d" % number for number in range(1200)]

    asyncio.run(main())


def test_after_a_fork_the_child_makes_its_own_client_and_the_parent_continues(shared_memcached: Memcached) -> None:
    body = """
        import asyncio, gc, os, sys, warnings
        from metacache import Settings, connect_async
        patient = Settings(timeout=10.0, connect_timeout=10.0)
        client = connect_async(sys.argv[1], settings=patient)
        loop = asyncio.new_event_loop()

        async def in_child():
            async with connect_async(sys.argv[1], settings=patient) as own:
                assert await own.get("forked") == b"parent"
                assert await own.set("child", b"was here")
            assert await client.get("forked") == b"parent"  # with connections of its own
            return 0

        loop.run_until_complete(client.set("forked", b"parent"))
        child = os.fork()
        if child == 0:
            os._exit(asyncio.run(in_child()))
        assert os.waitpid(child, 0)[1] == 0
        for _ in range(100):
            assert loop.run_until_complete(client.get("forked")) == b"parent"
        assert loop.run_until_complete(client.get("child")) == b"was here"
        loop.run_until_complete(client.aclose())
        loop.close()
        print("done")
    """
    assert run_alone(body, shared_memcached.url) == "done\n"
