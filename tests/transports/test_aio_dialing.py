"""Dialling under asyncio: names with dead addresses, cancelled dials, and event loops that end meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Final

import attrs
import pytest

from metacache import AsyncClient, AsyncConnection, ConnectError, MetacacheError, Node
from metacache.transports import resolving
from metacache.transports.aio.dialer import dial
from tests.certificates import serving, trusting
from tests.scripted import Peer, ScriptedServer, answering, in_turn
from tests.transports.aio_rig import HIT, PATIENT, SHORT, client_of, nothing_left, until
from tests.transports.test_dialing import Resolver, closed_port

WITHIN: Final = attrs.evolve(PATIENT, connect_timeout=1.0)


@contextmanager
def deaf(host: str, port: int) -> Generator[socket.socket]:
    """Listen on *host* with a full backlog, so that further connections get no answer."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((host, port), backlog=0))
        for _ in range(4):  # more than the kernel accepts for a backlog of 0
            sock = stack.enter_context(socket.socket())
            sock.settimeout(0.0)
            with contextlib.suppress(BlockingIOError):
                sock.connect(listener.getsockname())
        yield listener


# --- names with several addresses ------------------------------------------------------------------------------------


@pytest.mark.both_loops
async def test_addresses_that_refuse_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    Resolver(monkeypatch, ["127.0.0.2", "127.0.0.3", "127.0.0.1"])  # only the last has a listener
    async with nothing_left():
        with ScriptedServer(answering(HIT)) as server:
            async with client_of(Node(f"cache.invalid:{server.port}"), WITHIN) as client:
                assert await client.get("key") == b"right"


@pytest.mark.both_loops
@pytest.mark.parametrize("dead", [["127.0.0.2"], ["127.0.0.2", "127.0.0.3"]])
async def test_addresses_that_do_not_answer_leave_time_for_the_next(
    monkeypatch: pytest.MonkeyPatch, dead: list[str]
) -> None:
    Resolver(monkeypatch, [*dead, "127.0.0.1"])
    async with nothing_left():
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(ScriptedServer(answering(HIT)))
            for host in dead:
                stack.enter_context(deaf(host, server.port))
            async with client_of(Node(f"cache.invalid:{server.port}"), WITHIN) as client:
                began = time.monotonic()
                assert await client.get("key") == b"right"
                share = 1.0 / (len(dead) + 1)
                assert time.monotonic() - began >= 0.9 * share * len(dead), (
                    "each dead address had its share of the time"
                )


@pytest.mark.both_loops
async def test_addresses_that_all_do_not_answer_fail_within_the_connect_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Resolver(monkeypatch, ["127.0.0.2", "127.0.0.3"])
    failures: list[MetacacheError] = []
    with deaf("127.0.0.2", 0) as first:
        port = first.getsockname()[1]
        with deaf("127.0.0.3", port):
            connection = AsyncConnection(
                Node(f"cache.invalid:{port}"),
                settings=attrs.evolve(PATIENT, connect_timeout=SHORT),
                on_failure=failures.append,
            )
            async with nothing_left(), AsyncClient(connection, owns=True) as client:
                began = time.monotonic()
                with pytest.raises(ConnectError, match="no answer within the time to connect") as raised:
                    await client.set("key", b"v")
                assert 0.9 * SHORT < time.monotonic() - began < 10 * SHORT
                assert not raised.value.maybe_applied
                assert [type(failure) for failure in failures] == [ConnectError]
                assert connection.load == 0


async def test_an_address_that_never_shakes_hands_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    Resolver(monkeypatch, ["127.0.0.2", "127.0.0.1"])
    settings = attrs.evolve(WITHIN, tls=trusting())
    async with nothing_left():
        with (
            ScriptedServer(answering(HIT), tls=serving("cache.invalid")) as server,
            socket.create_server(("127.0.0.2", server.port)),  # connected to by the kernel, and never accepted
        ):
            async with client_of(Node(f"cache.invalid:{server.port}"), settings) as client:
                assert await client.get("key") == b"right"


