"""The seam: what a client hands to a transport, and what a transport is.

A `Transport` runs operations and batches; one connection, a pool, a cluster and a user's own wrapper all have this
shape and need not inherit from anything. Nothing here touches a socket or a clock.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final, Generic, NoReturn, Protocol, TypeVar, final

import attrs
from typing_extensions import override

from metacache.errors import ClosedError

if TYPE_CHECKING:
    from metacache.protocol.commands import Command
    from metacache.protocol.keys import Key
    from metacache.protocol.replies import Reply
    from metacache.protocol.windows import Replies

__all__ = ["ASYNC_CLOSED", "CLOSED", "AsyncTransport", "Batch", "Exchange", "Operation", "Transport", "Verb"]

R = TypeVar("R")


@final
@attrs.frozen(eq=False)
class Verb:
    """What all operations of one kind share: the public name, the command, and whether it may be sent again.

    ``is_read``: sending it twice changes nothing, so a stale connection is answered by one retry.
    """

    name: str
    command: Command
    is_read: bool = False


@final
class Operation(Generic[R]):
    """One request, ready but for its opaque, and how to read the reply. Never sent twice by anyone but a transport.

    Attributes:
        verb: its kind.
        given: the key as the caller gave it, for errors; None for a request without key.
        key: the routing key (raw ``prefix + key``).
        head: the request line without opaque and CRLF.
        body: the data block without its CRLF, None when there is none.
        read: turns the reply into the result; whatever it raises leaves the connection usable.
    """

    # No __init__: a call of one costs 1,400 instructions in CPython 3.11, a tenth of the budget of a set; operations.py
    # assigns all six.
    __slots__ = ("body", "given", "head", "key", "read", "verb")

    verb: Verb
    given: Key | None
    key: bytes
    head: bytes
    body: bytes | None
    read: Callable[[Reply], R]

    @property
    def is_read(self) -> bool:
        """True when sending it twice changes nothing."""
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
        """True when sending it twice changes nothing."""
        return self.verb.is_read

    @override
    def __repr__(self) -> str:
        return f"<Batch {self.verb.name}: {len(self.heads)} keys>"


class Exchange(Protocol):
    """A batch under way.

    Whoever began it drives it: wait for the descriptor, advance, until done; then take the outcomes.
    """

    def fileno(self) -> int:
        """Return the descriptor to wait for (-1 when there is nothing to wait for)."""
        ...

    @property
    def wants_write(self) -> bool:
        """True while it waits until the descriptor is writable, not only until it is readable."""
        ...

    def advance(self, now: float, /) -> bool:
        """Move what bytes can be moved without waiting; return True when nothing is left to do.

        *now* is ``time.monotonic()``; past the deadline the rest fails.
        """
        ...

    def outcomes(self) -> Replies:
        """End the exchange and return a reply or an error for each request; never raises for a part.

        Called before it is done, it gives up the rest: the connection is closed and what had no reply has an error.
        """
        ...


class Transport(Protocol):
    """Moves operations to servers and replies back. A wrapper forwards all three methods."""

    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:
        """Send *op*, wait for its reply and return what ``op.read`` makes of it.

        *deadline*: a ``time.monotonic()`` time; None: ``Settings.timeout`` from now. Raises a MetacacheError.
        """
        ...

    def begin(self, batch: Batch, /, *, deadline: float) -> Exchange:
        """Start *batch*. *deadline* as in `run`; ``math.inf``: ``Settings.timeout`` from now.

        Raises only for what is wrong before a byte is sent (ClosedError, ValueTooLargeError); the rest is in the
        outcomes.
        """
        ...

    def close(self) -> None:
        """Close; what runs is let finish, what comes is refused with ClosedError. Closing twice is nothing."""
        ...


class AsyncTransport(Protocol):
    """Moves operations to servers and replies back, under an event loop. A wrapper forwards all three methods.

    What they return may be a coroutine or any other awaitable, so ``async def`` satisfies it.
    """

    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> Awaitable[R]:
        """Send *op*, wait for its reply and return what ``op.read`` makes of it.

        *deadline*: a ``time.monotonic()`` time; None: ``Settings.timeout`` from now. Raises a MetacacheError.
        """
        ...

    def run_batch(self, batch: Batch, /, *, deadline: float) -> Awaitable[Replies]:
        """Send *batch*, wait for its replies and return a reply or an error for each request.

        *deadline* as in `run`; ``math.inf``: ``Settings.timeout`` from now. Raises only for what is wrong before a byte
        is sent (ClosedError, ValueTooLargeError); the rest is in the outcomes.
        """
        ...

    def aclose(self) -> Awaitable[None]:
        """Close; what runs is let finish, what comes is refused with ClosedError. Closing twice is nothing."""
        ...


@final
class _Closed:
    """The transport of a client that was closed."""

    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:  # noqa: ARG002 - the shape of a transport
        _refuse(op.verb.name, op.given)

    def begin(self, batch: Batch, /, *, deadline: float) -> Exchange:  # noqa: ARG002 - the shape of a transport
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
