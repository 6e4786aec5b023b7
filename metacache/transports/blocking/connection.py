"""`Connection`: one connection as a transport, and the loop that drives a batch.

Lends one stream to one thread at a time and drops it in a forked child. Moves no bytes: `Stream` does.
"""

from __future__ import annotations

import math
import select
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Final, Self, TypeVar, final

from typing_extensions import override

from metacache.copying import refuse_copy
from metacache.errors import (
    ClosedError,
    InvalidArgumentError,
    MetacacheError,
    OperationTimeout,
    PoolTimeout,
    ValueTooLargeError,
)
from metacache.interrupts import clear_frames, ignoring, is_injected, is_own
from metacache.nodes import Node, check_node
from metacache.protocol.connection import LARGE, pieces
from metacache.protocol.replies import HD_REPLY, NO_OPAQUE, whole_reply
from metacache.protocol.windows import Replies
from metacache.settings import Settings, check_settings
from metacache.transports.blocking.checkout import Checkout
from metacache.transports.blocking.dialer import Dialer
from metacache.transports.blocking.exchange import FailedExchange, StreamExchange
from metacache.transports.blocking.stream import Attempt, Stream
from metacache.transports.counters import CloseReason, IdleTimes, SocketCounts
from metacache.transports.forking import forget_in_children
from metacache.transports.limits import check_bodies, too_large

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from metacache.transports.base import Batch, Exchange, Operation, Transport

__all__ = ["Connection", "run_batch"]

R = TypeVar("R")
TRUST: Final = 0.01
DEFAULTS: Final = Settings()


def _nobody(_: Replies) -> None:
    """Stand in for whoever wants the outcomes."""