@pytest.mark.both_loops
async def test_resolved_addresses_are_kept_until_none_of_them_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    once = in_turn(lambda peer: peer.request().answer(*HIT), Peer.fin)
    with ScriptedServer(once, once, answering(HIT)) as server:
        resolver = Resolver(monkeypatch, ["127.0.0.2"])  # refuses
        async with client_of(Node(f"cache.invalid:{server.port}"), WITHIN) as client:
            with pytest.raises(ConnectError, match="refused; is memcached listening"):
                await client.get("key")
            resolver.addresses = ["127.0.0.1"]
            assert [await client.get("key") for _ in range(3)] == [b"right"] * 3
        assert resolver.asked == 2


async def test_a_name_that_is_not_known_is_a_connect_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    Resolver(monkeypatch, [])
    async with nothing_left(), client_of(Node("cache.invalid:11211"), WITHIN) as client:
        with pytest.raises(ConnectError, match=r"'cache\.invalid' could not be resolved"):
            await client.get("key")


# --- cancelled dials -------------------------------------------------------------------------------------------------


@pytest.mark.both_loops
async def test_closing_a_connection_cancels_its_running_dial() -> None:
    with deaf("127.0.0.1", 0) as listener:
        connection = AsyncConnection(Node(f"127.0.0.1:{listener.getsockname()[1]}"), settings=PATIENT)
        async with nothing_left():
            call = asyncio.create_task(AsyncClient(connection).get("key"))
            await until(lambda: connection.waiting == 1)
            call.cancel()
            await asyncio.wait([call])
            async with asyncio.timeout(5.0):  # and not the ten seconds of the dial
                await connection.aclose()
            assert connection.load == 0


@pytest.fixture
def no_thread_fails(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Collect the exceptions that end threads, and check that there are none."""
    found: list[object] = []
    monkeypatch.setattr(threading, "excepthook", found.append)
    yield found
    assert found == []


@pytest.mark.usefixtures("no_thread_fails")
def test_a_lookup_that_ends_after_the_loop_was_closed_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine, asked, release = socket.getaddrinfo, threading.Event(), threading.Event()

    def hang(_: str, port: int, *, type: int) -> object:  # noqa: A002 - as the real one calls it
        asked.set()
        assert release.wait(10.0)
        return genuine("127.0.0.1", port, type=type)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    connection = AsyncConnection(Node(f"cache.invalid:{closed_port()}"), settings=PATIENT)

    async def main() -> None:
        call = asyncio.create_task(AsyncClient(connection).get("key"))
        await until(asked.is_set)
        call.cancel()

    asyncio.run(main())
    resolving = [thread for thread in threading.enumerate() if thread.name == "metacache-resolve"]
    assert resolving
    release.set()
    for thread in resolving:
        thread.join(10.0)
        assert not thread.is_alive()
    asyncio.run(connection.aclose())


class Interrupt(BaseException):
    """As KeyboardInterrupt, from the handler of a signal."""


class SystemSignal(OSError):
    """As an error of a system call, from the handler of a signal."""


@pytest.mark.parametrize("kind", [Interrupt, SystemSignal])
async def test_a_signal_while_uvloop_closes_the_socket_of_a_failed_dial_is_not_swallowed(
    monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    """uvloop closes the descriptor and then detaches the socket. A signal may come in between."""
    sockets: list[socket.socket] = []

    async def create_connection(
        make: Callable[[], asyncio.Protocol], *, sock: socket.socket, **_: object
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        make()
        sockets.append(sock)
        os.close(sock.fileno())
        raise kind("a signal")

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", create_connection)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        node = Node(f"127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(kind, match="a signal"):
            await dial(node, PATIENT, resolving.Resolver(node), time.monotonic() + 5.0, asyncio.Protocol)
    assert sockets[0].fileno() == -1, "a finalizer would close the descriptor, which may be another socket's by then"
