"""Clients whose transport calls a hook before and after each operation, so that a test can act between two requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias, TypeVar, cast, final

from typing_extensions import Unpack

from metacache import (
    AsyncClient,
    AsyncConnection,
    AsyncTransport,
    Batch,
    Client,
    ClientOptions,
    Connection,
    Operation,
    Serializer,
    Transport,
)
from metacache.protocol.windows import Replies
from metacache.testing import AsyncFakeTransport, FakeServer, FakeTransport, Memcached
from tests.client.rig import PATIENT, Shaped

__all__ = ["FAKES", "REAL", "Hook", "Watched", "on_a_fake", "on_a_memcached"]

R = TypeVar("R")
T = TypeVar("T")

Hook: TypeAlias = Callable[[int, bool], None]
"""Receives the number of the operation, from 0, and whether it is done. Its exception ends the call."""

FAKES: Final[Mapping[str, Callable[[FakeServer], Transport | AsyncTransport]]] = {
    "FakeTransport": FakeTransport,
    "AsyncFakeTransport": AsyncFakeTransport,
}
REAL: Final[Mapping[str, Callable[..., Transport | AsyncTransport]]] = {
    "Connection": Connection,
    "AsyncConnection": AsyncConnection,
}


def _nothing(number: int, is_done: bool) -> None:
    pass


@final
class _Blocking:
    def __init__(self, inner: Transport, owner: Watched) -> None:
        self._inner = inner
        self._owner = owner

    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:
        number = self._owner.next(op)
        self._owner.hook(number, False)  # noqa: FBT003
        result = self._inner.run(op, deadline=deadline)
        self._owner.hook(number, True)  # noqa: FBT003
        return result

    def run_batch(self, batch: Batch, /, *, deadline: float) -> Replies:
        return self._inner.run_batch(batch, deadline=deadline)

    def close(self) -> None:
        self._inner.close()


@final
class _Async:
    def __init__(self, inner: AsyncTransport, owner: Watched) -> None:
        self._inner = inner
        self._owner = owner

    async def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:
        number = self._owner.next(op)
        self._owner.hook(number, False)  # noqa: FBT003
        await asyncio.sleep(0)  # a task that the hook cancelled ends here
        result = await self._inner.run(op, deadline=deadline)
        self._owner.hook(number, True)  # noqa: FBT003
        await asyncio.sleep(0)
        return result

    async def run_batch(self, batch: Batch, /, *, deadline: float) -> Replies:
        return await self._inner.run_batch(batch, deadline=deadline)

    async def aclose(self) -> None:
        await self._inner.aclose()


@final
class Watched:
    """Makes clients on one transport. ``hook`` may be changed at any time.

    ``sent`` has the names of the operations, ``heads`` the request lines, ``reads`` whether each operation is a read.
    """

    def __init__(self, transport: Transport | AsyncTransport) -> None:
        self._transport = transport
        self.sent: list[str] = []
        self.heads: list[bytes] = []
        self.reads: list[bool] = []
        self.hook: Hook = _nothing

    @property
    def is_async(self) -> bool:
        return hasattr(self._transport, "aclose")

    def next(self, op: Operation[R]) -> int:
        self.sent.append(op.verb.name)
        self.heads.append(op.head)
        self.reads.append(op.is_read)
        return len(self.sent) - 1

    def make(self, serializer: Serializer[T], **options: Unpack[ClientOptions]) -> AsyncClient[T]:
        """Return a client; a blocking one is adapted to the interface of an AsyncClient, as in `Clients.make`."""
        if self.is_async:
            inner = cast("AsyncTransport", self._transport)  # it has aclose
            return AsyncClient(_Async(inner, self), serializer, **options)
        blocking = _Blocking(cast("Transport", self._transport), self)  # it has no aclose
        return cast("AsyncClient[T]", Shaped(Client(blocking, serializer, **options)))

    async def aclose(self) -> None:
        if self.is_async:
            await cast("AsyncTransport", self._transport).aclose()  # as above
        else:
            cast("Transport", self._transport).close()


def on_a_fake(kind: str, server: FakeServer) -> Watched:
    """Return clients of *kind*, one of `FAKES`, on *server*."""
    return Watched(FAKES[kind](server))


def on_a_memcached(kind: str, server: Memcached) -> Watched:
    """Return clients of *kind*, one of `REAL`, on *server*."""
    return Watched(REAL[kind](server.node, settings=PATIENT))
