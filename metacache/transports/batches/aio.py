"""A batch under an event loop: windows asked for one after the other, a few of them unanswered at a time.

Knows how a batch is cut and what becomes of a window that fails; what asks for a window is its connection's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from operator import attrgetter
from typing import Final

from metacache.errors import ClosedError, MetacacheError
from metacache.interrupts import is_own
from metacache.protocol.windows import Replies
from metacache.transports import Batch
from metacache.transports.exchange import Windows
from metacache.transports.waiting.aio import BatchWindow, Place, unsent

__all__ = ["run_windows"]

# Windows of one batch that may be unanswered: a larger batch writes on as its replies come.
MAX_WINDOWS: Final = 4

_replies_of = attrgetter("replies")


async def run_windows(batch: Batch, join: Callable[[Place[Replies]], None], *, is_tls: bool) -> Replies:
    """Return a reply or an error for each request of *batch*; *join* puts the place of a window in the line.

    After a failure of the connection what was not asked for yet has that error too, and surely nothing of it was sent.
    """
    replies = Replies(len(batch))
    cuts = Windows(batch, is_tls=is_tls)
    windows: deque[tuple[int, int, Place[Replies]]] = deque()
    try:
        while windows or not cuts.is_done:
            while len(windows) < MAX_WINDOWS and not cuts.is_done:
                start, stop = cuts.cut()
                place: Place[Replies] = Place()
                place.work, place.plain, place.read = BatchWindow(batch, start, stop), None, _replies_of
                join(place)
                windows.append((start, stop, place))
            start, stop, place = windows[0]
            try:
                replies.fill(start, await place)
            except ClosedError:
                raise
            except MetacacheError as error:
                if not is_own(error):
                    raise
                replies.errors.update(dict.fromkeys(range(start, stop), error))
                replies.errors.update(dict.fromkeys(cuts.give_up(), unsent(error)))
            windows.popleft()
    finally:
        for _, _, place in windows:
            place.abandon()
    return replies
