"""Ends the requests of one connection that are past their deadlines, and closes its link when nothing arrives on it.

Reads the connection's request queue and its link; writes no request and does not dial. One event loop runs it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from metacache.errors import ConnectionLost, OperationTimeout
from metacache.transports.aio.link import Link
from metacache.transports.aio.pending import RequestQueue
from metacache.transports.aio.timing import DeadlineTimer
from metacache.transports.timeouts import interrupted, late_reply, late_request

__all__ = ["Deadlines"]


@final
class Deadlines:
    """Checks the deadlines of one connection whenever the earliest one passes.

    Args:
        queue: the pending replies of the connection.
        timeout: seconds of silence after which the link is closed.
        link_now: returns the current link, None when there is none.
        after_check: called after each check, which may have closed the link or made room in it.

    ``timer`` is set for the earliest time at which there is something to check.
    """

    __slots__ = ("_after_check", "_link_now", "_queue", "_timeout", "timer")

    def __init__(
        self, queue: RequestQueue, timeout: float, link_now: Callable[[], Link | None], after_check: Callable[[], None]
    ) -> None:
        self._queue = queue
        self._timeout = timeout
        self._link_now = link_now
        self._after_check = after_check
        self.timer = DeadlineTimer(self._check)

    def _check(self, now: float, late: float) -> None:
        """End what is past its deadline. The timer calls it again if a signal's exception interrupts it.

        *late*: by how many seconds this call is late because the event loop was blocked.
        """
        link = self._link_now()
        if link is not None:
            self._check_link(link, now)
        self._expire(link, now, late)
        self._queue.wake_missed()
        self._set_timer(now)
        self._after_check()

    def _check_link(self, link: Link, now: float) -> None:
        """Close *link* when nothing arrives on it, or when an abandoned request blocks it."""
        if link.is_broken and not link.is_lost:
            link.lose(interrupted())
        elif link.is_silent(now, self._timeout):
            why = f"nothing was received for {self._timeout} seconds while requests waited; the connection is closed"
            link.lose(OperationTimeout(why))
        elif now >= link.stuck_until + self._timeout:
            why = f"a large request that its caller gave up was not written within {self._timeout} seconds more"
            stuck = ConnectionLost(f"{why}; the connection is closed")
            stuck.is_local = True
            link.lose(stuck)

    def _expire(self, link: Link | None, now: float, late: float) -> None:
        """Fail the requests past their deadlines: unsent ones leave the queue, replies to the others are dropped."""
        queue = self._queue
        unsent = [pending for pending in queue.waiting if pending.deadline <= now]
        if unsent:
            queue.fail(unsent, late_request(None if link is None else link.requests, late), sent=False)
            queue.drop_abandoned()
        in_flight = () if link is None else link.in_flight
        sent = [pending for pending in (*in_flight, *queue.awaited) if pending.deadline <= now]
        if sent:
            error = late_reply(late)
            if link is not None:
                link.add_tls_hint(error)
            queue.fail(sent, error, sent=True)

    def _set_timer(self, now: float) -> None:
        queue, link = self._queue, self._link_now()
        times = [pending.deadline for pending in (*queue.unanswered, *queue.awaited) if pending.answer is None]
        if link is not None and link.in_flight:
            times += link.active_at + self._timeout, link.stuck_until + self._timeout
        if times and queue.loop is not None:
            self.timer.set(queue.loop, min(times), now)
