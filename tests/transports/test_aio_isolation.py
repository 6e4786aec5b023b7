"""Callers of one shared connection do not affect each other when one is late, cancelled or refused."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs
import pytest

from metacache import (
    AsyncClient,
    AsyncCluster,
    AsyncConnection,
    AsyncPool,
    ClosedError,
    ConnectError,
    ConnectionLost,
    InvalidArgumentError,
    MetacacheError,
    Node,
    OperationTimeout,
    PoolTimeout,
    ProtocolError,
)
from metacache.testing import Memcached
from tests.conftest import start
from tests.scripted import Peer, ScriptedServer, answering, in_turn, silent
from tests.transports.aio_rig import HIT, PATIENT, SHORT, client_of, nothing_left, run_alone, settled, until

BRISK: Final = attrs.evolve(PATIENT, timeout=SHORT)


@pytest.mark.both_loops
async def test_a_slow_reply_fails_only_the_calls_whose_deadline_passed() -> None:
    value = b"x" * 600_000

    def dribble(peer: Peer) -> None:
        asked = peer.requests(61)
        reply = asked[0].reply(b"VA %d f0" % len(value), value)
        peer.send(reply, chunks=range(0, len(reply), 60_000), delay=0.05)
        for each in asked[1:]:
            each.answer(*HIT)
        peer.request().answer(*HIT)

    with ScriptedServer(dribble) as server:
        async with client_of(server.node) as client:
            quick = client.with_options(timeout=SHORT)
            late, *rest = await settled(quick.get("large"), *(client.get(f"key:{n}") for n in range(60)))
            assert isinstance(late, OperationTimeout)
            assert rest == [b"right"] * 60
            assert await client.get("key") == b"right"


@pytest.mark.both_loops
async def test_the_late_reply_of_a_write_is_dropped_and_the_next_reply_is_right() -> None:
    release = threading.Event()

    def late(peer: Peer) -> None:
        first = peer.request()
        second = peer.request()
        second_asked = second.reply(*HIT)
        release.wait(10.0)
        first.answer(b"HD")
        peer.send(second_asked)
        peer.request().answer(*HIT)

    with ScriptedServer(late) as server:
        async with client_of(server.node) as client:
            with pytest.raises(OperationTimeout) as caught:
                await client.with_options(timeout=SHORT).set("key", b"v")
            assert caught.value.maybe_applied
            second = asyncio.create_task(client.get("key"))
            await asyncio.sleep(0)
            release.set()
            assert await second == b"right"
            assert await client.get("key") == b"right"
        assert server.accepted == 1


async def test_silence_closes_the_connection_although_all_callers_have_given_up() -> None:
    failures: list[MetacacheError] = []

    first = in_turn(lambda peer: peer.request().answer(*HIT), silent)
    with ScriptedServer(first, answering(HIT)) as server:
        connection = AsyncConnection(server.node, settings=BRISK, on_failure=failures.append)
        async with AsyncClient(connection, owns=True) as client:
            # Connected, or a slow machine dials until all have gone, and nothing is sent.
            assert await client.with_options(timeout=10.0).get("key") == b"right"

            async def impatient(key: str) -> None:
                async with asyncio.timeout(SHORT / 4):
                    await client.get(key)

            gone = await settled(*(impatient(f"key:{n}") for n in range(20)))
            assert {type(each) for each in gone} == {TimeoutError}
            await until(lambda: bool(failures))
            assert [type(failure) for failure in failures] == [OperationTimeout]
            assert connection.load == 0
            assert await client.get("key") == b"right"
        assert len(failures) == 1


async def test_a_connection_that_receives_single_bytes_stays_open() -> None:
    def trickle(peer: Peer) -> None:
        asked = peer.request()
        reply = asked.reply(b"VA 5 f0", b"right")
        peer.send(reply, chunks=range(1, len(reply)), delay=SHORT / 4)

    with ScriptedServer(trickle) as server:
        async with client_of(server.node, BRISK) as client:
            assert await client.with_options(timeout=10.0).get("key") == b"right"


async def test_a_reset_connection_marks_a_write_as_maybe_applied_and_sends_a_read_again() -> None:
    def lose(peer: Peer) -> None:
        peer.request().answer(*HIT)
        peer.requests(2)
        peer.rst()

    with ScriptedServer(lose, answering(HIT)) as server:
        async with client_of(server.node) as client:
            assert await client.get("key") == b"right"
            stored, read = await settled(client.set("key", b"v"), client.get("key"))
            assert isinstance(stored, ConnectionLost)
            assert stored.maybe_applied
            assert read == b"right"


async def test_a_read_that_caused_the_dial_is_not_sent_again() -> None:
    def lose(peer: Peer) -> None:
        peer.request()
        peer.fin()

    with ScriptedServer(lose) as server:
        async with client_of(server.node) as client:
            with pytest.raises(ConnectionLost) as caught:
                await client.get("key")
            assert not caught.value.maybe_applied


async def test_replies_in_the_wrong_order_are_a_protocol_error_for_all() -> None:
    def swap(peer: Peer) -> None:
        first, second = peer.requests(2)
        second.answer(*HIT)
        first.answer(*HIT)
        peer.expect_end()

    with ScriptedServer(swap, answering(HIT)) as server:
        async with client_of(server.node) as client:
            assert {type(each) for each in await settled(client.get("a"), client.get("b"))} == {ProtocolError}
            assert await client.get("key") == b"right"


async def test_requests_wait_in_order_for_a_full_connection_and_a_cancelled_one_is_skipped() -> None:
    seen: list[bytes] = []

    def one_by_one(peer: Peer) -> None:
        for _ in range(4):
            asked = peer.request()
            seen.append(asked.line.split()[1])
            asked.answer(*HIT)

    with ScriptedServer(one_by_one) as server:
        async with client_of(server.node, attrs.evolve(PATIENT, max_in_flight=1)) as client:
            tasks = [asyncio.create_task(client.get(key)) for key in "abcde"]
            await asyncio.sleep(0)
            tasks[2].cancel()
            assert [each for each in await settled(*tasks) if not isinstance(each, BaseException)] == [b"right"] * 4
    assert seen == [b"a", b"b", b"d", b"e"]


async def test_a_request_that_waits_too_long_for_a_full_connection_is_not_sent() -> None:
    def hold(peer: Peer) -> None:
        asked = peer.request()
        time.sleep(SHORT * 2)
        asked.answer(*HIT)

    with ScriptedServer(hold) as server:
        async with client_of(server.node, attrs.evolve(PATIENT, max_in_flight=1)) as client:
            first, second = await settled(client.get("a"), client.with_options(timeout=SHORT).set("b", b"v"))
            assert first == b"right"
            assert isinstance(second, PoolTimeout)
            assert not second.maybe_applied


async def test_a_dial_continues_when_the_caller_that_started_it_is_cancelled() -> None:
    with ScriptedServer(answering(HIT)) as server:
        async with client_of(server.node) as client:
            first, second = asyncio.create_task(client.get("a")), asyncio.create_task(client.get("b"))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            first.cancel()
            assert await second == b"right"
        assert server.accepted == 1


async def test_a_refused_dial_fails_each_request_and_is_reported_once() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        node = Node(f"127.0.0.1:{unused.getsockname()[1]}")
        failures: list[MetacacheError] = []
        connection = AsyncConnection(node, settings=PATIENT, on_failure=failures.append)
        async with nothing_left(), AsyncClient(connection, owns=True) as client:
            failures_of_all = await settled(*(client.get(f"key:{n}") for n in range(5)))
        assert {type(each) for each in failures_of_all} == {ConnectError}
        assert len({id(each) for each in failures_of_all}) == 5
        assert len(failures) == 1


async def test_a_lookup_that_hangs_ends_at_the_connect_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def hang(_: str, __: int, *, type: int) -> object:  # noqa: A002, ARG001 - as the real one calls it
        release.wait(10.0)
        raise OSError("released")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    began = time.monotonic()
    async with client_of(Node("nowhere.invalid:1"), attrs.evolve(PATIENT, connect_timeout=SHORT)) as client:
        with pytest.raises(ConnectError, match="not resolved"):
            await client.get("key")
    assert time.monotonic() - began < 5.0
    release.set()


async def test_a_blocked_loop_reads_a_reply_that_has_arrived_before_requests_time_out(memcached: Memcached) -> None:
    async with nothing_left(), client_of(memcached.node, BRISK) as client:
        await client.set("key", b"right")
        task = asyncio.create_task(client.get("key"))
        for _ in range(3):
            await asyncio.sleep(0)
        time.sleep(SHORT * 2)  # blocks the loop while the server answers
        assert await task == b"right"


def cluster_of(node: Node) -> AsyncCluster:
    return AsyncCluster([node])


@pytest.mark.parametrize("make", [AsyncConnection, AsyncPool, cluster_of])
def test_a_transport_made_by_hand_refuses_a_second_event_loop(
    shared_memcached: Memcached, make: Callable[[Node], AsyncConnection]
) -> None:
    client = AsyncClient(make(shared_memcached.node), owns=True)

    async def use() -> None:
        await client.get("key")

    async def misuse() -> None:
        with pytest.raises(InvalidArgumentError, match="another event loop"):
            await client.get("key")

    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(use())
        second.run(misuse())
        first.run(client.aclose())


@pytest.mark.both_loops
async def test_a_thousand_gets_and_a_large_batch_share_one_connection(shared_memcached: Memcached) -> None:
    async with nothing_left(), client_of(shared_memcached.node) as client:
        large = {f"large:{n}": b"%d:" % n + b"x" * 50_000 for n in range(100)}
        small = {f"small:{n}": b"%d" % n for n in range(1000)}
        assert all((await client.set_many(large | small)).values())
        batch, *values = await asyncio.gather(client.get_many(large), *(client.get(key) for key in small))
        assert batch == large
        assert values == list(small.values())


# --- closing ---------------------------------------------------------------------------------------------------------


async def test_closing_lets_running_requests_finish_and_refuses_new_ones() -> None:
    def slow(peer: Peer) -> None:
        asked = peer.request()
        time.sleep(SHORT)
        asked.answer(*HIT)

    with ScriptedServer(slow) as server:
        connection = AsyncConnection(server.node, settings=PATIENT)
        client = AsyncClient(connection)
        running = asyncio.create_task(client.get("key"))
        for _ in range(10):
            await asyncio.sleep(0.001)
        await asyncio.gather(connection.aclose(), connection.aclose())
        async with asyncio.timeout(5.0):
            assert await running == b"right"
        with pytest.raises(ClosedError):
            await client.get("key")


ENDINGS: Final[dict[str, str]] = {
    "closed": "asyncio.run(closed())",
    "not closed before its loop ends": "asyncio.run(used()); asyncio.run(client.aclose())",
    "closed in traffic": "asyncio.run(busy())",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_no_way_of_closing_leaves_a_task_or_a_transport_that_warns(shared_memcached: Memcached, ending: str) -> None:
    body = f"""
        import asyncio, sys
        from metacache import MetacacheError, Settings, connect_async
        client = connect_async(sys.argv[1], settings=Settings(timeout=10.0, connect_timeout=10.0))

        async def used():
            await client.set("key", b"v")
            assert await asyncio.gather(*(client.get("key") for _ in range(50))) == [b"v"] * 50

        async def closed():
            async with client:
                await used()

        async def one():
            while True:
                try:
                    await client.get("key")
                except MetacacheError:
                    return

        async def busy():
            tasks = [asyncio.create_task(one()) for _ in range(20)]
            await asyncio.sleep(0.05)
            await client.aclose()
            await client.aclose()
            await asyncio.gather(*tasks)

        {ENDINGS[ending]}
        print("done")
    """
    assert run_alone(body, shared_memcached.url) == "done\n"


# --- other sockets ---------------------------------------------------------------------------------------------------


@pytest.mark.both_loops
async def test_a_unix_socket_serves() -> None:
    with start(unix=True) as server:
        async with nothing_left(), client_of(server.node) as client:
            assert await client.set("key", b"v")
            assert await client.get_many(["key", "none"]) == {"key": b"v"}


@pytest.mark.both_loops
async def test_user_and_password_are_sent_before_any_request(tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    passwords.write_text("user:secret\n")
    with start("-Y", str(passwords)) as server:
        right = attrs.evolve(PATIENT, username="user", password="secret")
        async with nothing_left(), client_of(server.node, right) as client:
            assert all(await asyncio.gather(*(client.set(f"key:{n}", b"v") for n in range(20))))
        async with client_of(server.node, attrs.evolve(right, password="wrong")) as client:
            with pytest.raises(MetacacheError) as caught:
                await client.get("key")
            assert "wrong" not in str(caught.value)
