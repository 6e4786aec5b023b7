"""The interface between a client and its transport: `Operation`, `Batch`, and the protocols of the transports.

A connection, a pool, a cluster and a user's own wrapper are all a `Transport`, and need not inherit from anything.
This module opens no socket and reads no clock.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final, Generic, NoReturn, Protocol, TypeVar, final

import attrs

from metacache.errors import ClosedError
from metacache.marks import override

if TYPE_CHECKING:
    from metacache.protocol.commands import Command
    from metacache.protocol.keys import Key
    from metacache.protocol.replies import Reply
    from metacache.protocol.windows import Replies

__all__ = ["ASYNC_CLOSED", "CLOSED", "AsyncTransport", "Batch", "Operation", "Transport", "Verb"]

R = TypeVar("R")


@final
@attrs.frozen(eq=False)
class Verb:
    """The attributes that all operations of one kind share.

    Attributes:
        name: the client's method, for errors and logs.
        command: the command of the protocol.
        is_read: sending it twice changes nothing, so a transport may send it again after a stale connection.
    """

    name: str
    command: Command
    is_read: bool = False


@final
class Operation(Generic[R]):
    """One request without its opaque, and the function that reads its reply.

    Attributes:
        verb: the kind of operation.
        given: the key as the caller gave it, for errors; None for a request without key.
        key: the routing key (raw ``prefix + key``).
        head: the request line without opaque and CRLF.
        body: the data block without its CRLF, None when there is none.
        read: turns the reply into the result; an exception that it raises leaves the connection usable.
    """

    # No __init__: calling one costs 1,400 instructions in CPython 3.11, a tenth of the budget of a set. Code that makes
    # an operation assigns all six attributes.
    __slots__ = ("body", "given", "head", "key", "read", "verb")

    verb: Verb
    given: Key | None
    key: bytes
    head: bytes
    body: bytes | None
    read: Callable[[Reply], R]

    @property
    def is_read(self) -> bool:
        """True if sending it twice changes nothing."""
        return self.verb.is_read

    @override
    def __repr__(self) -> str:
        return f"<Operation {self.verb.name}>"


@final
class Batch:
    """Many requests of one command, as parallel lists: no object per key.

    ``given``, ``keys``, ``heads`` and ``bodies`` are as in `Operation`; ``bodies`` is None for a command without data
    block.
    """

    __slots__ = ("bodies", "given", "heads", "keys", "verb")

    def __init__(
        self,
        verb: Verb,
        given: Sequence[Key],
        keys: Sequence[bytes],
        heads: Sequence[bytes],
        bodies: Sequence[bytes] | None = None,
    ) -> None:
        self.verb = verb
        self.given = given
        self.keys = keys
        self.heads = heads
        self.bodies = bodies

    def __len__(self) -> int:
        return len(self.heads)

    @property
    def is_read(self) -> bool:
        """True if sending it twice changes nothing."""
        return self.verb.is_read

    @override
    def __repr__(self) -> str:
        return f"<Batch {self.verb.name}: {len(self.heads)} keys>"


class Transport(Protocol):
    """Sends operations to servers and returns their results. A wrapper forwards all three methods."""

    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:
        """Send *op*, wait for its reply and return ``op.read(reply)``.

        *deadline*: a ``time.monotonic()`` time; None: ``Settings.timeout`` from now. Raises a MetacacheError.
        """
        ...

    def run_batch(self, batch: Batch, /, *, deadline: float) -> Replies:
        """Send *batch*, wait for its replies and return a reply or an error for each request.

        *deadline* as in `run`; ``math.inf``: ``Settings.timeout`` from now. Raises ClosedError and ValueTooLargeError
        before a byte is sent. Every other failure is in the replies.
        """
        ...

    def close(self) -> None:
        """Close: running requests finish, new ones are refused with ClosedError. Idempotent."""
        ...


class AsyncTransport(Protocol):
    """Sends operations to servers and returns their results, in an event loop. A wrapper forwards all three methods.

    Each method may return any awaitable, so ``async def`` methods fit.
    """

    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> Awaitable[R]:
        """Send *op*, wait for its reply and return ``op.read(reply)``.

        *deadline*: a ``time.monotonic()`` time; None: ``Settings.timeout`` from now. Raises a MetacacheError.
        """
        ...

    def run_batch(self, batch: Batch, /, *, deadline: float) -> Awaitable[Replies]:
        """Send *batch*, wait for its replies and return a reply or an error for each request.

        *deadline* as in `run`; ``math.inf``: ``Settings.timeout`` from now. Raises ClosedError and ValueTooLargeError
        before a byte is sent. Every other failure is in the replies.
        """
        ...

    def aclose(self) -> Awaitable[None]:
        """Close: running requests finish, new ones are refused with ClosedError. Idempotent."""
        ...


@final
class _Closed:
    """The transport of a client that was closed."""

    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:  # noqa: ARG002 - the shape of a transport
        _refuse(op.verb.name, op.given)

    def run_batch(self, batch: Batch, /, *, deadline: float) -> Replies:  # noqa: ARG002 - as above
        _refuse(batch.verb.name, None)

    def close(self) -> None:
        pass

    @override
    def __repr__(self) -> str:
        return "<closed>"


@final
class _AsyncClosed:
    """The transport of an asyncio client that was closed."""

    async def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:  # noqa: ARG002 - as above
        _refuse(op.verb.name, op.given)

    async def run_batch(self, batch: Batch, /, *, deadline: float) -> Replies:  # noqa: ARG002 - as above
        _refuse(batch.verb.name, None)

    async def aclose(self) -> None:
        pass

    @override
    def __repr__(self) -> str:
        return "<closed>"


CLOSED: Final = _Closed()
ASYNC_CLOSED: Final = _AsyncClosed()


def _refuse(operation: str, key: Key | None) -> NoReturn:
    raise ClosedError("the client was closed", operation=operation, key=key)
