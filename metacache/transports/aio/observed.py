"""The observed forms of what an `AsyncConnection` does. Reads the clock; does no I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TYPE_CHECKING, Protocol, TypeVar, final

from metacache.transports.counters import WaitCounts
from metacache.transports.observed import KEEP_REPLY, Exchanges

if TYPE_CHECKING:
    from metacache.errors import MetacacheError
    from metacache.protocol.replies import Reply
    from metacache.protocol.windows import Replies
    from metacache.transports.aio.link import Link
    from metacache.transports.base import Batch, Operation

__all__ = ["AsyncRun", "AsyncRunBatch", "ObservedWaits", "observed_hooks", "observed_run", "observed_run_batch"]

R = TypeVar("R")


class AsyncRun(Protocol):
    """`AsyncTransport.run`."""

    def __call__(self, op: Operation[R], /, *, deadline: float | None = None) -> Awaitable[R]:
        """Run *op*."""
        ...


class AsyncRunBatch(Protocol):
    """`AsyncTransport.run_batch`."""

    def __call__(self, batch: Batch, /, *, deadline: float) -> Awaitable[Replies]:
        """Run *batch*."""
        ...


def observed_run(run: AsyncRun, exchanges: Exchanges) -> AsyncRun:
    """Return a function like *run* that reports each request when its reply has arrived, before the reply is read.

    Like *run*, it queues the request immediately.
    """

    async def finish(pending: Awaitable[R], op: Operation[R], read: Callable[[Reply], R], began: float) -> R:
        try:
            reply = await pending
        except BaseException as error:
            exchanges.failed(op, error, began, monotonic())
            raise
        # `KEEP_REPLY` makes it the reply.
        exchanges.answered(op, reply, began, monotonic())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        try:
            return read(reply)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # as above
        except BaseException as error:
            exchanges.unreadable(op, error)
            raise

    def observed(op: Operation[R], /, *, deadline: float | None = None) -> Awaitable[R]:
        read = op.read
        op.read = KEEP_REPLY
        began = monotonic()
        try:
            pending = run(op, deadline=deadline)
        except BaseException as error:
            exchanges.failed(op, error, began, monotonic())
            raise
        finally:
            op.read = read  # the pending reply has its own reference to `KEEP_REPLY`
        return finish(pending, op, read, began)

    return observed


def observed_run_batch(run_batch: AsyncRunBatch, exchanges: Exchanges) -> AsyncRunBatch:
    """Return a function like *run_batch* that reports each batch when all its replies have arrived.

    Like *run_batch*, it queues the first windows immediately.
    """

    async def finish(running: Awaitable[Replies], batch: Batch, began: float) -> Replies:
        try:
            replies = await running
        except BaseException as error:
            exchanges.batch_failed(batch, error, began, monotonic())
            raise
        exchanges.batch_done(batch, replies, began, monotonic())
        return replies

    def observed(batch: Batch, /, *, deadline: float) -> Awaitable[Replies]:
        began = monotonic()
        return finish(run_batch(batch, deadline=deadline), batch, began)

    return observed


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
