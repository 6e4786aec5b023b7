"""Rare races: a link that is lost before it is used, a cancelled dial, a batch that is cancelled while it fails."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Any, Final

import attrs
import pytest

from metacache import (
    AsyncClient,
    AsyncConnection,
    ClosedError,
    ConnectError,
    MetacacheError,
    OperationTimeout,
    Settings,
)
from metacache.testing import Memcached
from tests.scripted import Peer, ScriptedServer, answering, silent
from tests.transports.aio_rig import HIT, PATIENT, SHORT, client_of, nothing_left, settled, until

GUARDED: Final = attrs.evolve(PATIENT, username="user", password="secret")
WINDOWS: Final = 4  # of one batch, sent without waiting for replies
WINDOW: Final = 32  # requests of a thousand bytes in one of them
ITEMS: Final = {f"rare:{number}": b"x" * 1_000 for number in range(10 * WINDOW)}


def the_dial(tasks: AbstractSet[asyncio.Task[Any]]) -> asyncio.Task[Any]:  # Any: of no use here
    """Return the one task that is not among *tasks*."""
    (dial,) = asyncio.all_tasks() - tasks
    return dial


def hold_until_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Delay each dial until the server has closed the connection."""
    loop = asyncio.get_running_loop()
    genuine = loop.create_connection

    async def held(make: Callable[[], asyncio.Protocol], **options: Any) -> object:  # Any: passed on
        transport, protocol = await genuine(make, **options)
        await until(transport.is_closing)
        return transport, protocol

    monkeypatch.setattr(loop, "create_connection", held)