@final
class Connection:
    """One connection to one node, dialled when first used and again after it broke.

    Threads may share it: one at a time, the others wait within their deadline, in order. For speed under threads use a
    pool.

    Args:
        node: the server.
        settings: timeouts, TLS, credentials, limits.

    ``tally`` counts its sockets, as they are opened and closed.
    """

    __reduce_ex__ = refuse_copy
    __slots__ = (
        "__weakref__",
        "_dialer",
        "_idle",
        "_lender",
        "_max_body",
        "_max_reply",
        "_settings",
        "_timeout",
        "_waiters",
        "node",
        "tally",
    )

    def __init__(self, node: Node, *, settings: Settings = DEFAULTS) -> None:
        check_node(node)
        check_settings(settings)
        self.node = node
        self.tally = SocketCounts()
        self._settings = settings
        self._max_body = settings.max_value_size
        self._max_reply = settings.max_reply_size
        self._timeout = settings.timeout
        self._dialer = Dialer(node, settings)
        self._lender: Checkout[Stream] = Checkout(partial(Stream, node, settings, self._dialer, self.tally), 1)
        self._refer()
        forget_in_children(self)

    def _refer(self) -> None:
        self._idle = self._lender.shelf
        self._waiters = self._lender.waiters

    @override
    def __repr__(self) -> str:
        return f"<Connection {self.node.name}: {self._state()}>"

    def _state(self) -> str:
        if self._lender.is_closed:
            return "closed"
        if not self.is_connected:
            return "not connected"
        return "idle" if self._idle else f"in use, {self._lender.waiting} waiting"

    @property
    def is_connected(self) -> bool:
        """True while there is a socket, whether in use or not."""
        return bool([stream for stream in self._lender.all() if stream.is_open])  # no generator: as in `age`

    @property
    def dialled(self) -> float:
        """When the last dial began (``time.monotonic()``), 0.0 when there was none."""
        return max([stream.age.opened for stream in self._lender.all()], default=0.0)

    @property
    def age(self) -> IdleTimes | None:
        """When it was dialled and last used; None when it is not connected, or in use."""
        # No generator: an exception that strikes as it is closed is swallowed, and kept with what it refers to.
        for stream in tuple(self._idle):
            if stream.is_open:
                return stream.age
        return None

    # --- the transport -----------------------------------------------------------------------------------------------

    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:
        """Send *op*, wait for its reply and return what ``op.read`` makes of it.

        *deadline*: a ``time.monotonic()`` time; None: ``Settings.timeout`` from now.

        Raises ClosedError, PoolTimeout (another thread kept the connection), ValueTooLargeError and ConnectError before
        anything is sent; ConnectionLost, OperationTimeout and ProtocolError, which close the connection and tell by
        ``maybe_applied`` whether a write may have been done; ServerError and ClientError, which leave it open.
        """
        stream: Stream | None
        began = now = monotonic()
        seconds = self._timeout if deadline is None else deadline - now
        try:
            if self._max_body is not None and op.body is not None and len(op.body) > self._max_body:
                raise too_large(len(op.body), self._max_body)
            try:
                stream = self._idle.pop()
            except IndexError as error:
                if not is_own(error):
                    raise
                # No call between this and the `try`: an exception of a signal handler would lose the stream.
                stream, now = self._wait(began + seconds)
                seconds -= now - began
            try:
                if now - stream.used > TRUST or seconds != stream.armed:
                    stream.make_ready(now + seconds)
                    stream.armed = seconds
                stream.used = now
                command = op.verb.command
                next_opaque = stream.next_opaque
                opaque = next_opaque() if command.echoes else NO_OPAQUE
                body = op.body
                if body is None:
                    wire = op.head + opaque[0]
                elif len(body) <= LARGE:
                    wire = b"".join((op.head, opaque[0], body, b"\r\n"))
                else:
                    wire = b""  # `finish` sends it in pieces
                reply = data = None
                sent = 0
                try:
                    if wire:
                        send, recv = stream.send, stream.recv
                        sent = send(wire)
                        if sent == len(wire):
                            data = recv(command.receive)
                            if data == opaque[2] and command.has_plain_hd:
                                reply = HD_REPLY
                            else:
                                reply = whole_reply(data, opaque[0], command, self._max_reply)
                except OSError as error:
                    if not is_own(error):
                        raise
                    left = sent > 0 or stream.is_tls  # a failed TLS write may have sent a part of itself
                    attempt = Attempt(opaque, pieces(op.head, opaque, body, sent), left, data, error)
                    reply = stream.finish(op, attempt, now, now + seconds)
                if reply is None:
                    attempt = Attempt(opaque, pieces(op.head, opaque, body, sent), sent > 0, data)
                    reply = stream.finish(op, attempt, now, now + seconds)
            except BaseException as error:
                # Code that raises an error of this package has closed the stream if it had to. Any other exception
                # interrupted the exchange, and how far it has come is not known.
                if not (isinstance(error, MetacacheError) and is_own(error)):
                    stream.close(CloseReason.BROKEN)
                raise
            finally:
                self._idle.append(stream)
                if self._waiters:
                    self._lender.serve()
            read = op.read
            return read(reply)
        except BaseException as error:
            stream = None  # first, without a call: a caller may keep the error, and with it this frame
            if isinstance(error, MetacacheError) and is_own(error):
                error.locate(node=self.node.name, operation=op.verb.name, key=op.given)
                if isinstance(error, OperationTimeout) and seconds < now - began:
                    error.is_local = True  # the wait for the connection took more than half of the time
            clear_frames(error)
            raise

    def begin(self, batch: Batch, /, *, deadline: float) -> Exchange:
        """Start *batch* and return its exchange, which `run_batch` drives. The connection is in use until it ends.

        *deadline* as in `run`; ``math.inf``: ``Settings.timeout`` from now. Raises ClosedError and ValueTooLargeError;
        all else that goes wrong is in the outcomes.
        """
        deadline = monotonic() + self._settings.timeout if deadline == math.inf else deadline
        return self.begin_lent(batch, deadline, _nobody)

    def begin_lent(self, batch: Batch, deadline: float, then: Callable[[Replies], object]) -> Exchange:
        """As `begin`, for who lends this connection: *then* takes the outcomes when what is under way has ended.

        It is not called for a batch that could not be started, whose exchange is a FailedExchange.
        """
        check_bodies(batch, self._max_body)
        try:
            stream = self._take(deadline)
            try:
                release = partial(self._put_back, stream, then)
                return StreamExchange(batch, stream, release, node=self.node.name, deadline=deadline)
            except BaseException:
                self._lender.put_back(stream)
                raise
        except MetacacheError as error:
            if isinstance(error, ClosedError) or not is_own(error):
                raise
            return FailedExchange(batch, error.locate(node=self.node.name))

    def _put_back(self, stream: Stream, then: Callable[[Replies], object], replies: Replies) -> None:
        self._lender.put_back(stream)
        then(replies)

    def close(self) -> None:
        """Close. What runs is let finish, what waits or comes is refused with ClosedError. Closing twice is nothing."""
        self._lender.close()
        self._refer()

    def discard(self, cause: CloseReason) -> None:
        """Close the socket if nobody uses it, and count that as *cause*. The next operation dials anew."""
        with ignoring(IndexError):
            stream = self._idle.pop()
            stream.close(cause)
            self._lender.put_back(stream)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()

    # --- lending the stream ------------------------------------------------------------------------------------------

    def _take(self, deadline: float) -> Stream:
        try:
            return self._idle.pop()
        except IndexError as error:
            if not is_own(error):
                raise
            return self._wait(deadline)[0]

    def _wait(self, deadline: float) -> tuple[Stream, float]:
        """Return the stream when it is free, and the time then. Raises ClosedError, and PoolTimeout at *deadline*."""
        stream = self._lender.take(deadline)
        if stream is not None:
            return stream, monotonic()
        if self._lender.is_closed:
            raise ClosedError("the connection was closed", node=self.node.name)
        raise PoolTimeout("another thread kept the connection until the deadline; use a Pool under threads")

    def reset_after_fork(self) -> None:
        """In a forked child: forget the parent's socket without a word on the wire, and locks nobody will release."""
        for stream in self._lender.all():
            stream.close()
        self._dialer.forget()
        self._lender.reset()
        self._refer()


