"""Moments under an event loop: a timer for the earliest of many deadlines, and a time limit for a block of code.

Knows clocks and a loop that was held up; knows no request and no socket.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Final, final

__all__ = ["DeadlineTimer", "patience"]

# Seconds in which a loop that was held up reads what has arrived. Not 0: uvloop would not read in between.
GRACE: Final = 0.001

# A signal's handler may raise in a callback of a timer, and asyncio calls that one no more. So an alarm is several
# timers, this many seconds apart; the first that goes through cancels the others.
RINGS: Final = 4
AGAIN: Final = 0.01
_WAITS: Final = tuple(AGAIN * ring for ring in range(RINGS))


@final
class DeadlineTimer:
    """One timer for the earliest of many moments. A loop that was held up first reads what has arrived.

    ``at`` is the moment (``time.monotonic()``) it is set for, infinity when it is not set. A moment in the past means
    that the loop is late, or that a signal's exception hit the alarm: set it once more.

    Args:
        ring: called with the time now and how late that is, in seconds. It sets the alarm for the next moment. If it
            raises, it is called again.
    """

    __slots__ = ("_ring", "_timers", "at")

    def __init__(self, ring: Callable[[float, float], None]) -> None:
        self._ring = ring
        self._timers: list[asyncio.TimerHandle] = []
        self.at = math.inf

    def set(self, loop: asyncio.AbstractEventLoop, at: float, now: float) -> None:
        """Set it for *at*, and no longer for another moment in the future."""
        delay = max(at - now, 0.0)
        before, is_overdue = self._timers, self.at <= now
        self._timers = [loop.call_later(delay + wait, self._wait, loop, at + wait) for wait in _WAITS]
        self.at = at  # last: an alarm that says it is set must have its timers
        if not is_overdue:  # an overdue one knows how late the loop is
            _cancel(before)

    def _wait(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        loop.call_later(GRACE, self._go_off, due)

    def _go_off(self, due: float) -> None:
        rings, now = self._timers, monotonic()
        self._ring(now, now - due - GRACE)
        _cancel(rings)
        if self._timers is rings:
            self._timers, self.at = [], math.inf

    def cancel(self) -> None:
        """Set it for no moment."""
        _cancel(self._timers)
        self._timers, self.at = [], math.inf


def _cancel(timers: list[asyncio.TimerHandle]) -> None:
    for timer in timers:
        timer.cancel()


@final
class patience:  # noqa: N801 - reads as a phrase: async with patience(seconds)
    """Raise TimeoutError, with a message, when the code inside takes more than *seconds*.

    As `asyncio.timeout`, but a loop that was held up first sees what has arrived. The TimeoutError of asyncio has no
    arguments, and looks like one that another thread injected; this one does not (`interrupts.is_own`). No async
    generator: a loop that ends complains of those that begin then.
    """

    __slots__ = ("_seconds", "_timeout", "_timer")

    _timer: asyncio.TimerHandle

    def __init__(self, seconds: float) -> None:
        self._seconds = max(seconds, 0.0)
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._end_soon)

    def _end_soon(self) -> None:
        self._timeout.reschedule(asyncio.get_running_loop().time() + GRACE)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._timer.cancel()
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError as late:
            if late.args or not isinstance(late.__cause__, asyncio.CancelledError):
                raise
            raise TimeoutError(f"it took longer than {self._seconds:.3f} seconds") from late
