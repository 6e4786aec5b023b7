"""A transport that is dropped closes its sockets at once: no operation leaves a cycle of references to its streams."""

from __future__ import annotations

import contextlib
import gc
import socket
import time
from collections.abc import Callable, Generator
from types import BuiltinMethodType
from typing import Final

import pytest

from metacache import Client, Cluster, Connection, MetacacheError, Node, Pool, Settings, Transport
from metacache.testing import Memcached
from metacache.transports.blocking.stream import Stream
from tests.scripted import Peer, ScriptedServer, answering, silent
from tests.transports.rig import HIT, PATIENT

QUICK: Final = Settings(timeout=0.2, connect_timeout=0.2)

MADE: Final[dict[str, Callable[[Node, Settings], Transport]]] = {
    "Connection": lambda node, settings: Connection(node, settings=settings),
    "Pool": lambda node, settings: Pool(node, settings=settings),
    "Cluster": lambda node, settings: Cluster([node], settings=settings),
}
USED: Final[dict[str, Callable[[Client[bytes]], object]]] = {
    "get": lambda client: client.get("k"),
    "set": lambda client: client.set("k", b"v"),
    "get_many": lambda client: client.get_many(["k", "l"]),
    "set_many": lambda client: client.set_many({"k": b"v", "l": b"v"}),
}
every_transport: Final = pytest.mark.parametrize("made", MADE)
every_use: Final = pytest.mark.parametrize("used", USED)


def open_streams() -> list[Stream]:
    return [found for found in gc.get_objects() if isinstance(found, Stream) and found.is_open]


@pytest.fixture(autouse=True)
def _streams_are_freed_without_the_collector() -> Generator[None]:
    """Fail if the test leaves an open stream: a cycle of references keeps it, and its socket."""
    gc.collect()
    gc.disable()
    before = len(open_streams())
    try:
        yield
        assert len(open_streams()) == before
    finally:
        gc.enable()


def use(made: str, used: str, node: Node, settings: Settings = PATIENT) -> None:
    """Make a transport, use it, and drop it without closing it. An error of the package is dropped too."""
    client = Client(MADE[made](node, settings))
    with contextlib.suppress(MetacacheError):
        USED[used](client)


def cut(peer: Peer) -> None:
    peer.send(peer.request().reply(*HIT)[:-4])
    peer.fin()


def refusing(peer: Peer) -> None:
    peer.request().answer(b"SERVER_ERROR out of memory")
    peer.fin()


def garbage(peer: Peer) -> None:
    peer.request()
    peer.send(b"garbage\r\n")


@every_use
@every_transport
def test_after_an_operation(shared_memcached: Memcached, made: str, used: str) -> None:
    use(made, used, shared_memcached.node)


@every_use
@every_transport
def test_after_a_failed_dial(made: str, used: str) -> None:
    use(made, used, Node("127.0.0.1:1"))


@pytest.mark.parametrize("script", [silent, cut, refusing, garbage], ids=lambda script: str(script.__name__))
@every_use
@every_transport
def test_after_a_fault(made: str, used: str, script: Callable[[Peer], None]) -> None:
    with ScriptedServer(script) as server:
        use(made, used, server.node, QUICK if script is silent else PATIENT)


@every_transport
def test_after_a_retry(made: str) -> None:
    def ending(peer: Peer) -> None:
        peer.request().answer(*HIT)
        peer.fin()

    with ScriptedServer(ending, answering(HIT)) as server:
        client = Client(MADE[made](server.node, PATIENT))
        assert client.get("k") == client.get("k") == b"right"
        del client


def test_after_a_reply_that_arrives_at_the_deadline() -> None:
    def slow(peer: Peer) -> None:
        peer.request().answer(*HIT)
        late = peer.request()
        time.sleep(0.1)
        late.answer(*HIT)
        peer.expect_end()

    with ScriptedServer(slow) as server:
        others = open_streams()
        client = Client(Connection(server.node, settings=PATIENT))
        client.get("k")
        (stream,) = (stream for stream in open_streams() if stream not in others)
        stream.exchange_once = None  # it does not use the timeout of the socket
        assert isinstance(stream.recv, BuiltinMethodType)
        sock = stream.recv.__self__
        assert isinstance(sock, socket.socket)
        sock.settimeout(0.0)  # so `recv` ends at once, as at a deadline
        del stream, sock, others
        assert client.get("k") == b"right"
        del client
