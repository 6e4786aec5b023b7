"""Run operations and batches on streams that are lent to one thread at a time.

A `Connection` is a `Lending` of one stream, a `Pool` one of several. The thread that borrows a stream dials it. No lock
is held while a thread dials, sends or closes. `stream` and `exchange` send requests and read replies.
"""

from __future__ import annotations

import math
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Final, TypeVar, final
from weakref import ref

from metacache.errors import ClosedError, ConnectError, MetacacheError, OperationTimeout, PoolTimeout
from metacache.interrupts import clear_frames, ignoring, is_own
from metacache.protocol.connection import LARGE, pieces
from metacache.protocol.replies import HD_REPLY, NO_OPAQUE, whole_reply
from metacache.protocol.windows import Replies
from metacache.transports.batch_windows import failed_replies
from metacache.transports.blocking.checkout import Checkout
from metacache.transports.blocking.exchange import Handed, StreamExchange, drive_exchange
from metacache.transports.blocking.stream import Attempt, Stream
from metacache.transports.counters import CloseReason, CountRegistry
from metacache.transports.forking import forget_in_children
from metacache.transports.limits import check_bodies, too_large

if TYPE_CHECKING:
    from metacache.nodes import Node
    from metacache.observe import Reporter
    from metacache.settings import Settings
    from metacache.transports.base import Batch, Operation
    from metacache.transports.blocking.checkout import IdleStack, Waiter, Waker
    from metacache.transports.blocking.observed import MakeExchange, Run
    from metacache.transports.limits import Limits
    from metacache.transports.observed import Exchanges

__all__ = ["Lending"]

R = TypeVar("R")

# A stream that was used less than this many seconds ago is used without a check that its socket is alive.
TRUST: Final = 0.01


