"""Places: what tasks wait for on a shared connection, each a future with the work that is to fulfil it.

Knows futures, work, and a loop that was held up; knows no socket.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple, TypeAlias

from metacache.errors import MetacacheError
from metacache.transports import Batch, Operation

__all__ = ["GRACE", "BatchWindow", "Place", "Work", "fail_places", "is_stale_read", "patience", "unsent", "weight_of"]

# Seconds in which a loop that was held up reads what has arrived. Not 0: uvloop would not read in between.
GRACE: Final = 0.001


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

The future gets what the operation reads in its reply, or the window of a batch with its replies; one that is done was
abandoned, and its reply is dropped. A place that was sent a second time was asked for at minus infinity. A plain tuple:
one is made per request.
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
            if type(work) is Operation:  # whoever asked for a window says so himself
                own.locate(operation=work.verb.name, key=work.given)
            future.set_exception(own)


def unsent(error: MetacacheError) -> MetacacheError:
    """Return *error* for requests of which surely no byte was sent."""
    own = copy.copy(error)
    own.__cause__ = error.__cause__
    own.maybe_applied = False
    return own
