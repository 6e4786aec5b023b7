"""A deadline, like a cancellation, abandons one request; a silent connection is closed and charged to its node once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from metacache import (
    AsyncClient,
    AsyncCluster,
    AsyncConnection,
    ConnectionLost,
    MetacacheError,
    OperationTimeout,
    PoolTimeout,
    Settings,
)
from metacache.observe import NodeState
from metacache.testing import Memcached
from tests.scripted import Asked, Peer, ScriptedServer, answering, in_turn, silent
from tests.transports.aio_rig import HIT, PATIENT, SHORT, client_of, nothing_left, settled, until

pytestmark = pytest.mark.alone

SIZE = 600_000


@pytest.mark.both_loops
async def test_behind_a_slow_reply_only_requests_past_their_own_deadline_fail() -> None:
    def script(peer: Peer) -> None:
        big, *others = peer.requests(61)
        reply = big.reply(b"VA %d f0" % SIZE, b"x" * SIZE)
        peer.send(reply, chunks=range(0, len(reply), len(reply) // 12), delay=0.05)  # 0.6 seconds in all
        peer.send(b"".join(other.reply(b"VA 5 f0", b"%05d" % number) for number, other in enumerate(others)))
        peer.request().answer(*HIT)
        peer.expect_end()

    async with nothing_left():
        with ScriptedServer(script) as server:
            async with client_of(server.node) as client:
                hasty = client.with_options(timeout=0.15)
                calls = [hasty.get("big")]
                calls += [(hasty if number % 3 == 0 else client).get(f"key-{number}") for number in range(60)]
                big, *others = await settled(*calls)
                assert isinstance(big, OperationTimeout)
                for number, found in enumerate(others):
                    if number % 3 == 0:
                        assert isinstance(found, OperationTimeout)
                    else:
                        assert found == b"%05d" % number
                assert await client.get("after") == b"right"
                assert server.accepted == 1


@pytest.mark.both_loops
async def test_a_late_reply_is_dropped_and_the_connection_stays_open(memcached: Memcached) -> None:
    connection = AsyncConnection(memcached.node, settings=PATIENT)
    async with nothing_left(), AsyncClient(connection, owns=True) as client:
        assert await client.set_many({"a": b"1", "b": b"2"})
        memcached.freeze()
        with pytest.raises(OperationTimeout) as read:
            await client.with_options(timeout=0.05).get("a")
        with pytest.raises(OperationTimeout) as written:
            await client.with_options(timeout=0.05).set("a", b"3")
        assert not read.value.maybe_applied
        assert written.value.maybe_applied
        assert (written.value.node, written.value.operation, written.value.key) == (memcached.node.name, "set", "a")
        assert connection.load == 2
        memcached.thaw()
        assert await client.get("b") == b"2"
        assert await client.get("a") == b"3"
        assert connection.load == 0
        assert connection.counts.dialled == 1


@pytest.mark.parametrize("gives_up", ["the caller", "the deadline", "none"])
async def test_a_silent_connection_is_closed_and_its_failure_is_reported_once(
    memcached: Memcached, gives_up: str
) -> None:
    failures: list[MetacacheError] = []
    settings = Settings(timeout=SHORT, connect_timeout=10.0)
    connection = AsyncConnection(memcached.node, settings=settings, on_failure=failures.append)
    async with nothing_left(), AsyncClient(connection, owns=True) as client:
        assert await client.set("key", b"v")
        memcached.freeze()

        async def ask() -> None:
            if gives_up == "the caller":
                async with asyncio.timeout(SHORT / 4):
                    await client.get("key")
            await (client.with_options(timeout=SHORT / 4) if gives_up == "the deadline" else client).get("key")

        found = await settled(*(ask() for _ in range(20)))
        assert all(isinstance(error, TimeoutError) for error in found)
        await until(lambda: bool(failures))
        assert [type(failure) for failure in failures] == [OperationTimeout]
        assert "nothing was received" in str(failures[0])
        assert connection.load == 0
        memcached.thaw()
        assert await client.get("key") == b"v"
        assert connection.counts.dialled == 2
        assert len(failures) == 1


async def test_a_frozen_node_is_marked_down_although_its_callers_always_time_out_first(memcached: Memcached) -> None:
    async with (
        nothing_left(),
        AsyncCluster([memcached.node], settings=Settings(timeout=0.1, connect_timeout=1.0)) as cluster,
    ):
        client = cluster.client()
        assert await client.with_options(timeout=5.0).set("key", b"v")
        memcached.freeze()
        end = time.monotonic() + 10.0
        while cluster.states[memcached.node] is not NodeState.DOWN:
            assert time.monotonic() < end
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await client.get("key")
        memcached.thaw()


async def test_a_connection_that_receives_bytes_slowly_stays_open() -> None:
    def script(peer: Peer) -> None:
        reply = peer.request().reply(b"VA 40 f0", b"x" * 40)
        peer.send(reply, chunks=range(4, len(reply), 4), delay=SHORT / 4)  # longer than SHORT in all
        peer.request().answer(*HIT)
        peer.expect_end()

    failures: list[MetacacheError] = []
    with ScriptedServer(script) as server:
        connection = AsyncConnection(server.node, settings=Settings(timeout=SHORT), on_failure=failures.append)
        async with AsyncClient(connection, timeout=10.0, owns=True) as client:
            assert await client.get("key") == b"x" * 40
            assert await client.get("key") == b"right"
    assert failures == []


@pytest.mark.both_loops
async def test_a_blocked_loop_reads_a_large_reply_that_has_arrived_before_requests_time_out() -> None:
    asked, go_on, answered = threading.Event(), threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        for _ in range(3):
            request = peer.request()
            asked.set()
            assert go_on.wait(10.0)
            request.answer(b"VA 160000 f0", b"x" * 160_000)  # more than one recv returns
            answered.set()
        peer.expect_end()

    with ScriptedServer(script) as server:
        async with client_of(server.node, Settings(timeout=SHORT, connect_timeout=10.0)) as client:
            for _ in range(3):
                for event in (asked, go_on, answered):
                    event.clear()
                call = asyncio.create_task(client.get("key"))
                await until(asked.is_set)
                go_on.set()
                assert answered.wait(10.0)  # the loop is blocked,
                time.sleep(1.2 * SHORT)  # past the deadline
                assert await call == b"x" * 160_000


async def test_a_deadline_that_has_passed_sends_nothing(shared_memcached: Memcached) -> None:
    async with client_of(shared_memcached.node) as client:
        assert await client.set("passed", b"before")
        late = client.with_options(timeout=1e-9)
        with pytest.raises(OperationTimeout, match="before anything was sent") as raised:
            await late.set("passed", b"after")
        assert not raised.value.maybe_applied
        outcomes = await late.set_many_outcomes({"passed": b"after"})
        assert [error.maybe_applied for error in outcomes.errors.values()] == [False]
        assert await client.get("passed") == b"before"


async def test_a_request_that_waits_for_room_until_its_deadline_is_not_sent(memcached: Memcached) -> None:
    settings = Settings(timeout=10.0, max_in_flight=2)
    async with nothing_left(), client_of(memcached.node, settings) as client:
        assert await client.set("key", b"1")
        memcached.freeze()
        in_flight = [asyncio.create_task(client.get("key")) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(PoolTimeout, match="2 requests are in flight") as raised:
            await client.with_options(timeout=0.05).set("key", b"2")
        assert not raised.value.maybe_applied
        memcached.thaw()
        assert await asyncio.gather(*in_flight) == [b"1", b"1"]
        assert await client.get("key") == b"1"


@pytest.mark.both_loops
async def test_a_request_that_is_cancelled_while_it_waits_for_room_is_not_sent(memcached: Memcached) -> None:
    async with nothing_left(), client_of(memcached.node, Settings(timeout=10.0, max_in_flight=1)) as client:
        assert await client.set("key", b"1")
        memcached.freeze()
        first, second = asyncio.create_task(client.get("key")), asyncio.create_task(client.set("key", b"2"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait([second])
        memcached.thaw()
        assert await first == b"1"
        assert await client.get("key") == b"1"


# --- dropped connections -------------------------------------------------------------------------------------------


@pytest.mark.both_loops
@pytest.mark.parametrize("breaks", [Peer.fin, Peer.rst])
async def test_a_dropped_connection_marks_writes_as_maybe_applied_and_sends_reads_again(
    breaks: Callable[[Peer], None],
) -> None:
    def stale(peer: Peer) -> None:
        peer.request().answer(*HIT)
        peer.requests(4)
        breaks(peer)

    def fresh(peer: Peer) -> None:
        line = peer.request()
        assert line.line.startswith(b"mg again")
        line.answer(*HIT)
        peer.request().answer(b"VA 4 f0", b"many")
        peer.expect_end()

    failures: list[MetacacheError] = []
    with ScriptedServer(stale, fresh) as server:
        connection = AsyncConnection(server.node, settings=PATIENT, on_failure=failures.append)
        async with AsyncClient(connection, owns=True) as client:
            assert await client.get("first") == b"right"
            read, written, deleted, many = await asyncio.gather(
                client.get("again"),
                client.set("key", b"v"),
                client.delete("key"),
                client.get_many(["one"]),
                return_exceptions=True,
            )
            assert read == b"right"
            assert many == {"one": b"many"}
            for error in (written, deleted):
                assert isinstance(error, ConnectionLost)
                assert error.maybe_applied
            assert [type(failure) for failure in failures] == [ConnectionLost], (
                "one event, although several requests failed"
            )
            assert connection.load == 0


async def test_a_read_is_sent_again_once_and_not_twice() -> None:
    stale = in_turn(lambda peer: peer.request().answer(*HIT), Peer.request, Peer.fin)
    with ScriptedServer(stale, in_turn(Peer.request, Peer.fin)) as server:
        async with client_of(server.node) as client:
            assert await client.get("key") == b"right"
            with pytest.raises(ConnectionLost):
                await client.get("key")


async def test_a_read_on_a_new_connection_is_not_sent_again() -> None:
    with ScriptedServer(in_turn(Peer.request, Peer.fin)) as server:
        async with client_of(server.node) as client:
            with pytest.raises(ConnectionLost):
                await client.get("key")


async def test_unsent_requests_are_sent_on_the_new_connection() -> None:
    first = in_turn(lambda peer: peer.request().answer(*HIT), Peer.request, Peer.fin)
    with ScriptedServer(first, answering((b"HD", None), (b"HD", None))) as server:
        async with client_of(server.node, Settings(timeout=10.0, max_in_flight=1)) as client:
            assert await client.get("key") == b"right"
            found = await settled(*(client.set(f"key-{number}", b"v") for number in range(3)))
            assert isinstance(found[0], ConnectionLost)
            assert found[0].maybe_applied
            assert all(found[1:])
            assert not any(isinstance(result, BaseException) for result in found[1:])


async def test_a_refused_set_closes_the_connection_and_its_load_is_right() -> None:
    refusing = in_turn(lambda peer: peer.request().answer(b"CLIENT_ERROR bad data chunk"), Peer.expect_end)
    with ScriptedServer(refusing, answering((b"HD", None))) as server:
        connection = AsyncConnection(server.node, settings=PATIENT)
        async with AsyncClient(connection, owns=True) as client:
            with pytest.raises(MetacacheError, match="bad data chunk"):
                await client.set("key", b"v")
            assert connection.load == 0
            assert await client.set("key", b"v")
            assert connection.load == 0


async def test_replies_in_the_wrong_order_are_returned_to_no_caller() -> None:
    def crossed(peer: Peer) -> None:
        first, second = peer.requests(2)
        peer.send(second.reply(*HIT) + first.reply(*HIT))
        peer.expect_end()

    with ScriptedServer(crossed, answering(HIT)) as server:
        async with client_of(server.node) as client:
            found = await settled(client.get("a"), client.get("b"))
            assert all(isinstance(error, MetacacheError) for error in found)
            assert await client.get("a") == b"right"


async def test_silence_does_not_close_a_connection_without_waiting_requests() -> None:
    with ScriptedServer(answering(HIT, HIT)) as server:
        async with client_of(server.node, Settings(timeout=0.05, connect_timeout=5.0)) as client:
            patient = client.with_options(timeout=5.0)
            assert await patient.get("key") == b"right"
            await asyncio.sleep(0.15)
            assert await patient.get("key") == b"right"
            assert server.accepted == 1


async def test_silence_is_measured_from_the_first_waiting_request() -> None:
    go_on = threading.Event()

    def script(peer: Peer) -> None:
        peer.request().answer(*HIT)
        late, patient = peer.requests(2)
        assert go_on.wait(10.0)
        late.answer(*HIT)
        patient.answer(b"HD")
        peer.expect_end()

    with ScriptedServer(script) as server:
        async with client_of(server.node, Settings(timeout=4 * SHORT, connect_timeout=10.0)) as client:
            assert await client.get("key") == b"right"
            await asyncio.sleep(4 * SHORT)  # no request waits
            hasty = asyncio.create_task(client.with_options(timeout=SHORT / 2).get("key"))
            patient = asyncio.create_task(client.set("key", b"v"))
            with pytest.raises(OperationTimeout):
                await hasty
            go_on.set()
            assert await patient


async def test_a_silent_server_ends_each_call_at_its_deadline() -> None:
    with ScriptedServer(silent) as server:
        async with client_of(server.node, Settings(timeout=SHORT)) as client:
            start = time.monotonic()
            found = await settled(*(client.get(f"key-{number}") for number in range(50)))
            assert all(isinstance(error, OperationTimeout) for error in found)
            assert SHORT * 0.9 < time.monotonic() - start < SHORT * 10


@pytest.mark.both_loops
async def test_a_connection_that_slowly_sends_a_large_value_is_not_silent() -> None:
    size, others = 6_000_000, 60

    def script(peer: Peer) -> None:
        line, _, came = peer.sock.recv(100).partition(b"\r\n")
        left = size + 2 - len(came)
        while left:  # over a second, five times the timeout
            left -= len(peer.sock.recv(min(left, 50_000)))
            time.sleep(0.01)
        Asked(peer, line, None).answer(b"HD")
        for request in peer.requests(others):
            request.answer(*HIT)
        peer.expect_end()

    settings = Settings(timeout=0.2)
    async with nothing_left():
        with ScriptedServer(script, unix=True) as server:  # the kernel buffers little for it
            async with client_of(server.node, settings) as client:
                patient = client.with_options(timeout=20.0)
                stored = asyncio.ensure_future(patient.set("large", b"x" * size))
                asked: list[asyncio.Task[bytes | None]] = []
                for _ in range(others):
                    await asyncio.sleep(0.01)
                    asked.append(asyncio.ensure_future(patient.get("small")))
                assert await stored
                assert await asyncio.gather(*asked) == [b"right"] * others
                assert server.accepted == 1
