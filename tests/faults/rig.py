"""Helpers for the tests of faults: every kind of client with one interface, and servers that answer wrongly."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Final, TypeVar, cast

import pytest

from metacache import (
    AsyncClient,
    AsyncCluster,
    AsyncConnection,
    AsyncPool,
    AsyncTransport,
    Client,
    Cluster,
    Connection,
    MetacacheError,
    Node,
    Pool,
    Serializer,
    Settings,
    Transport,
)
from metacache.serializers import BytesSerializer
from tests.client.rig import Shaped
from tests.scripted import Peer, Script, ScriptedServer, answering
from tests.transports.rig import HIT

__all__ = [
    "ASYNCIO",
    "BLOCKING",
    "KINDS",
    "PATIENT",
    "QUICK",
    "Interruption",
    "after",
    "answered",
    "blocking_transport",
    "every_kind",
    "fails_and_recovers",
    "is_blocking",
    "opened",
    "typed",
]

T = TypeVar("T")

PATIENT: Final = Settings(timeout=8.0, connect_timeout=8.0, pool_size=2)
QUICK: Final = Settings(timeout=0.3, connect_timeout=0.3, pool_size=2)

BLOCKING: Final[Mapping[str, Callable[[Node, Settings], Transport]]] = {
    "Connection": lambda node, settings: Connection(node, settings=settings),
    "Pool": lambda node, settings: Pool(node, settings=settings),
    "Cluster": lambda node, settings: Cluster([node], settings=settings),
}
ASYNCIO: Final[Mapping[str, Callable[[Node, Settings], AsyncTransport]]] = {
    "AsyncConnection": lambda node, settings: AsyncConnection(node, settings=settings),
    "AsyncPool": lambda node, settings: AsyncPool(node, settings=settings),
    "AsyncCluster": lambda node, settings: AsyncCluster([node], settings=settings),
}
KINDS: Final = (*BLOCKING, *ASYNCIO)

every_kind: Final = pytest.mark.parametrize("kind", KINDS)
"""The test runs for both clients, each with a single connection, a pool and a cluster."""


def is_blocking(kind: str) -> bool:
    """Return whether *kind* is that of a blocking client."""
    return kind in BLOCKING


def blocking_transport(kind: str, node: Node, settings: Settings = PATIENT) -> Transport:
    """Return a blocking transport."""
    return BLOCKING[kind](node, settings)


@asynccontextmanager
async def typed(
    kind: str, node: Node, serializer: Serializer[T], settings: Settings = PATIENT
) -> AsyncGenerator[AsyncClient[T]]:
    """Open a client; a blocking one is adapted to the interface of an AsyncClient."""
    if is_blocking(kind):
        with Client(BLOCKING[kind](node, settings), serializer, owns=True) as blocking:
            # It has the methods of an AsyncClient but another class: that is the purpose of the adapter.
            yield cast("AsyncClient[T]", Shaped(blocking))
        return
    async with AsyncClient(ASYNCIO[kind](node, settings), serializer, owns=True) as client:
        yield client


@asynccontextmanager
async def opened(kind: str, node: Node, settings: Settings = PATIENT) -> AsyncGenerator[AsyncClient[bytes]]:
    """Open a client of bytes, as `typed`."""
    async with typed(kind, node, BytesSerializer(), settings) as client:
        yield client


def answered(reply: bytes, end: Callable[[Peer], object]) -> Script:
    """Return a script that answers one request with *reply*, its opaque in place of ``@``, and then calls *end*."""

    def script(peer: Peer) -> None:
        asked = peer.request()
        with contextlib.suppress(OSError):  # the client may close before all has been sent
            peer.send(reply.replace(b"@", asked.opaque))
            end(peer)

    return script


async def fails_and_recovers(
    kind: str, reply: bytes, end: Callable[[Peer], object], error: type[MetacacheError]
) -> None:
    """Check that *reply* to a get is *error*, and that the next get uses a new connection and is right."""
    with ScriptedServer(answered(reply, end), answering(HIT)) as server:
        async with opened(kind, server.node) as client:
            with pytest.raises(error) as raised:
                await client.get("key")
            assert (raised.value.operation, raised.value.key) == ("get", "key")
            assert raised.value.node == server.node.name
            assert not raised.value.maybe_applied
            assert await client.get("key") == b"right"
        assert server.accepted == 2


class Interruption(BaseException):
    """What the signal handler of a test raises."""


@contextmanager
def after(seconds: float) -> Generator[None]:
    """Let a signal handler raise an Interruption after *seconds*."""

    def interrupt(_: int, __: FrameType | None) -> None:
        raise Interruption

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
