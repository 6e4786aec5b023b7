"""Places: what tasks wait for on a shared connection, each a future with the work that is to fulfil it.

Knows futures, work, and a loop that was held up; knows no socket.
"""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any, Final, NamedTuple, TypeAlias, final

from metacache.errors import MetacacheError
from metacache.transports import Batch, Operation

__all__ = ["Alarm", "BatchWindow", "Place", "Work", "fail_places", "is_stale_read", "patience", "unsent", "weight_of"]

# Seconds in which a loop that was held up reads what has arrived. Not 0: uvloop would not read in between.
GRACE: Final = 0.001


@final
class Alarm:
    """One timer for the earliest of many moments; of a loop that was held up it sees first what has arrived.

    ``at`` is the moment (``time.monotonic()``) it is set for, infinity when for none. *ring* is called with the time
    now and how late that is, in seconds; then it is set for none.
    """

    __slots__ = ("_ring", "_timer", "at")

    def __init__(self, ring: Callable[[float, float], None]) -> None:
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None
        self.at = math.inf

    def set(self, loop: asyncio.AbstractEventLoop, at: float, now: float) -> None:
        """Set it for *at*, and no longer for another moment."""
        self.cancel()
        self.at = at
        self._timer = loop.call_later(max(at - now, 0.0), self._wait, loop)

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(GRACE, self._go_off)

    def _go_off(self) -> None:
        now = monotonic()
        late = now - self.at - GRACE
        self._timer, self.at = None, math.inf
        self._ring(now, late)

    def cancel(self) -> None:
        """Set it for no moment."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self.at = None, math.inf


@asynccontextmanager
async def patience(seconds: float) -> AsyncGenerator[None]:
    """Raise TimeoutError when what is inside takes more than so many *seconds*.

    As `asyncio.timeout`, but what had happened by then is seen first, when the loop was held up.
    """
    async with asyncio.timeout(None) as timeout:
        loop = asyncio.get_running_loop()
        timer = loop.call_later(max(seconds, 0.0), lambda: timeout.reschedule(loop.time() + GRACE))
        try:
            yield
        finally:
            timer.cancel()


class BatchWindow(NamedTuple):
    """The requests of a batch from *start* to *stop*, which go out together."""

    batch: Batch
    start: int
    stop: int


Work: TypeAlias = Operation[Any] | BatchWindow  # Any: whatever it is, its reader knows

Place: TypeAlias = tuple["asyncio.Future[Any]", Work, float, float]  # Any: what its reader makes of the answer
"""A request's place in the queue: (future, work, deadline, when it was asked for).

The future gets the answer, or the window of a batch with its replies; one that is done was abandoned, and its reply is
dropped. A place that was sent a second time was asked for at minus infinity. A plain tuple: one is made per request.
"""


def weight_of(work: Work) -> int:
    """Return how many requests *work* is."""
    return work.stop - work.start if type(work) is BatchWindow else 1


def is_read(work: Work) -> bool:
    """Tell whether sending *work* twice changes nothing."""
    return work.batch.is_read if isinstance(work, BatchWindow) else work.is_read


def is_stale_read(place: Place, dialled: float) -> bool:
    """Tell whether *place* is a read that found its connection stale: one *dialled* before it was asked for."""
    future, work, _, asked = place
    return not future.done() and is_read(work) and dialled < asked


def fail_places(places: Iterable[Place], error: MetacacheError, *, sent: bool) -> None:
    """Give those who still wait in *places* an error of their own; *sent*: a write may have been applied."""
    for future, work, _, _ in places:
        if not future.done():
            own = unsent(error)
            own.maybe_applied = sent and not is_read(work)
            future.set_exception(own)


def unsent(error: MetacacheError) -> MetacacheError:
    """Return *error* for requests of which surely no byte was sent."""
    own = copy.copy(error)
    own.__cause__ = error.__cause__
    own.maybe_applied = False
    return own
