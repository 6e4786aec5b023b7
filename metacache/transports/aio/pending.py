"""Pending replies: what tasks await on a shared connection, and the queue that keeps them in the order of requests.

It wakes tasks and gives each its reply or its error. It knows no socket, and does not enforce deadlines.
"""

from __future__ import annotations

import asyncio
import copy
import math
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextvars import Context
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, NoReturn, TypeAlias, TypeVar, final

from metacache.acceleration import find_pending_reply, find_waiter, wake_tasks
from metacache.errors import InvalidArgumentError, MetacacheError
from metacache.marks import override
from metacache.nodes import Node
from metacache.protocol.error_lines import Refusal
from metacache.transports.base import Batch, Operation
from metacache.transports.counters import WaitCounts

if TYPE_CHECKING:
    from metacache.transports.aio.observed import ObservedWaits

__all__ = [
    "AnyPending",
    "BatchWindow",
    "PendingReply",
    "RequestQueue",
    "Waiter",
    "Work",
    "fail_pending",
    "new_pending",
    "throw",
    "unsent",
    "verb_of",
    "weight_of",
]

R = TypeVar("R")

# Any: a method of a Task, because no stub knows ``__self__._fut_waiter``.
_Callbacks: TypeAlias = list[tuple[Any, Context]] | None
"""The functions that a Future calls when it is done."""

# The answer of a pending reply whose error was raised already, or that was abandoned.
_CONSUMED: Final = object()

# The queue drops abandoned requests when it is longer than this.
TRIM_AT: Final = 64


class BatchWindow(NamedTuple):
    """The requests of a batch from *start* to *stop*, which are sent together."""

    batch: Batch
    start: int
    stop: int

    @property
    def is_read(self) -> bool:
        """True when sending it twice changes nothing."""
        return self.batch.is_read


Work: TypeAlias = Operation[Any] | BatchWindow  # Any: of every result type; the pending reply reads the answer


@final
class Waiter:
    """Wakes a task. It serves one request after the other; *pending* is the one that its task awaits now.

    ``future`` is never done, unless its task is cancelled: `RequestQueue.wake` resumes the task directly. If the future
    were done, the loop would call its callbacks, which costs as much as the rest of a get. It must be asyncio's own
    Future all the same: the task registers with it in C code, where no signal handler can raise and lose the task.
    """

    __slots__ = ("future", "pending")

    def __init__(self, future: asyncio.Future[None]) -> None:
        self.future = future
        self.pending: AnyPending | None = None


@final
class PendingReply(Generic[R]):
    """The reply to one request. One task at a time may await it.

    Attributes:
        queue: the queue of the connection.
        work: the request, or a window of requests.
        plain: the request if it echoes its opaque; else None.
        read: turns the answer into the result.
        deadline: a ``time.monotonic()`` time.
        made_at: when the caller made the request; minus infinity when it was queued a second time.
        answer: the reply, or the error to raise; None while there is neither. With an answer it is done: a reply that
            arrives later is dropped.
        waiter: what its task waits on; None when no task waits.
    """

    # No __init__: calling one costs 1,400 instructions. Each caller assigns all attributes.
    __slots__ = ("answer", "deadline", "made_at", "plain", "queue", "read", "waiter", "work")

    queue: RequestQueue
    work: Work
    plain: Operation[R] | None
    read: Callable[[Any], R]  # Any: the answer, whose shape only the reader knows
    deadline: float
    made_at: float
    answer: object | None
    waiter: Waiter | None

    def __await__(self) -> Generator[asyncio.Future[None], None, R]:
        """Wait for the answer, call ``read`` with it in the caller's task and context, and return the result."""
        if self.waiter is not None:
            raise RuntimeError("another task awaits this request already")
        try:
            # A loop, as with a condition variable: a task may be woken although it has no answer yet.
            while self.answer is None:
                idle = self.queue.idle
                waiter = self.waiter = idle.pop() if idle else self.queue.new_waiter()
                waiter.pending = self
                waiter.future._asyncio_future_blocking = True
                yield waiter.future
                self.waiter = None
        except GeneratorExit:  # the coroutine was closed; another task may await this
            self.waiter = None
            raise
        except BaseException:
            self.abandon()
            raise
        answer = self.answer
        try:
            if type(answer) is tuple:  # nearly always
                return self.read(answer)
            if isinstance(answer, Refusal):
                raise unsent(answer.error)
            if isinstance(answer, BaseException):
                raise answer
            if answer is _CONSUMED:
                raise RuntimeError("this request has failed before; a request is awaited once")
            return self.read(answer)
        except BaseException as error:
            answer = None
            self.note_failure(error)
            raise

    def note_failure(self, error: BaseException) -> None:
        """Note that awaiting this raises *error*, and add to it what failed."""
        # The error refers to the frames of all callers. If this object kept it, they would never be freed by reference
        # counting.
        self.answer = _CONSUMED
        work = self.work
        if isinstance(error, MetacacheError) and isinstance(work, Operation):
            error.locate(node=self.queue.node.name, operation=work.verb.name, key=work.given)

    def abandon(self) -> None:
        """Give the request up: it is no longer sent, and a reply that still arrives is dropped."""
        self.waiter = None
        if self.answer is None:
            self.answer = _CONSUMED
            self.queue.check_drained_soon()

    @property
    def is_missed(self) -> bool:
        """True when it is done and its task still waits: a signal's exception interrupted the code that wakes it."""
        waiter = self.waiter
        return self.answer is not None and waiter is not None and _task_of(waiter) is not None

    @override
    def __repr__(self) -> str:
        return f"<PendingReply on {self.queue.node.name}: {'waiting' if self.answer is None else 'done'}>"


