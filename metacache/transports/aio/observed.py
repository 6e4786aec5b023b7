"""The observed forms of what an `AsyncConnection` does. Reads the clock; does no I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TYPE_CHECKING, TypeVar, final

from metacache.transports.counters import WaitCounts
from metacache.transports.observed import KEEP_REPLY, Exchanges

if TYPE_CHECKING:
    from metacache.errors import MetacacheError
    from metacache.protocol.replies import Reply
    from metacache.protocol.windows import Replies
    from metacache.transports.aio.link import Link
    from metacache.transports.aio.pending import PendingReply
    from metacache.transports.base import Batch, Operation

__all__ = ["ObservedWaits", "observed_batch", "observed_hooks", "observed_reply"]

R = TypeVar("R")


async def observed_reply(pending: PendingReply[Reply], op: Operation[R], exchanges: Exchanges, began: float) -> R:
    """Await the reply of *op*, which began at that time; report the exchange, and then read the reply."""
    try:
        reply = await pending
    except BaseException as error:
        exchanges.failed(op, error, began, monotonic())
        raise
    ended = monotonic()
    read = op.read
    if read is KEEP_REPLY:  # then R is Answer
        return reply, exchanges, began, ended  # type: ignore[return-value]  # pyright: ignore[reportReturnType]
    exchanges.answered(op, reply, began, ended)
    try:
        return read(reply)
    except BaseException as error:
        exchanges.unreadable(op, error)
        raise


async def observed_batch(running: Awaitable[Replies], batch: Batch, exchanges: Exchanges, began: float) -> Replies:
    """Await the replies of *batch*, which began at that time, and report the exchange."""
    try:
        replies = await running
    except BaseException as error:
        exchanges.batch_failed(batch, error, began, monotonic())
        raise
    exchanges.batch_done(batch, replies, began, monotonic())
    return replies


def observed_hooks(
    opened: Callable[[Link], None], failed: Callable[[MetacacheError, float], None], exchanges: Exchanges
) -> tuple[Callable[[Link], None], Callable[[MetacacheError, float], None]]:
    """Return the callbacks of a dial, which also report it."""

    def observed_opened(link: Link) -> None:
        opened(link)
        exchanges.dialled(link.dialled_at, monotonic(), None)

    def observed_failed(error: MetacacheError, began: float) -> None:
        failed(error, began)
        exchanges.dialled(began, monotonic(), error)

    return observed_opened, observed_failed


@final
class ObservedWaits:
    """`WaitCounts` that also report each wait at its end. The requests of a queue are served in order."""

    __slots__ = ("_began", "_counts", "_exchanges")

    def __init__(self, counts: WaitCounts, exchanges: Exchanges) -> None:
        self._counts = counts
        self._exchanges = exchanges
        self._began: deque[float] = deque()  # when each of the waiting requests began to wait

    @property
    def count(self) -> int:
        """As in `WaitCounts`."""
        return self._counts.count

    @property
    def waiting(self) -> int:
        """As in `WaitCounts`."""
        return self._counts.waiting

    def seconds(self, now: float) -> float:
        """As in `WaitCounts`."""
        return self._counts.seconds(now)

    def update(self, now: float, *, taken: int, left: int, is_full: bool) -> None:
        """As in `WaitCounts`; report the waits that ended because their requests were sent."""
        served = min(self._counts.waiting, taken)
        self._counts.update(now, taken=taken, left=left, is_full=is_full)
        self._end(served, now, is_served=True)
        self._follow(now)

    def set_waiting(self, count: int, now: float) -> None:
        """As in `WaitCounts`; report the waits that ended because their requests were given up."""
        self._counts.set_waiting(count, now)
        self._end(len(self._began) - count, now, is_served=False)
        self._follow(now)

    def _end(self, number: int, now: float, *, is_served: bool) -> None:
        for _ in range(min(number, len(self._began))):
            self._exchanges.waited(self._began.popleft(), now, is_served=is_served)

    def _follow(self, now: float) -> None:
        """Remember when the requests began to wait that are counted as waiting since now."""
        self._began.extend([now] * (self._counts.waiting - len(self._began)))
        while len(self._began) > self._counts.waiting:
            self._began.pop()
