"""What the tests of this room share: one shape for both clients, a count of what is sent, requests by hand.

A body is written once, for `AsyncClient`; a blocking client is put into that shape. Knows transports and clients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, wraps
from typing import Any, Final, TypeAlias, TypeVar, cast, final

from typing_extensions import Unpack

from metacache import (
    AsyncClient,
    AsyncConnection,
    AsyncPool,
    AsyncTransport,
    Batch,
    Client,
    ClientOptions,
    Connection,
    Node,
    Operation,
    Pool,
    Serializer,
    Settings,
    Transport,
)
from metacache.operations.requests import operation
from metacache.protocol.commands import Request
from metacache.protocol.flags import Token
from metacache.protocol.replies import Reply
from metacache.protocol.windows import Replies
from metacache.serializers import BytesSerializer
from metacache.transports.base import Verb
from tests import raw_requests

__all__ = [
    "ASYNC",
    "BLOCKING",
    "KINDS",
    "PATIENT",
    "AsyncCounted",
    "Clients",
    "Counted",
    "Shaped",
    "ask",
    "lease",
    "store",
]

R = TypeVar("R")
T = TypeVar("T")

PATIENT: Final = Settings(timeout=10.0, connect_timeout=10.0, pool_size=2)

BLOCKING: Final[Mapping[str, Callable[..., Transport]]] = {"Connection": Connection, "Pool": Pool}
ASYNC: Final[Mapping[str, Callable[..., AsyncTransport]]] = {"AsyncConnection": AsyncConnection, "AsyncPool": AsyncPool}
KINDS: Final = (*BLOCKING, *ASYNC)


@final
class Shaped:
    """A blocking client in the shape of the asyncio one: what a verb returns comes when it is awaited."""

    # Any, here: every verb of the client; `Clients.make` says that together they are an AsyncClient.
    def __init__(self, client: Client[Any]) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, "close" if name == "aclose" else name)
        if name == "with_options":
            return partial(shaped_view, found)
        return awaitable(found) if callable(found) else found

    async def __aenter__(self) -> Shaped:
        return self

    async def __aexit__(self, *raised: object) -> None:
        self._client.close()


def shaped_view(with_options: Callable[..., Client[T]], **changes: object) -> Shaped:
    """Return a view of a client in the same shape."""
    return Shaped(with_options(**changes))


def awaitable(verb: Callable[..., R]) -> Callable[..., Any]:  # Any: would be Awaitable[R]
    """Return *verb* as a coroutine function."""

    @wraps(verb)
    async def call(*args: object, **named: object) -> R:
        return verb(*args, **named)

    return call


@final
class Counted:
    """A user's wrapper of a transport: forwards, and writes down what it forwarded."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.sent: list[str] = []

    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:
        self.sent.append(op.verb.name)
        return self._inner.run(op, deadline=deadline)

    def run_batch(self, batch: Batch, /, *, deadline: float) -> Replies:
        self.sent.append(f"{batch.verb.name} x{len(batch)}")
        return self._inner.run_batch(batch, deadline=deadline)

    def close(self) -> None:
        self.sent.append("close")
        self._inner.close()


@final
class AsyncCounted:
    """The same under an event loop."""

    def __init__(self, inner: AsyncTransport) -> None:
        self._inner = inner
        self.sent: list[str] = []

    async def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:
        self.sent.append(op.verb.name)
        return await self._inner.run(op, deadline=deadline)

    async def run_batch(self, batch: Batch, /, *, deadline: float) -> Replies:
        self.sent.append(f"{batch.verb.name} x{len(batch)}")
        return await self._inner.run_batch(batch, deadline=deadline)

    async def aclose(self) -> None:
        self.sent.append("close")
        await self._inner.aclose()


Wrapped: TypeAlias = Counted | AsyncCounted


@final
class Clients:
    """Makes clients of one kind on one node, all on one counted transport: *kind* is one of `KINDS`."""

    def __init__(self, kind: str, node: Node, settings: Settings = PATIENT) -> None:
        self.node = node
        self.transport: Wrapped = (
            Counted(BLOCKING[kind](node, settings=settings))
            if kind in BLOCKING
            else AsyncCounted(ASYNC[kind](node, settings=settings))
        )

    @property
    def sent(self) -> list[str]:
        """What was sent: the name of each verb, of a batch with its size."""
        return self.transport.sent

    def make(
        self, serializer: Serializer[T], *, owns: bool = False, **options: Unpack[ClientOptions]
    ) -> AsyncClient[T]:
        """Return a client for the values of *serializer*."""
        if isinstance(self.transport, AsyncCounted):
            return AsyncClient(self.transport, serializer, owns=owns, **options)
        # It has the verbs and none of the class: the point of the shape.
        return cast("AsyncClient[T]", Shaped(Client(self.transport, serializer, owns=owns, **options)))

    def blobs(self, **options: Unpack[ClientOptions]) -> AsyncClient[bytes]:
        """Return a client of bytes."""
        return self.make(BytesSerializer(), **options)

    async def aclose(self) -> None:
        """Close the transport."""
        if isinstance(self.transport, AsyncCounted):
            await self.transport.aclose()
        else:
            self.transport.close()


def ask(node: Node, request: Request) -> Reply:
    """Send a request that no verb sends, on a connection of its own; return the reply."""
    verb = Verb(request.command.name, request.command)
    with Connection(node, settings=PATIENT) as connection:
        return connection.run(operation(verb, None, b"", request.head, request.body, lambda reply: reply))


def store(node: Node, key: str, value: bytes, **flags: Token) -> None:
    """Store *value* as another program does: with these flags of `ms` and no others."""
    tokens, _ = ask(node, raw_requests.meta_set(key.encode(), value, flags))
    assert tokens[0] == b"HD"


def lease(node: Node, key: str, ttl: int = 30) -> None:
    """Take the lease of *key*, as `mg k N30` does: a placeholder stands there until somebody stores."""
    tokens, _ = ask(node, raw_requests.meta_get(key.encode(), {"vivify": ttl}))
    assert b"W" in tokens