AnyPending: TypeAlias = PendingReply[Any]  # Any: a queue holds requests of every result type

# The compiled classes, if they are used, and else the two above. `PendingReply` describes both forms.
new_pending: Final[type[AnyPending]] = find_pending_reply(PendingReply)
new_waiter: Final[type[Waiter]] = find_waiter(Waiter)


def _task_of(waiter: Waiter) -> asyncio.Task[Any] | None:  # Any: the result of the task
    """Return the task that waits on *waiter* now."""
    callbacks: _Callbacks = waiter.future._callbacks
    tasks = [wakeup.__self__ for wakeup, _ in callbacks or ()]
    return next((task for task in tasks if task._fut_waiter is waiter.future), None)


@final
class RequestQueue:
    """The pending replies of one connection, in the order of their requests.

    Attributes:
        node: named in errors.
        loop: the event loop of all its tasks; None before the first request.
        waiting: those whose requests are not written yet.
        in_flight: those whose requests are written: the list that the link keeps.
        answered: those whose tasks are to be woken.
        waiters: what tasks wait on; ``idle`` are those that no task uses.
        waits: counts the requests that had to wait until fewer were in flight.
    """

    __slots__ = (
        "_done",
        "_drained",
        "_trim_at",
        "_will_check",
        "answered",
        "idle",
        "in_flight",
        "loop",
        "node",
        "waiters",
        "waiting",
        "waits",
    )

    def __init__(self, node: Node) -> None:
        self.node = node
        self.loop: asyncio.AbstractEventLoop | None = None
        self.waiting: list[AnyPending] = []
        self.in_flight: list[AnyPending] = []
        self.answered: deque[AnyPending] = deque()
        self.waiters: list[Waiter] = []
        self.idle: list[Waiter] = []
        self.waits: WaitCounts | ObservedWaits = WaitCounts()
        self._trim_at = TRIM_AT
        self._drained: asyncio.Future[None] | None = None
        self._will_check = False

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Belong to *loop* from now on. Raises InvalidArgumentError for a second loop."""
        if self.loop is not None:
            raise InvalidArgumentError(
                "this connection belongs to another event loop; make a client in each loop that uses one"
            )
        self.loop = loop
        self._done: asyncio.Future[None] = asyncio.Future(loop=loop)  # passed to the wakeup of every task
        self._done.set_result(None)

    def new_waiter(self) -> Waiter:
        """Make a waiter, add it to ``waiters`` and return it."""
        assert self.loop is not None, "a request is queued while a loop runs"
        waiter = new_waiter(asyncio.Future(loop=self.loop))
        self.waiters.append(waiter)
        return waiter

    @property
    def unanswered(self) -> list[AnyPending]:
        """The pending replies that have no answer."""
        return [pending for pending in (*self.in_flight, *self.waiting) if pending.answer is None]

    @property
    def awaited(self) -> list[AnyPending]:
        """The pending replies that tasks await, also one that a signal's exception took out of both lists."""
        both = [(waiter, waiter.pending) for waiter in self.waiters]
        return [pending for waiter, pending in both if pending is not None and pending.waiter is waiter]

    # --- waking ------------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Resume the tasks of all that are in ``answered``. Call it where no task runs.

        A task may run the loop inside this call (nested loops do). Then the inner loop wakes the others.
        """
        answered, idle, done = self.answered, self.idle, self._done
        try:
            if wake_tasks is not None:
                wake_tasks(answered, idle, done)
                return
            while answered:
                pending = answered.popleft()
                waiter = pending.waiter
                if waiter is None:
                    continue
                future = waiter.future
                callbacks: _Callbacks = future._callbacks
                if not callbacks:  # its task was cancelled
                    continue
                wakeup, context = callbacks[0]
                if wakeup.__self__._fut_waiter is future:
                    context.run(wakeup, done)
                future.remove_done_callback(wakeup)
                waiter.pending = None
                idle.append(waiter)
        except BaseException as error:  # of a signal handler, or one that ends the loop: the loop handles it
            assert self.loop is not None, "a request was queued"
            self.loop.call_soon(self.wake)
            self.loop.call_soon(throw, error)

    def wake_missed(self) -> None:
        """Wake the tasks that have an answer and were not woken; drop the waiters of cancelled tasks."""
        self.answered.extend(pending for pending in self.awaited if pending.is_missed)
        self.wake()
        self.waiters = [waiter for waiter in self.waiters if not waiter.future.done()]
        if not self.awaited:
            self.waiters.clear()
            self.idle.clear()

    def fail(self, some: Iterable[AnyPending], error: MetacacheError, *, sent: bool) -> None:
        """Give each of *some* that has no answer a copy of *error*; *sent*: a write may have been applied."""
        error.locate(node=self.node.name)
        failed = [pending for pending in some if pending.answer is None]
        if failed and self.loop is not None:
            self.loop.call_soon(self.wake)
            fail_pending(failed, error, sent=sent)
            self.answered.extend(failed)
        self.check_drained()

    def requeue_stale_reads(self, in_flight: list[AnyPending], dialled_at: float) -> list[AnyPending]:
        """Queue again the reads of *in_flight* that met a stale connection, and return them.

        A connection is stale for a read that was made after the dial.
        """
        again = [pending for pending in in_flight if _is_stale_read(pending, dialled_at)]
        behind = self.waits.waiting
        self.waiting[behind:behind] = again
        in_flight[:] = [pending for pending in in_flight if not _is_stale_read(pending, dialled_at)]
        for pending in again:
            pending.made_at = -math.inf
        return again

    # --- dropping and draining ---------------------------------------------------------------------------------------

    def drop_abandoned(self) -> None:
        """Remove from ``waiting`` the requests that have an answer or are abandoned."""
        held = self.waits.waiting
        if held:
            self.waits.set_waiting(sum(pending.answer is None for pending in self.waiting[:held]), monotonic())
        self.waiting = [pending for pending in self.waiting if pending.answer is None]

    def trim(self) -> None:
        """Call `drop_abandoned` when the queue has doubled since the last time, so the cost per request is constant."""
        if len(self.waiting) > self._trim_at:
            self.drop_abandoned()
            self._trim_at = 2 * len(self.waiting) + TRIM_AT

    def check_drained_soon(self) -> None:
        """Call `check_drained` in the next event loop iteration, once for all requests abandoned in this one."""
        if self._drained is not None and not self._will_check and self.loop is not None:
            self._will_check = True
            self.loop.call_soon(self.check_drained)

    def check_drained(self) -> None:
        """End the wait of `drain` when every request has its answer."""
        self._will_check = False
        if self._drained is not None and not self.unanswered:
            self._drained.set_result(None)
            self._drained = None

    async def drain(self, seconds: float) -> None:
        """Wait until every request has its answer.

        It checks again every *seconds*, because a signal's exception may interrupt `check_drained`.
        """
        while self.unanswered:  # a loop: a batch queues its next windows when replies arrive
            if self._drained is None:
                self._drained = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._drained,), timeout=seconds)


def throw(error: BaseException) -> NoReturn:
    """Raise *error*. It is a loop callback, because asyncio swallows an OSError that a protocol's method raises."""
    raise error


def verb_of(work: Work) -> str:
    """Return the name of the method that made *work*."""
    return work.batch.verb.name if isinstance(work, BatchWindow) else work.verb.name


def weight_of(work: Work) -> int:
    """Return the number of requests in *work*."""
    return work.stop - work.start if type(work) is BatchWindow else 1


def _is_stale_read(pending: AnyPending, dialled_at: float) -> bool:
    """Return whether *pending* is an unanswered read whose connection was dialled before the caller made it."""
    return pending.answer is None and pending.work.is_read and dialled_at < pending.made_at


def fail_pending(some: Iterable[AnyPending], error: MetacacheError, *, sent: bool) -> None:
    """Give each of *some* that has no answer a copy of *error*; *sent*: a write may have been applied."""
    for pending in some:
        if pending.answer is None:
            own = unsent(error)
            own.maybe_applied = sent and not pending.work.is_read
            pending.answer = own


def unsent(error: MetacacheError) -> MetacacheError:
    """Return a copy of *error* for requests of which no byte was sent."""
    own = copy.copy(error)
    own.__cause__ = error.__cause__
    own.maybe_applied = False
    return own
