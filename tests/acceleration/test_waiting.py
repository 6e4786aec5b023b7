"""The socket of a compiled exchange is blocking between two quick replies. That changes nothing that a caller sees."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Final

import pytest

from metacache import BatchError, Client, Connection, MetacacheError, OperationTimeout, Settings
from metacache.testing import Memcached
from metacache.transports.blocking.stream import Stream
from tests.scripted import Peer, ScriptedServer

pytestmark = pytest.mark.usefixtures("primitives")

TIMEOUT: Final = 0.4
LATE: Final = 0.3  # seconds; a loaded machine may take them
LARGE: Final = bytes(30_000_000)  # more than the buffers of both sockets hold

OPERATIONS: Final[dict[str, Callable[[Client[bytes]], object]]] = {
    "get": lambda client: client.get("key"),
    "set": lambda client: client.set("key", b"value"),
    "large set": lambda client: client.set("key", LARGE),
    "get_many": lambda client: client.get_many(["key", "other"]),
    "set_many": lambda client: client.set_many({"key": LARGE, "other": b"value"}),
    "delete": lambda client: client.delete("key"),
    "inspect": lambda client: client.inspect("key"),
}


def stream_of(connection: Connection) -> Stream:
    (stream,) = connection.lending._checkout.all()
    return stream


def is_blocking(connection: Connection) -> bool:
    return os.get_blocking(stream_of(connection).fileno())


def make_blocking(client: Client[bytes], connection: Connection) -> None:
    """Get until the socket is blocking: a reply that has arrived before the client looks leaves it as it was."""
    for _ in range(1000):
        assert client.get("key") == b"value"
        if is_blocking(connection):
            return
    pytest.fail("the socket stays non-blocking")


@pytest.fixture
def server() -> Generator[Memcached]:
    with Memcached(("-I", "64m", "-m", "256")) as server:
        yield server


@pytest.fixture
def connection(server: Memcached) -> Generator[Connection]:
    with Connection(server.node, settings=Settings(timeout=TIMEOUT)) as connection:
        yield connection


@pytest.fixture
def client(connection: Connection) -> Client[bytes]:
    """A client whose socket is blocking: it has just had a quick reply."""
    client = Client(connection)
    client.set("key", b"value")
    make_blocking(client, connection)
    return client


@contextmanager
def interrupted_by_signals() -> Generator[None]:
    """Interrupt system calls of this thread every 10 ms."""
    before = signal.signal(signal.SIGALRM, lambda _, __: None)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def check_deadline(client: Client[bytes], operation: str) -> None:
    began = monotonic()
    with pytest.raises((OperationTimeout, BatchError)) as caught:
        OPERATIONS[operation](client)
    spent = monotonic() - began
    assert TIMEOUT <= spent < TIMEOUT + LATE
    if isinstance(caught.value, BatchError):
        assert all(isinstance(error, OperationTimeout) for error in caught.value.errors.values())


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_frozen_server_keeps_no_operation_beyond_its_deadline(
    client: Client[bytes], server: Memcached, operation: str
) -> None:
    server.freeze()
    check_deadline(client, operation)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_signals_extend_no_deadline(client: Client[bytes], server: Memcached, operation: str) -> None:
    server.freeze()
    with interrupted_by_signals():
        check_deadline(client, operation)


@pytest.mark.parametrize("operation", [each for each in OPERATIONS if each not in ("inspect", "delete")])
def test_each_operation_leaves_a_socket_that_the_next_one_can_use(
    client: Client[bytes], connection: Connection, operation: str
) -> None:
    for following in OPERATIONS.values():
        OPERATIONS[operation](client)
        following(client)
        client.set("key", b"value")
        make_blocking(client, connection)
    assert stream_of(connection).counts.dialled == 1


@pytest.mark.parametrize("delay", [0.02, 0.07, 0.15, 0.3])
@pytest.mark.parametrize("after", [0, 2], ids=["first", "blocking"])
def test_a_slow_reply_is_returned(after: int, delay: float) -> None:
    def script(peer: Peer) -> None:
        for _ in range(after):
            peer.request().answer(b"VA 5 f0", b"quick")
        asked = peer.request()
        sleep(delay)
        asked.answer(b"VA 4 f0", b"slow")
        peer.request().answer(b"VA 5 f0", b"quick")
        peer.expect_end()

    with ScriptedServer(script) as server:
        client = Client(Connection(server.node, settings=Settings(timeout=10.0)), owns=True)
        for _ in range(after):
            assert client.get("key") == b"quick"
        began = monotonic()
        assert client.get("key") == b"slow"
        assert monotonic() - began >= delay
        assert client.get("key") == b"quick"
        client.close()


@pytest.mark.parametrize("timeout", [0.001, 0.03, 0.06, 0.11])
def test_a_short_timeout_ends_in_time_on_a_blocking_socket(
    client: Client[bytes], server: Memcached, timeout: float
) -> None:
    server.freeze()
    began = monotonic()
    with pytest.raises(OperationTimeout):
        client.with_options(timeout=timeout).get("key")
    assert timeout <= monotonic() - began < timeout + LATE


@pytest.mark.parametrize("end", ["fin", "rst"])
def test_the_end_of_the_connection_wakes_a_blocking_wait(end: str) -> None:
    def script(peer: Peer) -> None:
        peer.request().answer(b"HD")
        peer.request().answer(b"HD")
        peer.request()
        sleep(0.02)
        peer.fin() if end == "fin" else peer.rst()

    with ScriptedServer(script) as server:
        client = Client(Connection(server.node, settings=Settings(timeout=10.0)), owns=True)
        for _ in range(2):
            client.set("key", b"value")
        began = monotonic()
        with pytest.raises(MetacacheError):
            client.set("key", b"value")
        assert monotonic() - began < 5.0
        client.close()


@pytest.mark.parametrize("operation", [each for each in OPERATIONS if "many" in each])
def test_a_socket_that_became_blocking_behind_a_timeout_of_zero_is_unblocked(
    client: Client[bytes], connection: Connection, server: Memcached, operation: str
) -> None:
    """The deadline passes between the two clocks of `make_ready`, and the reply arrives nevertheless."""
    stream = stream_of(connection)
    stream._set_timeout(0.0)
    stream.ready_for = TIMEOUT
    make_blocking(client, connection)
    assert stream._timeout == 0.0
    server.freeze()
    check_deadline(client, operation)
