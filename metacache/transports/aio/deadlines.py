"""Ends the requests of one connection whose deadline is over, and closes its link when nothing moves on it.

Knows the line of the connection and its link; moves no bytes and dials nothing. One event loop runs it.
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
    """See the module.

    Args:
        line: the places of the connection.
        timeout: seconds of silence after which the link is closed.
        link_now: returns the link, None when there is none.
        checked: called after each check, which may have lost the link or made room.

    ``alarm`` is set for the earliest moment at which there is something to do.
    """

    __slots__ = ("_checked", "_line", "_link_now", "_timeout", "alarm")

    def __init__(
        self, line: RequestQueue, timeout: float, link_now: Callable[[], Link | None], checked: Callable[[], None]
    ) -> None:
        self._line = line
        self._timeout = timeout
        self._link_now = link_now
        self._checked = checked
        self.alarm = DeadlineTimer(self._ring)

    def _ring(self, now: float, late: float) -> None:
        """End what is past its deadline. The alarm calls it again when a signal's exception comes out of it.

        *late*: the seconds by which this comes too late, for the loop was held up.
        """
        link = self._link_now()
        if link is not None:
            self._check(link, now)
        self._expire(link, now, late)
        self._line.wake_lost()
        self._set_alarm(now)
        self._checked()

    def _check(self, link: Link, now: float) -> None:
        """Close *link* when nothing is received, or when a request that was given up blocks it."""
        if link.is_broken and not link.is_lost:
            link.lose(interrupted())
        elif link.is_silent(now, self._timeout):
            why = f"nothing was received for {self._timeout} seconds while requests waited; the connection is closed"
            link.lose(OperationTimeout(why))
        elif now >= link.clogged_until + self._timeout:
            why = f"a large request that its caller gave up was not written within {self._timeout} seconds more"
            clogged = ConnectionLost(f"{why}; the connection is closed")
            clogged.is_local = True
            link.lose(clogged)

    def _expire(self, link: Link | None, now: float, late: float) -> None:
        """Fail the requests past their deadlines: those waiting leave, those in flight abandon their places."""
        line = self._line
        unsent = [place for place in line.waiting if place.deadline <= now]
        if unsent:
            line.fail(unsent, late_request(None if link is None else link.requests, late), sent=False)
            line.drop_abandoned()
        in_flight = () if link is None else link.in_flight
        sent = [place for place in (*in_flight, *line.awaited) if place.deadline <= now]
        if sent:
            error = late_reply(late)
            if link is not None:
                link.advise(error)
            line.fail(sent, error, sent=True)

    def _set_alarm(self, now: float) -> None:
        line, link = self._line, self._link_now()
        moments = [place.deadline for place in (*line.undone, *line.awaited) if place.answer is None]
        if link is not None and link.in_flight:
            moments += link.heard + self._timeout, link.clogged_until + self._timeout
        if moments and line.loop is not None:
            self.alarm.set(line.loop, min(moments), now)