@final
class Lending:
    """The streams of one node: runs operations and batches on those that it lends.

    Args:
        node: the server.
        settings: of each stream.
        limits: how many streams there may be, and which idle ones to close.
        owner: the word for it in errors: "connection" or "pool".
        reporter: reports requests, dials, waits and retries; None: nothing is reported.

    ``counts`` are the socket counts of all streams that ever existed. ``waits`` is how often callers waited for a
    stream, ``wait_seconds`` for how many seconds in total. ``max_reply`` is the limit of the bytes of a value.
    """

    __slots__ = (
        "__weakref__",
        "_checkout",
        "_exchanges",
        "_failed_at",
        "_idle",
        "_limits",
        "_make_exchange",
        "_max_body",
        "_owner",
        "_review_at",
        "_settings",
        "_timeout",
        "_waiters",
        "counts",
        "max_reply",
        "node",
        "wait_seconds",
        "waits",
    )

    def __init__(
        self, node: Node, settings: Settings, limits: Limits, owner: str, reporter: Reporter | None = None
    ) -> None:
        self.node = node
        self.counts = CountRegistry()
        self.waits = 0
        self.wait_seconds = 0.0
        self._exchanges: Exchanges | None = None
        self._make_exchange: MakeExchange = StreamExchange
        if reporter is not None:
            self._observe(reporter)
        self._settings = settings
        self._limits = limits
        self._owner = owner
        self._max_body = settings.max_value_size
        self.max_reply = settings.max_reply_size
        self._timeout = settings.timeout
        self._review_at = limits.next_review(monotonic())
        self._failed_at = -math.inf
        # A reference back to this object would be a cycle: the sockets of a transport that is dropped without `close`
        # would stay open until the garbage collector runs, and it may warn of them before a stream closes them.
        make = partial(_new_stream, node, settings, self._exchanges, self.counts)
        may_make = partial(_may_open, ref(self))
        self._checkout: Checkout[Stream] = Checkout(make, limits.size, may_make=may_make)
        self._checkout.stock()
        self._copy_references()
        forget_in_children(self)

    def _observe(self, reporter: Reporter) -> None:
        # Late: only a transport with an observer needs them.
        from metacache.transports.blocking.observed import observed_exchange
        from metacache.transports.observed import Exchanges

        self._exchanges = Exchanges(self.node, reporter)
        self._make_exchange = observed_exchange(self._exchanges)

    def _copy_references(self) -> None:
        # Copies save `run` attribute look-ups. The checkout replaces the objects after a fork, and when it is closed.
        self._idle = self._checkout.idle
        self._waiters = self._checkout.waiters

    # --- state -------------------------------------------------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        """True once it was closed."""
        return self._checkout.is_closed

    @property
    def waiting(self) -> int:
        """How many callers wait for a stream."""
        return self._checkout.waiting

    @property
    def connected(self) -> int:
        """How many streams have a socket."""
        # No generator: Python turns a signal handler's StopIteration in a generator into a RuntimeError.
        return len([stream for stream in self._checkout.all() if stream.is_open])

    def usage(self) -> tuple[int, int]:
        """Return how many streams are connected and idle, and how many are in use."""
        idle, in_use = self._checkout.usage()
        return len([stream for stream in idle if stream.is_open]), in_use

    # --- the transport -----------------------------------------------------------------------------------------------

    @property
    def exchanges(self) -> Exchanges | None:
        """Reports the exchanges; None without an observer."""
        return self._exchanges

    @property
    def observed_run(self) -> Run:
        """`run`, or with an observer a function that also reports each request. `Pool` and `Connection` call it."""
        if self._exchanges is None:
            return self.run
        from metacache.transports.blocking.observed import observed_run  # late: as above

        return observed_run(self.run, self._exchanges)

    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:
        """Send *op*, wait for its reply and return ``op.read(reply)``. See `Connection.run`.

        This is the shortest path: a stream is idle, the request is small, and one `recv` returns the whole reply. It is
        one function because each further call costs 700 of about 20,000 instructions. Other methods do all the rest.
        """
        stream: Stream | None
        began = now = monotonic()
        seconds = self._timeout if deadline is None else deadline - now
        try:
            # 1. Check the size, before a stream is taken.
            body = op.body
            if body is not None and self._max_body is not None and len(body) > self._max_body:
                raise too_large(len(body), self._max_body)
            # 2. Take a stream, or wait for one.
            try:
                stream = self._idle.pop()
            except IndexError as error:
                if not is_own(error):
                    raise
                # No call between this one and the `try` below: in a call, a signal handler's exception would lose the
                # stream.
                stream, now = self._wait(began + seconds)
                seconds -= now - began
            back: IdleStack[Stream] | None = None
            try:
                # 3. Dial it or check that it is alive, and set its timeout, unless the last exchange has just done so.
                if now - stream.used_at > TRUST or seconds != stream.ready_for:
                    stream.make_ready(now + seconds)
                    stream.ready_for = seconds
                stream.used_at = now
                # 4. Build the bytes of the request. A compiled exchange takes the parts instead.
                command = op.verb.command
                next_opaque = stream.next_opaque
                opaque = next_opaque() if command.echoes else NO_OPAQUE
                once = stream.exchange_once
                if once is not None and (body is None or len(body) <= LARGE):
                    wire = b""
                elif body is None:
                    wire = op.head + opaque[0]
                elif len(body) <= LARGE:
                    wire = b"".join((op.head, opaque[0], body, b"\r\n"))
                else:
                    wire, once = b"", None  # `finish` sends it in pieces
                # 5. Send them with one call, and parse the reply if one more call returns the whole of it.
                reply = data = None
                sent = 0
                try:
                    if once is not None:
                        whole, has_value, most = command.whole, command.has_value, stream.first_size
                        reply = once.run(op.head, body, opaque[0], whole, has_value, most, now + seconds)
                        if reply is None:
                            sent, data = once.sent, once.data
                            if data is not None and len(data) < most:
                                reply = whole_reply(data, opaque[0], command, self.max_reply)
                    elif wire:
                        send, receive = stream.send, stream.receive_first
                        sent = send(wire)
                        if sent == len(wire):
                            data = receive(command.receive)
                            if command.has_plain_hd and data == opaque[2]:
                                reply = HD_REPLY
                            else:
                                reply = whole_reply(data, opaque[0], command, self.max_reply)
                except OSError as error:
                    if not is_own(error):
                        raise
                    if once is not None:
                        sent, data = once.sent, once.data
                    may_be_sent = sent > 0 or stream.is_tls  # a TLS write that fails may have sent a part
                    # Without a name here: the error refers to this frame, and through it would keep the stream.
                    unsent = pieces(op.head, opaque, body, sent)
                    reply = stream.finish(op, Attempt(opaque, unsent, may_be_sent, data, error), now, now + seconds)
                # 6. Finish an exchange that needs more calls.
                if reply is None:
                    attempt = Attempt(opaque, pieces(op.head, opaque, body, sent), sent > 0, data)
                    reply = stream.finish(op, attempt, now, now + seconds)
            except BaseException as error:
                back = self._stack_after(error, stream)
                raise
            finally:
                # 7. Put the stream back. Only C code is called until then, so no signal handler runs in between.
                (self._idle if back is None else back).append(stream)
                if self._waiters:
                    self._checkout.serve()
            # 8. Close idle streams from time to time, and read the reply.
            if now >= self._review_at:
                self.reap()
            read = op.read
            return read(reply)
        except BaseException as error:
            # First, and without a call: the caller may keep the error, which keeps this frame.
            stream = None
            if isinstance(error, MetacacheError) and is_own(error):
                error.locate(node=self.node.name, operation=op.verb.name, key=op.given)
                if isinstance(error, OperationTimeout) and seconds < now - began:
                    error.is_local = True  # the wait for the connection took more than half of the time
            clear_frames(error)
            raise

    def _stack_after(self, error: BaseException, stream: Stream) -> IdleStack[Stream] | None:
        """Return the stack for *stream* after its exchange ended with *error*; None: the stack of idle ones.

        Code that raises an error of this package has closed the stream if necessary. Any other exception interrupted
        the exchange, so its position is uncertain and this method closes it.
        """
        if not (isinstance(error, MetacacheError) and is_own(error)):
            stream.close(CloseReason.BROKEN)
            return None
        if not isinstance(error, ConnectError):
            return None
        self._note_failed_dial(error, stream)
        return self._checkout.stack_of_unconnected()

    def _note_failed_dial(self, error: ConnectError, stream: Stream) -> None:
        if error.is_local:
            return
        # Several threads may dial a full or dead server at the same time. All fail, and the node is charged only once.
        error.is_local = stream.dialled_at < self._failed_at
        self._failed_at = monotonic()

    def run_batch(self, batch: Batch, /, *, deadline: float) -> Replies:
        """Send *batch*, and return a reply or an error for each request. See `Connection.run_batch`."""
        if not len(batch):
            return Replies()
        try:
            deadline = monotonic() + self._timeout if deadline == math.inf else deadline
            # No variable for the exchange: an exception that the caller keeps would keep the exchange, and the stream.
            return drive_exchange(self.begin(batch, deadline), deadline)
        except BaseException as error:
            if isinstance(error, PoolTimeout) and is_own(error):
                return failed_replies(batch, error)
            clear_frames(error)
            raise

    def close(self) -> None:
        """Close: running requests finish, waiting and new ones are refused with ClosedError. Idempotent."""
        self._checkout.close()
        self._copy_references()

    # --- a batch, step by step ---------------------------------------------------------------------------------------

    def begin(self, batch: Batch, deadline: float) -> StreamExchange:
        """Start *batch* on a stream, which is in use until the exchange is done. Raises ClosedError and PoolTimeout."""
        check_bodies(batch, self._max_body)
        try:
            stream = self._idle.pop()
        except IndexError as error:
            if not is_own(error):
                raise
            try:
                stream, _ = self._wait(deadline)
            except MetacacheError as refused:
                if is_own(refused):
                    refused.locate(node=self.node.name, operation=batch.verb.name)
                raise
        return self._start(stream, batch, deadline)

    def _start(self, stream: Stream, batch: Batch, deadline: float) -> StreamExchange:
        try:
            release = partial(self._take_back, stream)
            return self._make_exchange(batch, stream, release, node=self.node.name, deadline=deadline)
        except BaseException:
            self._checkout.put_back(stream)
            raise

    def _take_back(self, stream: Stream, replies: Replies) -> None:
        """Take back the *stream* on which a batch ended with *replies*."""
        failed = [error for error in replies.errors.values() if isinstance(error, ConnectError)]  # as in `connected`
        if failed:
            self._note_failed_dial(failed[0], stream)
            self._set_aside(stream)
        else:
            self._checkout.put_back(stream)
        if monotonic() >= self._review_at:
            self.reap()

    # --- a batch that waits for streams of several nodes -------------------------------------------------------------

    def try_begin(self, batch: Batch, waiter: Waiter[Stream] | None, deadline: float) -> StreamExchange | None:
        """Start *batch* if a stream is free or was handed to *waiter*; else return None. Raises ClosedError."""
        try:
            stream = self._idle.pop() if waiter is None else None  # a closed checkout has no idle ones
        except IndexError as error:
            if not is_own(error):
                raise
            stream = None
        if stream is None:
            if self.is_closed:
                raise self._closed().locate(operation=batch.verb.name)
            stream = self._checkout.take_now() if waiter is None else self._checkout.collect(waiter)
        return None if stream is None else self._start(stream, batch, deadline)

    def take_connected(self) -> Stream | None:
        """Return an idle stream with a plain socket; None if there is none, or if an observer is called."""
        if self._exchanges is not None:
            return None
        try:
            stream = self._idle.pop()
        except IndexError as error:
            if not is_own(error):
                raise
            return None
        if stream.is_plain:
            return stream
        self._checkout.put_back(stream)
        return None

    def put_back(self, stream: Stream, now: float) -> None:
        """Take back a *stream* whose replies were all read; close idle streams from time to time."""
        stream.used_at = now
        self._idle.append(stream)  # `Checkout.put_back` without the call: one for each part of a batch
        if self._waiters:
            self._checkout.serve()
        if now >= self._review_at:
            self.reap()

    def go_on(self, stream: Stream, batch: Batch, deadline: float, handed: Handed) -> StreamExchange:
        """Return the exchange that goes on with a window of *batch* that was sent on *stream*."""
        release = partial(self._take_back, stream)
        exchange = self._make_exchange(batch, stream, release, node=self.node.name, deadline=deadline)
        exchange.go_on(handed)
        return exchange

    def join(self, waker: Waker) -> Waiter[Stream]:
        """Join the queue for a stream; *waker* wakes the caller when one is handed over."""
        self.waits += 1
        return self._checkout.join(waker)

    def leave(self, waiter: Waiter[Stream]) -> None:
        """Leave the queue, and put back a stream that was handed over and not collected."""
        self._checkout.leave(waiter)
        self._count_wait(waiter.began, is_served=waiter.is_served)

    def wait_until(self, now: float, deadline: float) -> float:
        """Return when a caller that arrived at *now* stops waiting for a stream."""
        return self._limits.wait_until(now, deadline)

    def timed_out(self, batch: Batch) -> Replies:
        """Return PoolTimeout for each request of *batch*, for which no stream became free in time."""
        return failed_replies(batch, self._full())

    def refused(self, batch: Batch) -> Replies:
        """Return ClosedError for each request of *batch*."""
        return failed_replies(batch, self._closed())

    # --- waiting for a stream ----------------------------------------------------------------------------------------

    def may_open(self) -> bool:
        """Return whether a stream may be dialled now."""
        return self._limits.may_open(
            self._checkout.opened, connected=self.connected, now=monotonic(), failed_at=self._failed_at
        )

    def _wait(self, deadline: float) -> tuple[Stream, float]:
        """Wait for a stream; return it and the current time. Raises ClosedError, and PoolTimeout at *deadline*."""
        began = monotonic()
        until = self._limits.wait_until(began, deadline)
        waited = is_served = False
        try:
            while not self.is_closed:
                now = monotonic()
                if not self.may_open():
                    if now >= until:
                        raise self._full()
                    waited, now = True, until
                stream = self._checkout.take(now)
                if stream is not None:
                    is_served = True
                    return stream, monotonic()
            raise self._closed()
        finally:
            if waited:
                self.waits += 1
                self._count_wait(began, is_served=is_served)

    def _count_wait(self, began: float, *, is_served: bool) -> None:
        # No call between reading the sum and writing it: Python switches threads only at calls and jumps.
        waited = monotonic() - began
        self.wait_seconds += waited
        if self._exchanges is not None:
            self._exchanges.waited(began, began + waited, is_served=is_served)

    def _closed(self) -> ClosedError:
        return ClosedError(f"the {self._owner} was closed", node=self.node.name)

    def _full(self) -> PoolTimeout:
        if self._owner == "connection":
            why = "another thread kept the connection until the deadline; use a Pool under threads"
        elif self._checkout.opened < self._limits.size:
            why = "all connections stayed in use, and no further one could be made; has the server free ones (-c)?"
        else:
            why = f"all {self._limits.size} connections stayed in use; raise pool_size, or look for slow requests"
        return PoolTimeout(why, node=self.node.name)

    # --- idle streams ------------------------------------------------------------------------------------------------

    def reap(self) -> None:
        """Close streams that are idle or open for too long."""
        now = monotonic()
        self._review_at = self._limits.next_review(now)
        # Another thread may take one of these meanwhile: `_discard` leaves it alone.
        idle = [stream for stream in tuple(self._idle) if stream.is_open]
        for index, cause in self._limits.to_close([stream.idle_times for stream in idle], now).items():
            self._discard(idle[index], cause)

    def _discard(self, stream: Stream, cause: CloseReason) -> None:
        """Close the socket of *stream* if it is still idle; the next operation dials."""
        with ignoring(ValueError):  # another thread took it
            self._idle.remove(stream)
            stream.close(cause)
            self._set_aside(stream)

    def _set_aside(self, stream: Stream) -> None:
        """Put back a *stream* that has no socket."""
        self._checkout.stack_of_unconnected().append(stream)
        if self._waiters:
            self._checkout.serve()

    def reset_after_fork(self) -> None:
        """In a forked child: close the parent's sockets without sending, and replace locks that may be held."""
        for stream in self._checkout.all():
            stream.reset_after_fork()
        self._checkout.reset_after_fork()
        self._copy_references()


def _new_stream(node: Node, settings: Settings, exchanges: Exchanges | None, counts: CountRegistry) -> Stream:
    stream = Stream(node, settings, exchanges)
    counts.register(stream, stream.counts)
    return stream


def _may_open(lending: ref[Lending]) -> bool:
    found = lending()
    return found is not None and found.may_open()
