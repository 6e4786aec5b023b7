"""Time limits under an event loop: one timer for the earliest of many deadlines, and a limit for a block of code.

Both handle a loop that was blocked past the deadline: it reads what has arrived before anything times out. This module
knows no request and no socket.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Final, final

__all__ = ["DeadlineTimer", "time_limit"]

# Seconds that a loop which was blocked gets to read what has arrived. Not 0: uvloop would not read in between.
GRACE: Final = 0.001

# A signal handler may raise inside a timer's callback, and asyncio calls that timer no second time. So a deadline has
# several timers, INTERVAL seconds apart. The first callback that completes cancels the others.
ATTEMPTS: Final = 4
INTERVAL: Final = 0.01
_DELAYS: Final = tuple(INTERVAL * attempt for attempt in range(ATTEMPTS))


@final
class DeadlineTimer:
    """One timer for the earliest of many deadlines. A loop that was blocked first reads what has arrived.

    ``at`` is the time (``time.monotonic()``) for which it is set; infinity when it is not set. A time in the past means
    that the loop is late, or that a signal's exception interrupted the callback: set the timer again.

    Args:
        callback: called with the current time and with how late that is, in seconds. It sets the timer for the next
            deadline. If it raises, it is called again.
    """

    __slots__ = ("_callback", "_timers", "at")

    def __init__(self, callback: Callable[[float, float], None]) -> None:
        self._callback = callback
        self._timers: list[asyncio.TimerHandle] = []
        self.at = math.inf

    def set(self, loop: asyncio.AbstractEventLoop, at: float, now: float) -> None:
        """Set the timer for *at*. If it was set for another time in the future, it no longer is."""
        delay = max(at - now, 0.0)
        before, is_overdue = self._timers, self.at <= now
        self._timers = [loop.call_later(delay + more, self._expire, loop, at + more) for more in _DELAYS]
        self.at = at  # last: if a signal interrupts this method, ``at`` must not claim timers that do not exist
        if not is_overdue:  # an overdue timer still runs: it knows how late the loop is
            _cancel(before)

    def _expire(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        loop.call_later(GRACE, self._call, due)

    def _call(self, due: float) -> None:
        timers, now = self._timers, monotonic()
        self._callback(now, now - due - GRACE)
        _cancel(timers)
        if self._timers is timers:  # the callback set no next deadline
            self._timers, self.at = [], math.inf

    def cancel(self) -> None:
        """Cancel the timer."""
        _cancel(self._timers)
        self._timers, self.at = [], math.inf


def _cancel(timers: list[asyncio.TimerHandle]) -> None:
    for timer in timers:
        timer.cancel()


@final
class time_limit:  # noqa: N801 - reads as a phrase: async with time_limit(seconds)
    """Raise TimeoutError, with a message, when the code inside takes more than *seconds*.

    Like `asyncio.timeout`, with two differences. A loop that was blocked first reads what has arrived. And the error
    has arguments: asyncio's has none, so it looks like one that another thread injected (see `interrupts.is_own`).

    It is a class because a loop that shuts down complains about async generators that start then.
    """

    __slots__ = ("_seconds", "_timeout", "_timer")

    _timer: asyncio.TimerHandle

    def __init__(self, seconds: float) -> None:
        self._seconds = max(seconds, 0.0)
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._expire)

    def _expire(self) -> None:
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