# A deadline that the driver does not know (math.inf) is seen by the exchange itself this many seconds late at most.
SLICE: Final = 0.02


def run_batch(transport: Transport, batch: Batch, deadline: float) -> Replies:
    """Begin *batch* on *transport*, drive it to its end and return the replies.

    Raises what is wrong before a byte is sent: ClosedError, ValueTooLargeError, InvalidArgumentError.
    """
    if not len(batch):
        return Replies()
    try:
        return _drive(transport, batch, deadline)
    except BaseException as error:
        clear_frames(error)
        raise


def _drive(transport: Transport, batch: Batch, deadline: float) -> Replies:
    try:
        exchange = transport.begin(batch, deadline=deadline)
    except MetacacheError as error:
        if isinstance(error, ClosedError | ValueTooLargeError | InvalidArgumentError) or is_injected(error):
            raise
        return FailedExchange(batch, error).outcomes()  # a transport that raises instead of returning an outcome
    try:
        now = monotonic()
        while not exchange.advance(now):
            _wait_for(exchange, min(deadline - now, SLICE if deadline == math.inf else math.inf))
            now = monotonic()
    except BaseException:
        exchange.outcomes()  # gives up the rest and closes the connection
        raise
    return exchange.outcomes()


def _wait_for(exchange: Exchange, seconds: float) -> None:
    if exchange.fileno() < 0:
        return
    poll = select.poll()
    poll.register(exchange.fileno(), select.POLLIN | (select.POLLOUT if exchange.wants_write else 0))
    poll.poll(max(seconds, 0.0) * 1000)