# --- dials -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [b"", b"ERROR Too many open connections\r\n"])
async def test_a_connection_that_is_closed_before_it_is_used_is_a_connect_error_with_a_hint(
    monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    def full(peer: Peer) -> None:
        peer.send(said)
        peer.fin()

    failures: list[MetacacheError] = []
    with ScriptedServer(full, answering(HIT)) as server:
        connection = AsyncConnection(server.node, settings=PATIENT, on_failure=failures.append)
        async with AsyncClient(connection, owns=True) as client:
            with monkeypatch.context() as patch:
                hold_until_closed(patch)
                found = await settled(client.get("key"), client.set("key", b"v"))
            for error in found:
                assert isinstance(error, ConnectError)
                assert "closed the connection immediately; has it free connections (-c)?" in str(error)
                assert not error.maybe_applied
            assert [type(failure) for failure in failures] == [ConnectError]
            assert connection.load == 0
            assert await client.get("key") == b"right"


@pytest.mark.both_loops
async def test_a_cancelled_dial_is_started_again_for_the_requests_that_still_wait() -> None:
    asked = threading.Event()

    def first(peer: Peer) -> None:
        peer.request()
        asked.set()
        peer.expect_end()

    def second(peer: Peer) -> None:
        peer.request()
        peer.send(b"STORED\r\n")
        answering(HIT)(peer)

    async with nothing_left():
        with ScriptedServer(first, second) as server:
            connection = AsyncConnection(server.node, settings=GUARDED)
            async with AsyncClient(connection, owns=True) as client:
                call = asyncio.create_task(client.get("key"))
                tasks = asyncio.all_tasks()
                await until(asked.is_set)
                the_dial(tasks).cancel()
                assert await call == b"right"
                assert connection.load == 0


@pytest.mark.both_loops
async def test_a_cancelled_dial_is_not_started_again_when_no_request_waits() -> None:
    asked = threading.Event()

    def script(peer: Peer) -> None:
        peer.request()
        asked.set()
        peer.expect_end()

    async with nothing_left():
        with ScriptedServer(script) as server:
            connection = AsyncConnection(server.node, settings=GUARDED)
            async with AsyncClient(connection, owns=True) as client:
                call = asyncio.create_task(client.get("key"))
                tasks = asyncio.all_tasks()
                await until(asked.is_set)
                dial = the_dial(tasks)
                call.cancel()
                dial.cancel()
                await asyncio.wait([call, dial])
                await until(lambda: connection.load == 0)
                assert server.accepted == 1


# --- batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.both_loops
async def test_a_batch_that_is_cancelled_as_its_connection_breaks_logs_no_error() -> None:
    def script(peer: Peer) -> None:
        peer.requests(WINDOWS * WINDOW)
        peer.rst()

    async with nothing_left():
        with ScriptedServer(script) as server:
            calls: list[asyncio.Task[object]] = []
            connection = AsyncConnection(server.node, settings=PATIENT, on_failure=lambda _: calls[0].cancel())
            async with AsyncClient(connection, owns=True) as client:
                calls.append(asyncio.create_task(client.set_many(ITEMS)))
                await asyncio.wait(calls)
                assert calls.pop().cancelled()
                assert connection.load == 0
                gc.collect()  # an exception that was never retrieved would be reported now


@pytest.mark.both_loops
async def test_a_batch_whose_connection_is_closed_from_another_loop_logs_no_error() -> None:
    async with nothing_left():
        with ScriptedServer(silent) as server:
            connection = AsyncConnection(server.node, settings=PATIENT)
            call = asyncio.create_task(AsyncClient(connection).set_many(ITEMS))
            await until(lambda: f" {WINDOWS * WINDOW} in flight" in repr(connection))
            await asyncio.to_thread(asyncio.run, connection.aclose())
            async with asyncio.timeout(5.0):
                with pytest.raises(ClosedError):
                    await call
            del call
            gc.collect()  # as above


@pytest.mark.both_loops
async def test_a_cancelled_batch_sends_no_further_window(memcached: Memcached) -> None:
    async with nothing_left(), client_of(memcached.node, attrs.evolve(PATIENT, max_in_flight=1)) as client:
        assert await client.get("key") is None
        memcached.freeze()
        call = asyncio.create_task(client.set_many(ITEMS))
        for _ in range(5):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
        memcached.thaw()
        stored = await client.get_many(ITEMS)
        assert list(stored) == list(ITEMS)[:WINDOW], "the first window was sent, the others waited for room"


@pytest.mark.both_loops
async def test_windows_of_a_batch_that_were_not_sent_when_its_connection_broke_are_not_maybe_applied() -> None:
    def script(peer: Peer) -> None:
        peer.requests(WINDOWS * WINDOW)
        peer.rst()

    async with nothing_left():
        with ScriptedServer(script) as server:
            async with client_of(server.node) as client:
                outcomes = await client.set_many_outcomes(ITEMS)
                assert outcomes.errors.keys() == ITEMS.keys()
                perhaps = [key for key in ITEMS if outcomes.errors[key].maybe_applied]
                assert perhaps == list(ITEMS)[: WINDOWS * WINDOW]
                assert server.accepted == 1, "the rest of a batch of writes is not sent on another connection"


# --- a server that reads nothing -------------------------------------------------------------------------------------


@pytest.mark.both_loops
async def test_requests_that_the_server_does_not_read_stay_unsent_and_are_not_applied(memcached: Memcached) -> None:
    connection = AsyncConnection(memcached.node, settings=PATIENT)
    async with nothing_left(), AsyncClient(connection, owns=True) as client:
        assert await client.set("key", b"v")
        memcached.freeze()
        hasty = client.with_options(timeout=SHORT)
        calls = [asyncio.create_task(hasty.set(f"key:{number}", b"x" * 500_000)) for number in range(100)]
        patient = asyncio.create_task(client.set("patient", b"x" * 500_000))
        found = await settled(*calls)
        sent = [error for error in found if isinstance(error, OperationTimeout) and error.maybe_applied]
        unsent = [error for error in found if isinstance(error, MetacacheError) and not error.maybe_applied]
        assert len(sent) + len(unsent) == 100
        assert len(sent) < 30, "no more than the socket buffers hold, and one request"
        memcached.thaw()
        assert await patient, "it is sent when the server reads again"
        assert await client.get("key") == b"v"
        assert connection.load == 0
        assert connection.counts.dialled == 1


async def test_a_full_server_is_dialled_once_per_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(peer: Peer) -> None:
        peer.send(b"ERROR Too many open connections\r\n")
        peer.fin()

    loop = asyncio.get_running_loop()
    genuine = loop.sock_connect

    async def held(sock: Any, address: Any) -> None:  # Any: passed on
        await genuine(sock, address)
        time.sleep(0.02)  # the server's error line arrives before the first request is sent

    monkeypatch.setattr(loop, "sock_connect", held)
    failures: list[MetacacheError] = []
    with ScriptedServer(refusing, answering(HIT)) as server:
        settings = Settings(timeout=0.5, connect_timeout=0.5)
        connection = AsyncConnection(server.node, settings=settings, on_failure=failures.append)
        async with AsyncClient(connection, owns=True) as client:
            with pytest.raises(ConnectError, match=r"\(-c\)"):
                await client.get("key")
            assert server.accepted == 1
            assert [type(failure) for failure in failures] == [ConnectError]
            assert await client.get("key") == b"right"


@pytest.mark.both_loops
async def test_a_dial_that_is_cancelled_before_its_first_step_is_started_again() -> None:
    async with nothing_left():
        with ScriptedServer(answering(HIT)) as server:
            async with client_of(server.node, Settings(timeout=2.0, connect_timeout=2.0)) as client:
                call = asyncio.create_task(client.get("key"))
                tasks = asyncio.all_tasks()
                while not (dials := asyncio.all_tasks() - tasks):
                    await asyncio.sleep(0)
                dials.pop().cancel()
                assert await call == b"right"
