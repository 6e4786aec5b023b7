"""A batch under an event loop: windows asked for one after the other, a few of them unanswered at a time.

Knows how a batch is cut and what becomes of a window that fails; what asks for a window is its connection's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from operator import attrgetter
from typing import Final, final

from metacache.errors import ClosedError, ConnectError, MetacacheError
from metacache.interrupts import is_own
from metacache.protocol.windows import Replies, Window
from metacache.transports.aio.pending import BatchWindow, PendingReply, unsent, weight_of
from metacache.transports.base import Batch
from metacache.transports.batch_windows import Windows, fail_rest

__all__ = ["BatchUnderWay", "complete"]

# Windows of one batch that may be unanswered: a larger batch writes on as its replies come.
MAX_WINDOWS: Final = 4

_replies_of = attrgetter("replies")


@final
class BatchUnderWay:
    """A batch whose first windows are asked for when it is made; *join* puts the place of a window in the line.

    So a connection that is closed knows of it, and lets it finish.
    """

    __slots__ = ("_batch", "_cuts", "_join", "_windows")

    def __init__(self, batch: Batch, join: Callable[[PendingReply[Replies]], None], *, is_tls: bool) -> None:
        self._batch = batch
        self._join = join
        self._cuts = Windows(batch, is_tls=is_tls)
        self._windows: deque[tuple[int, int, PendingReply[Replies]]] = deque()
        self._ask()

    def _ask(self) -> None:
        """Ask for further windows, as far as these may be unanswered."""
        while len(self._windows) < MAX_WINDOWS and not self._cuts.is_done:
            start, stop = self._cuts.cut()
            place: PendingReply[Replies] = PendingReply()
            place.work, place.plain, place.read = BatchWindow(self._batch, start, stop), None, _replies_of
            self._join(place)
            self._windows.append((start, stop, place))

    async def replies(self) -> Replies:
        """Return a reply or an error for each request.

        After a failure of the connection the requests that were not asked for yet have that error too, and nothing of
        them was sent.
        """
        replies = Replies(len(self._batch))
        windows = self._windows
        try:
            while windows:
                start, stop, place = windows[0]
                try:
                    replies.fill(start, await place)
                except ClosedError:
                    raise
                except MetacacheError as error:
                    if not is_own(error):
                        raise
                    replies.errors.update(dict.fromkeys(range(start, stop), error))
                    replies.errors.update(dict.fromkeys(self._cuts.give_up(), unsent(error)))
                windows.popleft()
                self._ask()
        finally:
            for _, _, place in windows:
                place.abandon()
        return replies


def complete(answer: object, work: BatchWindow, failure: MetacacheError) -> None:
    """Give *failure* to what has no reply in a window that an error line cut short."""
    if not isinstance(answer, Window):
        return
    replies, count = answer.replies, weight_of(work)
    missing = count - len(replies.headers)
    replies.headers += [b""] * missing
    replies.values += [None] * missing
    is_unsent = work.batch.is_read or isinstance(failure, ConnectError)
    fail_rest(replies, failure, 0 if is_unsent else count)
