"""Helpers for the client tests: one interface for both clients, a record of the requests, hand-written requests.

A test is written once, for `AsyncClient`. A blocking client is adapted to that interface.
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
    """Adapts a blocking client to the interface of an AsyncClient: its methods are coroutines."""

    # Any, here: all methods of the client; `Clients.make` declares that the whole is an AsyncClient.
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
    """Return an adapted view."""
    return Shaped(with_options(**changes))


def awaitable(verb: Callable[..., R]) -> Callable[..., Any]:  # Any: Callable[..., Awaitable[R]]
    """Return *verb* as a coroutine function. A client that it returns is adapted too."""

    @wraps(verb)
    async def call(*args: object, **named: object) -> R | Shaped:
        found = verb(*args, **named)
        return Shaped(cast("Client[Any]", found)) if isinstance(found, Client) else found  # Any: as in Shaped

    return call


@final
class Counted:
    """A transport wrapper like a user's: forwards and records what it forwards."""

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
    """The asyncio form of `Counted`."""

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
    """Makes clients of one kind (*kind* is one of `KINDS`) on one node and one recording transport."""

    def __init__(self, kind: str, node: Node, settings: Settings = PATIENT) -> None:
        self.node = node
        self.transport: Wrapped = (
            Counted(BLOCKING[kind](node, settings=settings))
            if kind in BLOCKING
            else AsyncCounted(ASYNC[kind](node, settings=settings))
        )

    @property
    def sent(self) -> list[str]:
        """The names of the operations and batches that were sent; a batch has its size."""
        return self.transport.sent

    def make(
        self, serializer: Serializer[T], *, owns: bool = False, **options: Unpack[ClientOptions]
    ) -> AsyncClient[T]:
        """Return a client with *serializer*."""
        if isinstance(self.transport, AsyncCounted):
            return AsyncClient(self.transport, serializer, owns=owns, **options)
        # It has the methods of an AsyncClient but another class: that is the purpose of the adapter.
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
    """Send a request that no client method sends, on a new connection; return the reply."""
    verb = Verb(request.command.name, request.command)
    with Connection(node, settings=PATIENT) as connection:
        return connection.run(operation(verb, None, b"", request.head, request.body, lambda reply: reply))


def store(node: Node, key: str, value: bytes, **flags: Token) -> None:
    """Store *value* like another program, with exactly these flags of `ms`."""
    tokens, _ = ask(node, raw_requests.meta_set(key.encode(), value, flags))
    assert tokens[0] == b"HD"


def lease(node: Node, key: str, ttl: int = 30) -> None:
    """Take a lease of *key*, like `mg k N30`: the server holds a placeholder until a client stores."""
    tokens, _ = ask(node, raw_requests.meta_get(key.encode(), {"vivify": ttl}))
    assert b"W" in tokens
