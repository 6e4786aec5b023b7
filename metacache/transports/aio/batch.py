"""A batch under an event loop: its windows are sent one after the other, with at most `MAX_WINDOWS` unanswered.

It also decides which error each request of a failed window gets. It does no I/O: the connection queues each window.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Generator
from operator import attrgetter
from typing import Final, final

from metacache.errors import ClosedError, ConnectError, MetacacheError
from metacache.interrupts import is_own
from metacache.protocol.windows import Replies, Window
from metacache.transports.aio.pending import BatchWindow, PendingReply, new_pending, unsent, weight_of
from metacache.transports.base import Batch
from metacache.transports.batch_windows import Windows, fail_rest

__all__ = ["RunningBatch", "WhenAwaited", "fail_missing"]

# Windows of one batch that may be unanswered. Further windows are queued as replies arrive.
MAX_WINDOWS: Final = 4

_replies_of = attrgetter("replies")


@final
class WhenAwaited:
    """Awaits the coroutine that *start* makes.

    A batch is queued before it is awaited. Its caller may be cancelled in between, and Python warns of a coroutine that
    is never awaited. So the coroutine is made as late as possible.
    """

    __slots__ = ("_start",)

    def __init__(self, start: Callable[[], Coroutine[object, None, Replies]]) -> None:
        self._start = start

    def __await__(self) -> Generator[object, None, Replies]:
        return self._start().__await__()


@final
class RunningBatch:
    """A batch that has started: *enqueue* puts the pending reply of a window into the connection's request queue.

    The first windows are queued on construction, so a connection that is closed meanwhile knows them and finishes them.
    """

    __slots__ = ("_batch", "_cutter", "_enqueue", "_windows")

    def __init__(self, batch: Batch, enqueue: Callable[[PendingReply[Replies]], None], *, is_tls: bool) -> None:
        self._batch = batch
        self._enqueue = enqueue
        self._cutter = Windows(batch, is_tls=is_tls)
        self._windows: deque[tuple[int, int, PendingReply[Replies]]] = deque()
        self._enqueue_windows()

    def _enqueue_windows(self) -> None:
        """Queue further windows, up to the number that may be unanswered."""
        while len(self._windows) < MAX_WINDOWS and not self._cutter.is_done:
            start, stop = self._cutter.cut()
            pending: PendingReply[Replies] = new_pending()
            pending.work, pending.plain, pending.read = BatchWindow(self._batch, start, stop), None, _replies_of
            self._enqueue(pending)
            self._windows.append((start, stop, pending))

    async def replies(self) -> Replies:
        """Return a reply or an error for each request.

        After a failure of the connection, requests that are not queued yet get the same error. They were not sent.
        """
        replies = Replies(len(self._batch))
        windows = self._windows
        try:
            while windows:
                start, stop, pending = windows[0]
                try:
                    replies.fill(start, await pending)
                except ClosedError:
                    raise
                except MetacacheError as error:
                    if not is_own(error):
                        raise
                    # Its traceback has this frame, which refers to the replies. Without it, reference counting frees
                    # the requests of a failed batch, and not the garbage collector much later.
                    replies.errors.update(dict.fromkeys(range(start, stop), error.with_traceback(None)))
                    replies.errors.update(dict.fromkeys(self._cutter.skip_rest(), unsent(error)))
                windows.popleft()
                self._enqueue_windows()
        finally:
            for _, _, pending in windows:
                pending.abandon()
        return replies


def fail_missing(answer: object, work: BatchWindow, failure: MetacacheError) -> None:
    """Give *failure* to the requests that have no reply because an error line ended the window early."""
    if not isinstance(answer, Window):
        return
    replies, count = answer.replies, weight_of(work)
    missing = count - len(replies.headers)
    replies.headers += [b""] * missing
    replies.values += [None] * missing
    is_unsent = work.batch.is_read or isinstance(failure, ConnectError)
    fail_rest(replies, failure, 0 if is_unsent else count)
