"""`AsyncConnection`: one connection shared by all the tasks of an event loop, as a transport.

It queues requests, dials when needed, ends requests at their deadlines, and sends reads again that met a stale link.
`Link` does the I/O. One event loop runs it, so it needs no lock.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, ClassVar, Final, Self, TypeVar, final

from metacache.acceleration import queue_request
from metacache.copying import refuse_copy
from metacache.errors import ClosedError, ConnectError, ConnectionLost, MetacacheError, ProtocolError, TransportError
from metacache.interrupts import is_from_handler
from metacache.marks import override
from metacache.nodes import Node, check_node
from metacache.observe import Observer, reporter_of
from metacache.protocol.windows import Replies
from metacache.settings import Settings, check_settings
from metacache.transports.aio.batch import RunningBatch, WhenAwaited
from metacache.transports.aio.deadlines import Deadlines
from metacache.transports.aio.link import Link
from metacache.transports.aio.loops import is_running_here, running_loop
from metacache.transports.aio.observed import ObservedWaits, observed_batch, observed_hooks, observed_reply
from metacache.transports.aio.opening import CLOSED_IMMEDIATELY, LinkOpener
from metacache.transports.aio.pending import AnyPending, PendingReply, RequestQueue, fail_pending, new_pending, verb_of
from metacache.transports.base import Operation
from metacache.transports.counters import CloseReason, IdleTimes, SocketCounts, WaitCounts
from metacache.transports.limits import check_bodies, too_large
from metacache.transports.observed import KEEP_REPLY, Exchanges
from metacache.transports.timeouts import deadline_passed

if TYPE_CHECKING:
    from types import TracebackType

    from metacache.protocol.replies import Reply
    from metacache.transports.base import Batch

__all__ = ["AsyncConnection"]

logger = logging.getLogger("metacache.transports")

R = TypeVar("R")
DEFAULTS: Final = Settings()

_CLOSED: Final = "the connection was closed"

# Seconds after which a scheduled flush that did not run is repeated.
FLUSH_CHECK: Final = 0.02


def _ignore(*_: object) -> None:
    """Do nothing: the default of the callbacks."""


@final
class AsyncConnection:
    """One connection to one node, shared by any number of tasks of one event loop; dialled when needed.

    Requests of one event loop iteration leave in one write, up to 256 of them and 64 KiB. Replies arrive in the
    order of the requests. When a task is cancelled or its deadline passes, its reply is dropped on arrival. No other
    request is affected. When requests wait and nothing is received for ``Settings.timeout`` seconds, the connection is
    closed, and all requests that wait on it fail.

    Args:
        node: the server.
        settings: timeouts, TLS, credentials, limits.
        observer: is called with the events of requests and connections; see `Observer`.
        on_failure: called once for each failed dial and each broken connection, even if many requests fail.

    ``in_flight`` is the number of requests that are written and have no reply; ``counts`` counts its sockets.
    ``failed_at`` is when a dial last failed, minus infinity after a successful one. ``on_dial_failed`` is called when a
    dial fails, with the error, which it may mark as local, and the time when the dial began. ``waits`` counts the
    requests that had to wait until fewer were in flight.
    """

    RETURNS_ANSWERS: ClassVar = True  # see `returns_answers`

    __reduce_ex__ = refuse_copy
    __slots__ = (
        "__weakref__",
        "_closed",
        "_exchanges",
        "_flushing",
        "_is_special",
        "_last_closed",
        "_link",
        "_max_body",
        "_next_check",
        "_on_failure",
        "_opener",
        "_queue",
        "_settings",
        "_timeout",
        "_timer",
        "counts",
        "failed_at",
        "in_flight",
        "node",
        "observer",
        "on_dial_failed",
        "waits",
    )

    def __init__(
        self,
        node: Node,
        *,
        settings: Settings = DEFAULTS,
        observer: Observer | None = None,
        on_failure: Callable[[MetacacheError], object] = _ignore,
    ) -> None:
        check_node(node)
        check_settings(settings)
        self.node = node
        # A client of this transport has the same observer.
        self.observer = reporter_of(observer)
        self._exchanges = None if self.observer is None else Exchanges(node, self.observer)
        self.counts = SocketCounts()
        self.in_flight = 0
        self.failed_at = -math.inf
        self.on_dial_failed: Callable[[MetacacheError, float], object] = _ignore
        self._settings = settings
        self._timeout = settings.timeout
        self._max_body = settings.max_value_size
        self._on_failure = on_failure
        self._queue = RequestQueue(node)
        if self._exchanges is not None:
            self._queue.waits = ObservedWaits(WaitCounts(), self._exchanges)
        self.waits = self._queue.waits
        make = partial(Link, settings, self._answered, self._on_room, self._lost)
        opened: Callable[[Link], None] = self._opened
        failed: Callable[[MetacacheError, float], None] = self._dial_failed
        if self._exchanges is not None:
            opened, failed = observed_hooks(opened, failed, self._exchanges)
        self._opener = LinkOpener(self._queue, settings, self.counts, make, opened, failed, self._flush_soon)
        self._link: Link | None = None
        self._last_closed: asyncio.Future[None] | None = None
        self._flushing = False
        self._next_check = -math.inf
        self._timer = Deadlines(self._queue, settings.timeout, lambda: self._link, self._after_check).timer
        self._closed = False
        # Closed or observed. One check finds both, so that an observer costs nothing where there is none.
        self._is_special = self._exchanges is not None

    @override
    def __repr__(self) -> str:
        link = self._link
        state = "closed" if self._closed else "not connected" if link is None else f"{link.requests} in flight"
        return f"<AsyncConnection {self.node.name}: {state}, {len(self._queue.waiting)} waiting>"

    @property
    def waiting(self) -> int:
        """How many requests are not written yet, each window of a batch counted as one."""
        return len(self._queue.waiting)

    @property
    def load(self) -> int:
        """How many requests are in flight or not written yet; a window that is not written counts as one."""
        return self.in_flight + len(self._queue.waiting)

    @property
    def idle_times(self) -> IdleTimes | None:
        """When it was dialled and last used; None while it is in use or not connected."""
        return None if self._link is None or self.load else IdleTimes(self._link.dialled_at, self._link.active_at)

    # --- the transport -----------------------------------------------------------------------------------------------

    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> Awaitable[R]:
        """Send *op*, wait for its reply and return ``op.read(reply)``.

        It is queued by this call and written in this event loop iteration, if the connection is open and not full.

        *deadline*: a ``time.monotonic()`` time; None: ``Settings.timeout`` from now.

        Raises ClosedError, PoolTimeout (too many requests were in flight until the deadline), ValueTooLargeError and
        ConnectError before anything is sent. Raises ConnectionLost, ProtocolError and OperationTimeout;
        ``maybe_applied`` says whether the server may have done a write. Raises ServerError and ClientError. The
        deadline or the cancellation of one request leaves the connection open.
        """
        body = op.body
        try:
            if body is not None and self._max_body is not None and len(body) > self._max_body:
                raise too_large(len(body), self._max_body)
            if self._is_special:
                return self._run_specially(op, deadline)
            command = op.verb.command
            if queue_request is not None and command.echoes:
                # Here and not in a method of its own: a call of it would add 200 instructions.
                queue, at = self._queue, self._timer.at
                until = self._next_check if self._flushing else math.inf
                queued: PendingReply[R] | None = queue_request(
                    op, command, op.head, body, op.read,
                    queue, queue.loop, queue.waiting, deadline, self._timeout, at, until,
                )  # fmt: skip
                if queued is not None:
                    if not self._flushing:
                        self._flush_soon()
                    return queued
            pending: PendingReply[R] = new_pending()
            pending.work = op
            pending.plain = op if command.echoes else None
            pending.read = op.read
            self._enqueue(pending, deadline)
            return pending
        except MetacacheError as error:
            error.locate(node=self.node.name, operation=op.verb.name, key=op.given)
            raise

    def _run_specially(self, op: Operation[R], deadline: float | None) -> Awaitable[R]:
        """Run *op* on an observed connection. Raises ClosedError on a closed one."""
        if self._closed or self._exchanges is None:
            raise ClosedError(_CLOSED)
        began = monotonic()
        pending: PendingReply[Reply] = new_pending()
        pending.work = op
        # `KEEP_REPLY` replaces the reader of *op*, so the result is a reply and not R.
        pending.plain = op if op.verb.command.echoes else None  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
        pending.read = KEEP_REPLY
        self._enqueue(pending, deadline)
        return observed_reply(pending, op, self._exchanges, began)

    def run_batch(self, batch: Batch, /, *, deadline: float) -> Awaitable[Replies]:
        """Send *batch*, wait for its replies and return a reply or an error for each request.

        *deadline* as in `run`; ``math.inf``: ``Settings.timeout`` from now. Raises ClosedError and ValueTooLargeError
        before a byte is sent. Every other failure is in the replies.
        """
        if self._closed:
            raise ClosedError(_CLOSED, node=self.node.name, operation=batch.verb.name)
        check_bodies(batch, self._settings.max_value_size)
        began = 0.0 if self._exchanges is None else monotonic()
        deadline = monotonic() + self._settings.timeout if deadline == math.inf else deadline
        enqueue = partial(self._enqueue, deadline=deadline)
        running = RunningBatch(batch, enqueue, is_tls=self._settings.tls is not None)
        if self._exchanges is None:
            return WhenAwaited(partial(self._finish, batch, running.replies))
        observed = partial(observed_batch, batch=batch, exchanges=self._exchanges, began=began)
        return WhenAwaited(lambda: observed(self._finish(batch, running.replies)))

    async def _finish(self, batch: Batch, wait: Callable[[], Awaitable[Replies]]) -> Replies:
        replies = await wait()
        for failure in replies.errors.values():
            failure.locate(node=self.node.name, operation=batch.verb.name)
        return replies

    async def aclose(self) -> None:
        """Close: running requests finish, new ones are refused with ClosedError. Idempotent.

        Called outside its event loop, it closes without waiting: running requests get a ClosedError.
        """
        self._closed = self._is_special = True
        loop = self._queue.loop
        if loop is not None and not is_running_here(loop):
            if loop.is_running():
                loop.call_soon_threadsafe(self.drop)
            else:
                self.drop()
            return
        await self._queue.drain(self._timeout)
        self._timer.cancel()
        await self._opener.aclose()
        if self._link is not None:
            self._link.close()
            self._link = None
        if self._last_closed is not None:
            await self._last_closed  # the last link may have been lost or discarded just before

    def drop(self) -> None:
        """Close without waiting. Call it in a callback of its loop, or when the loop does not run."""
        self._closed = self._is_special = True
        loop, link = self._queue.loop, self._link
        if loop is None:
            return
        error = ClosedError("the connection was closed by another event loop", node=self.node.name)
        self._timer.cancel()
        if not loop.is_closed():
            self._opener.cancel()
            self._queue.fail(self._queue.waiting, error, sent=False)
        if link is not None:
            link.drop(error)
        self._queue.drop_abandoned()
        self._link = None
        self.in_flight = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self.aclose()

    def discard(self, cause: CloseReason) -> None:
        """Close the socket if no request uses it, and count it as *cause*. The next operation dials."""
        link = self._link
        if link is not None and not self.load:
            self._link = None
            self.counts.discarded[cause] += 1
            link.close()

    # --- writing -----------------------------------------------------------------------------------------------------

    def _enqueue(self, pending: AnyPending, deadline: float | None) -> None:
        """Queue the request of *pending*, to be written in this event loop iteration."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = running_loop()  # raises an error that says more
        queue = self._queue
        if loop is not queue.loop:
            queue.bind(loop)
        now = monotonic()
        check_at = now + self._timeout  # the earliest time at which the link may count as silent
        if deadline is None:
            deadline = check_at
        elif deadline < check_at:
            check_at = deadline
        pending.queue = queue
        pending.deadline = deadline
        pending.made_at = now
        pending.answer = pending.waiter = None
        # Set it also when it is overdue: a signal's exception may have ended its callback.
        if not now <= self._timer.at <= check_at:
            if deadline <= now:
                fail_pending((pending,), deadline_passed(), sent=False)
                return
            self._timer.set(loop, check_at, now)
        queue.waiting.append(pending)
        if not self._flushing:
            self._flushing = True
            loop.call_soon(self._flush)
        elif now >= self._next_check:
            # A flush is scheduled. It does not run when a nested loop runs inside a task that is being woken, or when a
            # signal's exception interrupted it. So flush again a little later.
            self._next_check = now + FLUSH_CHECK
            loop.call_later(FLUSH_CHECK, self._flush)

    def _flush(self) -> None:
        self._flushing = False
        queue, link = self._queue, self._link
        if queue.answered:  # a nested loop, or a signal's exception, interrupted the last `wake`
            queue.wake()
        if link is None or link.is_lost:
            self._dial_if_needed()
            return
        if queue.waiting:  # else `_answered` has written them
            self._write(link, queue)

    def _write(self, link: Link, queue: RequestQueue) -> None:
        """Write what waits and may be written; see that the rest is written later."""
        before = len(queue.waiting)
        link.write(queue.waiting)
        self.in_flight = link.requests
        left = len(queue.waiting)
        if not left and not queue.waits.waiting:  # nearly always
            return
        queue.waits.update(monotonic(), taken=before - left, left=left, is_full=link.is_full)
        if link.has_room:
            self._flush_soon()
        else:
            queue.trim()

    def _after_check(self) -> None:
        """Repair what a signal's exception may have interrupted, after a check of the deadlines.

        That is the last flush, the handling of a lost link, or code that was about to count the requests in flight. A
        pool would avoid a connection with a wrong count for ever.
        """
        self._flushing = False
        if self._link is not None and self._link.is_lost:
            self._dial_if_needed()
        self.in_flight = 0 if self._link is None else self._link.requests
        if self._queue.waiting:
            self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flushing and self._queue.loop is not None:
            self._flushing = True
            self._queue.loop.call_soon(self._flush)

    def _on_room(self, link: Link) -> None:
        if link is self._link and self._queue.waiting:
            self._flush_soon()

    def _answered(self, link: Link, answered: Sequence[AnyPending]) -> None:
        """Wake the tasks that await *answered*, and write the requests that they make in response."""
        queue = self._queue
        if link is self._link:
            self.in_flight = link.requests
        was_flushing, self._flushing = self._flushing, True
        queue.answered.extend(answered)
        queue.wake()
        self._flushing = was_flushing
        if self._closed:
            queue.check_drained()
        if not queue.waiting or was_flushing:
            return
        if link is self._link and not link.is_lost:
            self._write(link, queue)
        else:
            self._flush()

    # --- dialling ----------------------------------------------------------------------------------------------------

    def _dial_if_needed(self) -> None:
        link, self._link = self._link, None
        if link is not None:  # lost, but a signal's exception interrupted `_lost`
            link.close()
            error = ConnectionLost("the connection broke, and a signal interrupted the code that handles this")
            self._queue.fail(link.in_flight, error, sent=True)
        self._queue.drop_abandoned()
        if self._queue.waiting and self._queue.loop is not None:
            self._opener.start(self._queue.loop)

    def _opened(self, link: Link) -> None:
        self._queue.in_flight = link.in_flight
        # Not the link itself: a lost one would keep what it expected and received until the next dial.
        self._link, self._last_closed = link, link.when_closed
        self.failed_at = -math.inf

    def _dial_failed(self, error: MetacacheError, began: float) -> None:
        """Fail all waiting requests: a dial that started at *began* failed with *error*."""
        self.failed_at = monotonic()
        self.on_dial_failed(error, began)
        self._queue.fail(self._queue.waiting, error, sent=False)
        self._queue.drop_abandoned()
        self._report(error)

    # --- failures ----------------------------------------------------------------------------------------------------

    def _lost(self, link: Link, error: MetacacheError) -> None:
        """Fail the requests in flight, except reads that met a stale link: they are sent once more."""
        link.add_tls_hint(error)
        was_used = link is self._link
        is_node_failure = bool(link.in_flight) or isinstance(error, ConnectError)
        is_local = isinstance(error, TransportError) and error.is_local
        # Clear ``in_flight`` only after its requests have failed: if a signal interrupts this, the timer finds them.
        if isinstance(error, ConnectionLost):
            again = self._queue.requeue_stale_reads(link.in_flight, link.dialled_at)
            if self._exchanges is not None:
                for pending in again:
                    self._exchanges.retried(verb_of(pending.work), error)
        self._queue.fail(link.in_flight, error, sent=not isinstance(error, ConnectError))
        link.in_flight.clear()
        self.counts.discarded[CloseReason.BROKEN if is_node_failure else CloseReason.STALE] += 1
        self._queue.drop_abandoned()
        if not was_used:
            return
        self._link = None
        self.in_flight = 0
        if isinstance(error, ConnectError):
            self._dial_failed(error, link.dialled_at)
        elif not link.has_sent and self._queue.waiting and not is_local:
            # The server closed it before a request was sent. To dial again would be a loop.
            why = error.message if isinstance(error, ProtocolError) else CLOSED_IMMEDIATELY
            self._dial_failed(ConnectError(why), link.dialled_at)
        else:
            self._flush_soon()
            if is_node_failure:
                self._report(error)

    def _report(self, error: MetacacheError) -> None:
        try:
            self._on_failure(error)
        except Exception as failure:
            if is_from_handler(failure):
                raise
            logger.exception("on_failure of the connection to %s raised an exception; it is ignored", self.node)
