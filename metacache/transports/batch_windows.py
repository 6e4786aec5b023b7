"""Cut a batch into windows, and give an error to each request that got no reply. Both kinds of connection use it."""

from __future__ import annotations

import copy
from operator import add
from typing import TYPE_CHECKING, Final, final

from metacache.acceleration import total_size
from metacache.errors import MetacacheError
from metacache.protocol.windows import Replies, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from metacache.protocol.connection import ProtocolConnection
    from metacache.transports.base import Batch

__all__ = ["MAX_REQUESTS", "MAX_WINDOW", "Windows", "build_window", "fail_rest", "failed_replies"]

MAX_REQUESTS: Final = 256  # in one window
MAX_WINDOW: Final = 65536  # bytes of several requests in one window
MAX_TLS_WINDOW: Final = 16384  # with more in one TLS write, the server waits although it has decrypted requests
MARGIN: Final = 20  # bytes per request for the opaque and two CRLFs
LONGEST_HEAD: Final = 320  # bytes: a key has at most 250, and no verb of a batch adds more than 70


@final
class Windows:
    """Cuts a batch into windows, in order: at most `MAX_REQUESTS` requests, and several only within the byte limit.

    ``next`` is the first request that is not in a window yet. ``is_done`` is True when every request is in a window.
    """

    __slots__ = ("_batch", "_count", "_limit", "_total", "is_done", "next")

    def __init__(self, batch: Batch, *, is_tls: bool) -> None:
        self._batch = batch
        self._limit = MAX_TLS_WINDOW if is_tls else MAX_WINDOW
        self._total = len(batch.heads)
        self._count = MAX_REQUESTS  # in the last window
        self.next = 0
        self.is_done = not self._total

    def cut(self) -> tuple[int, int]:
        """Return where the next window begins and ends."""
        start = self.next
        # Try twice the last count, then halve it until it fits. So no window is measured far beyond the limit.
        count = min(MAX_REQUESTS, 2 * self._count, self._total - start)
        if count > 1 and not self._fit(start, start + count):
            count = self._fitting(start, count)
        self._count = count
        self.next = start + count
        self.is_done = self.next == self._total
        return start, self.next

    def skip_rest(self) -> range:
        """Return the requests that are in no window yet, and cut no further window."""
        rest, self.next = range(self.next, self._total), self._total
        self.is_done = True
        return rest

    def _fit(self, start: int, stop: int) -> bool:
        """Return whether the requests from *start* to *stop* fit into a window."""
        bodies = self._batch.bodies
        room = self._limit - MARGIN * (stop - start)
        if bodies is not None:
            if len(bodies[start]) > room:
                return False  # do not join large bodies
            room -= _total(bodies, start, stop)
        # First by the longest heads that are possible, which costs nothing.
        return LONGEST_HEAD * (stop - start) <= room or _total(self._batch.heads, start, stop) <= room

    def _fitting(self, start: int, count: int) -> int:
        """Return how many of the *count* requests from *start* on fit into a window. Copies no body."""
        sizes = list(map(len, self._batch.heads[start : start + count]))
        if self._batch.bodies is not None:
            sizes = list(map(add, sizes, map(len, self._batch.bodies[start : start + count])))
        while count > 1 and sum(sizes[:count]) + MARGIN * count > self._limit:
            count //= 2
        return count


def _total(items: Sequence[bytes], start: int, stop: int) -> int:
    """Return the sum of the sizes. Joining small items is faster than adding up their sizes."""
    total = -1 if total_size is None else total_size(items, start, stop)
    return total if total >= 0 else len(b"".join(items[start:stop]))


def build_window(protocol: ProtocolConnection, batch: Batch, start: int, stop: int) -> tuple[bytes, Window]:
    """Return the bytes of one window of *batch* and the expectation of its replies. Sends nothing."""
    return protocol.send_window(batch.verb.command, batch.heads, batch.bodies, start, stop)


def fail_rest(replies: Replies, error: MetacacheError, sent: int) -> None:
    """Give *error* to every request without a reply. Those with an index below *sent* may have been applied."""
    applied = copy.copy(error)
    applied.maybe_applied = True
    for index, header in enumerate(replies.headers):
        if not header and index not in replies.errors:
            replies.errors[index] = applied if index < sent else error


def failed_replies(batch: Batch, error: MetacacheError) -> Replies:
    """Return *error* for each request of *batch*, of which nothing was sent."""
    replies = Replies(len(batch))
    fail_rest(replies, error.locate(operation=batch.verb.name), 0)
    return replies
