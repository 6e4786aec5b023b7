"""`AsyncConnection`: one connection shared by all the tasks of an event loop, as a transport.

Keeps who waits, dials when needed, ends what is past its deadline and asks once more for reads that were lost with a
stale link. Moves no bytes: `Link` does. It changes over time; what guards it is that one event loop runs it.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, final

from typing_extensions import override

from metacache.copying import refuse_copy
from metacache.errors import ClosedError, ConnectError, ConnectionLost, MetacacheError, ProtocolError, TransportError
from metacache.interrupts import is_from_handler
from metacache.nodes import Node, check_node
from metacache.protocol.windows import Replies
from metacache.settings import Settings, check_settings
from metacache.transports.aio.batch import BatchUnderWay
from metacache.transports.aio.deadlines import Deadlines
from metacache.transports.aio.link import Link
from metacache.transports.aio.loops import is_running_here, running_loop
from metacache.transports.aio.opening import CLOSED_AT_ONCE, LinkOpener
from metacache.transports.aio.pending import PendingReply, RequestQueue, fail_places
from metacache.transports.base import Operation
from metacache.transports.counters import CloseReason, IdleTimes, SocketCounts
from metacache.transports.limits import check_bodies, too_large
from metacache.transports.timeouts import had_no_time

if TYPE_CHECKING:
    from types import TracebackType

    from metacache.transports.base import Batch

__all__ = ["AsyncConnection"]

logger = logging.getLogger("metacache.transports")

R = TypeVar("R")
DEFAULTS: Final = Settings()

_CLOSED: Final = "the connection was closed"

# Seconds after which a flush that was expected, and did not come, is made up for.
CHECK: Final = 0.02


def _nobody(*_: object) -> None:
    """Stand in for whoever wants to know."""


@final
class AsyncConnection:
    """One connection to one node, shared by any number of tasks of one event loop; dialled when needed.

    Requests leave together once an event-loop turn, and their replies come back in order. A task that is cancelled, or
    late, abandons its place: its reply is dropped, and no other task notices. When requests wait and nothing is
    received for ``Settings.timeout`` seconds, the connection is closed and fails all that wait on it.

    Args:
        node: the server.
        settings: timeouts, TLS, credentials, limits.
        on_failure: called once for each failed dial and each connection that broke, however many requests that failed.

    ``in_flight`` is how many requests were written and have no reply yet; ``tally`` counts its sockets. ``failed_at``:
    when it could not be dialled, minus infinity when it could; ``on_unreachable`` is called then with the error, which
    it may mark as local, and the time when the dial began. ``waits`` counts the requests that had to wait.
    """

    __reduce_ex__ = refuse_copy
    __slots__ = (
        "__weakref__",
        "_alarm",
        "_closed",
        "_dialler",
        "_flushing",
        "_latest",
        "_line",
        "_link",
        "_max_body",
        "_next_check",
        "_on_failure",
        "_settings",
        "_timeout",
        "failed_at",
        "in_flight",
        "node",
        "on_unreachable",
        "tally",
        "waits",
    )

    def __init__(
        self, node: Node, *, settings: Settings = DEFAULTS, on_failure: Callable[[MetacacheError], object] = _nobody
    ) -> None:
        check_node(node)
        check_settings(settings)
        self.node = node
        self.tally = SocketCounts()
        self.in_flight = 0
        self.failed_at = -math.inf
        self.on_unreachable: Callable[[MetacacheError, float], object] = _nobody
        self._settings = settings
        self._timeout = settings.timeout
        self._max_body = settings.max_value_size
        self._on_failure = on_failure
        self._line = RequestQueue(node)
        self.waits = self._line.waits
        make = partial(Link, settings, self._answered, self._has_room, self._lost)
        hooks = (self._opened, self._unreachable, self._flush_soon)
        self._dialler = LinkOpener(self._line, settings, self.tally, make, *hooks)
        self._link: Link | None = None
        self._latest: Link | None = None
        self._flushing = False
        self._next_check = -math.inf
        self._alarm = Deadlines(self._line, settings.timeout, lambda: self._link, self._checked).alarm
        self._closed = False

    @override
    def __repr__(self) -> str:
        link = self._link
        state = "closed" if self._closed else "not connected" if link is None else f"{link.requests} in flight"
        return f"<AsyncConnection {self.node.name}: {state}, {len(self._line.waiting)} waiting>"

    @property
    def waiting(self) -> int:
        """How many callers' requests are not yet written."""
        return len(self._line.waiting)

    @property
    def load(self) -> int:
        """How many requests are in flight or wait to be written, those of one batch window counted as one."""
        return self.in_flight + len(self._line.waiting)

    @property
    def age(self) -> IdleTimes | None:
        """When it was dialled and last used; None when it is not connected, or in use."""
        return None if self._link is None or self.load else IdleTimes(self._link.dialled, self._link.heard)

    # --- the transport -----------------------------------------------------------------------------------------------

    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> Awaitable[R]:
        """Send *op* in this turn of the loop; awaited, return what ``op.read`` makes of its reply.

        *deadline*: a ``time.monotonic()`` time; None: ``Settings.timeout`` from now.

        Raises ClosedError, PoolTimeout (too many requests were in flight until the deadline), ValueTooLargeError and
        ConnectError before anything is sent; ConnectionLost, OperationTimeout and ProtocolError, which tell by
        ``maybe_applied`` whether a write may have been done; ServerError and ClientError. After OperationTimeout, as
        after a cancellation, the connection lives on.
        """
        body = op.body
        try:
            if body is not None and self._max_body is not None and len(body) > self._max_body:
                raise too_large(len(body), self._max_body)
            if self._closed:
                raise ClosedError(_CLOSED)
            place: PendingReply[R] = PendingReply()
            place.work = op
            place.plain = op if op.verb.command.echoes else None
            place.read = op.read
            self._join(place, deadline)
            return place
        except MetacacheError as error:
            error.locate(node=self.node.name, operation=op.verb.name, key=op.given)
            raise

    def run_batch(self, batch: Batch, /, *, deadline: float) -> Awaitable[Replies]:
        """Send *batch* in windows, the first in this turn of the loop; awaited, return a reply or an error for each.

        *deadline* as in `run`; ``math.inf``: ``Settings.timeout`` from now. Raises ClosedError and ValueTooLargeError;
        all else that goes wrong is in the outcomes.
        """
        if self._closed:
            raise ClosedError(_CLOSED, node=self.node.name, operation=batch.verb.name)
        check_bodies(batch, self._settings.max_value_size)
        deadline = monotonic() + self._settings.timeout if deadline == math.inf else deadline
        join = partial(self._join, deadline=deadline)
        return self._finish(batch, BatchUnderWay(batch, join, is_tls=self._settings.tls is not None))

    async def _finish(self, batch: Batch, under_way: BatchUnderWay) -> Replies:
        replies = await under_way.replies()
        for failure in replies.errors.values():
            failure.locate(node=self.node.name, operation=batch.verb.name)
        return replies

    async def aclose(self) -> None:
        """Close: running requests finish, new ones are refused with ClosedError. Idempotent.

        Where its event loop does not run, the connection is dropped: running requests get a ClosedError.
        """
        self._closed = True
        loop = self._line.loop
        if loop is not None and not is_running_here(loop):
            if loop.is_running():
                loop.call_soon_threadsafe(self.drop)
            else:
                self.drop()
            return
        await self._line.drain(self._timeout)
        self._alarm.cancel()
        await self._dialler.aclose()
        self._link = None
        if self._latest is not None:
            self._latest.close()
            await self._latest.when_closed  # also of one that was lost, or discarded, just before

    def drop(self) -> None:
        """Close without waiting, in a callback of its loop, or where that does not run."""
        self._closed = True
        loop, link = self._line.loop, self._link
        if loop is None:
            return
        error = ClosedError("the connection was closed by another event loop", node=self.node.name)
        self._alarm.cancel()
        if not loop.is_closed():
            self._dialler.cancel()
            self._line.fail(self._line.waiting, error, sent=False)
        if link is not None:
            link.drop(error)
        self._line.drop_abandoned()
        self._link = None
        self.in_flight = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self.aclose()

    def discard(self, cause: CloseReason) -> None:
        """Close the socket if nobody uses it, and count that as *cause*. The next operation dials anew."""
        link = self._link
        if link is not None and not self.load:
            self._link = None
            self.tally.discarded[cause] += 1
            link.close()

    # --- asking ------------------------------------------------------------------------------------------------------

    def _join(self, place: PendingReply[Any], deadline: float | None) -> None:  # Any: whatever it waits for
        """Put *place* in the line, to be written in this turn of the loop."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = running_loop()  # raises an error that says more
        line = self._line
        if loop is not line.loop:
            line.adopt(loop)
        now = monotonic()
        tick_at = now + self._timeout  # when the link is silent for too long, if not later
        if deadline is None:
            deadline = tick_at
        elif deadline < tick_at:
            tick_at = deadline
        place.line = line
        place.deadline = deadline
        place.asked = now
        place.answer = place.waiter = None
        # An alarm that is overdue may be lost to a signal's exception.
        if not now <= self._alarm.at <= tick_at:
            if deadline <= now:
                fail_places((place,), had_no_time(), sent=False)
                return
            self._alarm.set(loop, tick_at, now)
        line.waiting.append(place)
        if not self._flushing:
            self._flushing = True
            loop.call_soon(self._flush)
        elif now >= self._next_check:
            # A flush is expected, and usually comes. It does not when a nested loop runs in a task that is being woken,
            # or when a signal's exception hit it.
            self._next_check = now + CHECK
            loop.call_later(CHECK, self._flush)

    def _flush(self) -> None:
        self._flushing = False
        line, link = self._line, self._link
        if line.answered:  # a nested loop runs in a task that is being woken, or a signal's exception came
            line.wake()
        if link is None or link.is_lost:
            self._dial_if_needed()
            return
        if not line.waiting:  # `_answered` has written them
            return
        before = len(line.waiting)
        link.write(line.waiting)
        self.in_flight = link.requests
        if not line.waiting and not line.waits.held:  # nearly always
            return
        left = len(line.waiting)
        line.waits.update(monotonic(), taken=before - left, left=left, is_full=link.is_full)
        if link.has_room:
            self._flush_soon()
        else:
            line.thin_out()

    def _checked(self) -> None:
        """Go on after a check of the deadlines; a signal's exception may have hit a flush."""
        self._flushing = False
        if self._line.waiting:
            self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flushing and self._line.loop is not None:
            self._flushing = True
            self._line.loop.call_soon(self._flush)

    def _has_room(self, link: Link) -> None:
        if link is self._link and self._line.waiting:
            self._flush_soon()

    def _answered(self, link: Link, places: Sequence[PendingReply[Any]]) -> None:  # Any: as in `_join`
        """Wake the tasks that wait in *places*, and write their next requests immediately."""
        if link is self._link:
            self.in_flight = link.requests
        was_flushing, self._flushing = self._flushing, True
        self._line.answered.extend(places)
        self._line.wake()
        self._flushing = was_flushing
        if self._closed:
            self._line.look_who_is_left()
        if self._line.waiting and not was_flushing:
            self._flush()

    # --- dialling ----------------------------------------------------------------------------------------------------

    def _dial_if_needed(self) -> None:
        link, self._link = self._link, None
        if link is not None:  # a signal's exception came while it was lost
            link.close()
            self._line.fail(link.in_flight, ConnectionLost("the connection broke, and was left so"), sent=True)
        self._line.drop_abandoned()
        if self._line.waiting and self._line.loop is not None:
            self._dialler.start(self._line.loop)

    def _opened(self, link: Link) -> None:
        self._line.in_flight = link.in_flight
        self._link = self._latest = link
        self.failed_at = -math.inf

    def _unreachable(self, error: MetacacheError, began: float) -> None:
        """Fail all that wait, for there is no connection: a dial that *began* then failed with *error*."""
        self.failed_at = monotonic()
        self.on_unreachable(error, began)
        self._line.fail(self._line.waiting, error, sent=False)
        self._line.drop_abandoned()
        self._tell(error)

    # --- what goes wrong ---------------------------------------------------------------------------------------------

    def _lost(self, link: Link, error: MetacacheError) -> None:
        """Fail what was in flight, but for reads that found the link stale: they are asked once more."""
        link.advise(error)
        was_used = link is self._link
        is_node_failure = bool(link.in_flight) or isinstance(error, ConnectError)
        is_local = isinstance(error, TransportError) and error.is_local
        # Those in flight stay where a timer finds them until they are failed: a signal's exception may come anywhere.
        if isinstance(error, ConnectionLost):
            self._line.ask_again(link.in_flight, link.dialled)
        self._line.fail(link.in_flight, error, sent=not isinstance(error, ConnectError))
        link.in_flight.clear()
        self.tally.discarded[CloseReason.BROKEN if is_node_failure else CloseReason.STALE] += 1
        self._line.drop_abandoned()
        if not was_used:
            return
        self._link = None
        self.in_flight = 0
        if isinstance(error, ConnectError):
            self._unreachable(error, link.dialled)
        elif not link.was_asked and self._line.waiting and not is_local:
            # To dial on and on would be a storm.
            why = error.message if isinstance(error, ProtocolError) else CLOSED_AT_ONCE
            self._unreachable(ConnectError(why), link.dialled)
        else:
            self._flush_soon()
            if is_node_failure:
                self._tell(error)

    def _tell(self, error: MetacacheError) -> None:
        try:
            self._on_failure(error)
        except Exception as failure:
            if is_from_handler(failure):
                raise
            logger.exception("what is called when a connection failed has failed")
