"""A transport whose operations all fail, like a user's wrapper may fail, and clients of both kinds on it."""

from __future__ import annotations

from typing import Final, TypeVar, cast, final

from typing_extensions import Unpack

from metacache import AsyncClient, Batch, Client, ClientOptions, MetacacheError, Operation, Serializer
from metacache.protocol.windows import Replies
from metacache.transports.batch_windows import failed_replies
from tests.client.rig import Shaped

R = TypeVar("R")
T = TypeVar("T")

SHAPES: Final = ("Client", "AsyncClient")


@final
class Failing:
    """Raises a new error of *kind* for each operation and each batch."""

    def __init__(self, kind: type[MetacacheError]) -> None:
        self._kind = kind

    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:  # noqa: ARG002 - the signature of a transport
        raise self._kind("as planned").locate(operation=op.verb.name, key=op.given)

    def run_batch(self, batch: Batch, /, *, deadline: float) -> Replies:  # noqa: ARG002 - as above
        return failed_replies(batch, self._kind("as planned"))

    def close(self) -> None:
        pass


@final
class AsyncFailing:
    """The asyncio form of `Failing`."""

    def __init__(self, kind: type[MetacacheError]) -> None:
        self._inner = Failing(kind)

    async def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:
        return self._inner.run(op, deadline=deadline)

    async def run_batch(self, batch: Batch, /, *, deadline: float) -> Replies:
        return self._inner.run_batch(batch, deadline=deadline)

    async def aclose(self) -> None:
        pass


def failing(
    shape: str, kind: type[MetacacheError], serializer: Serializer[T], **options: Unpack[ClientOptions]
) -> AsyncClient[T]:
    """Return a client of *shape*, one of `SHAPES`, whose operations all fail with an error of *kind*."""
    if shape == "AsyncClient":
        return AsyncClient(AsyncFailing(kind), serializer, **options)
    # It has the methods of an AsyncClient but another class, as in `Clients.make`.
    return cast("AsyncClient[T]", Shaped(Client(Failing(kind), serializer, **options)))
