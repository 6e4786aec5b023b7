"""Places: what tasks wait for on a shared connection, each with the work whose reply is to end the wait.

Knows tasks and work; knows no socket and no timer.
"""

from __future__ import annotations

import asyncio
import copy
import math
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextvars import Context
from time import monotonic
from typing import Any, Final, Generic, NamedTuple, NoReturn, TypeAlias, TypeVar, final

from typing_extensions import override

from metacache.errors import InvalidArgumentError, MetacacheError
from metacache.nodes import Node
from metacache.protocol.error_lines import Refusal
from metacache.transports.base import Batch, Operation
from metacache.transports.counters import WaitCounts

__all__ = [
    "BatchWindow",
    "PendingReply",
    "RequestQueue",
    "Waiter",
    "Work",
    "fail_places",
    "throw",
    "unsent",
    "weight_of",
]

R = TypeVar("R")

# Any: a method of a Task, of which no stub knows ``__self__._fut_waiter``.
_Callbacks: TypeAlias = list[tuple[Any, Context]] | None
"""The functions that a Future calls when it is done."""

# The answer of a place that has raised what it was.
_RAISED: Final = object()

# Requests that may wait before those whose callers have gone are looked for.
CROWD: Final = 64


class BatchWindow(NamedTuple):
    """The requests of a batch from *start* to *stop*, which go out together."""

    batch: Batch
    start: int
    stop: int

    @property
    def is_read(self) -> bool:
        """True when sending it twice changes nothing."""
        return self.batch.is_read


Work: TypeAlias = Operation[Any] | BatchWindow  # Any: whatever it is, its place reads the answer


@final
class Waiter:
    """Wakes a task, for one request after the other; *place* is the request that it waits for now.

    ``future`` is never done, unless its task is cancelled: `RequestQueue.wake` resumes the task directly. The loop
    would call back a Future, which costs as much as the rest of a get. But asyncio registers the task with a Future
    of its own in C, where no signal's handler can raise and lose the task.
    """

    __slots__ = ("future", "place")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.future: asyncio.Future[None] = asyncio.Future(loop=loop)
        self.place: PendingReply[Any] | None = None  # Any: the result that its task waits for


@final
class PendingReply(Generic[R]):
    """A request's place in the line of a connection. A task awaits it, once.

    Attributes:
        line: that of the connection.
        work: what is asked.
        plain: the same, when it is a plain request: one that echoes its opaque.
        read: makes the result of its answer.
        deadline: a ``time.monotonic()`` time.
        asked: when it was asked for; minus infinity when it was sent a second time.
        answer: the answer, or what to raise; None while there is neither. A place that has one is done: the reply that
            still comes for it is dropped.
        waiter: what its task waits on; None when no task waits.
    """

    # No __init__: a call of one costs 1,400 instructions. Each caller assigns all of them.
    __slots__ = ("answer", "asked", "deadline", "line", "plain", "read", "waiter", "work")

    line: RequestQueue
    work: Work
    plain: Operation[R] | None
    read: Callable[[Any], R]  # Any: the answer, of which it knows the shape
    deadline: float
    asked: float
    answer: object | None
    waiter: Waiter | None

    def __await__(self) -> Generator[asyncio.Future[None], None, R]:
        """Wait for the answer; return what its reader makes of it, in the caller's task and context."""
        if self.waiter is not None:
            raise RuntimeError("another task awaits this request already")
        try:
            # Until it is so: as with a condition variable, to be woken proves nothing.
            while self.answer is None:
                idle = self.line.idle
                waiter = self.waiter = idle.pop() if idle else self.line.new_waiter()
                waiter.place = self
                waiter.future._asyncio_future_blocking = True
                yield waiter.future
                self.waiter = None
        except GeneratorExit:  # the coroutine was closed; another task may await it
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
            if answer is _RAISED:
                raise RuntimeError("this request has failed before; a request is awaited once")
            return self.read(answer)
        except BaseException as error:
            # What is raised holds this frame, and with it those of all callers: it must not be held by them.
            self.answer, answer = _RAISED, None
            work = self.work
            if isinstance(error, MetacacheError) and isinstance(work, Operation):
                error.locate(node=self.line.node.name, operation=work.verb.name, key=work.given)
            raise

    def abandon(self) -> None:
        """Give it up: it is not sent any more, and a reply that still comes is dropped."""
        self.waiter = None
        if self.answer is None:
            self.answer = _RAISED
            self.line.look_soon()

    @property
    def is_lost(self) -> bool:
        """True when it is done and its task still waits: a signal's exception interrupted the code that wakes it."""
        waiter = self.waiter
        return self.answer is not None and waiter is not None and _task_of(waiter) is not None

    @override
    def __repr__(self) -> str:
        return f"<PendingReply on {self.line.node.name}: {'waiting' if self.answer is None else 'done'}>"


def _task_of(waiter: Waiter) -> asyncio.Task[Any] | None:  # Any: the result of the task
    """Return the task that waits on *waiter* now."""
    callbacks: _Callbacks = waiter.future._callbacks
    tasks = [wakeup.__self__ for wakeup, _ in callbacks or ()]
    return next((task for task in tasks if task._fut_waiter is waiter.future), None)


@final
class RequestQueue:
    """The places of one connection, in the order asked.

    Attributes:
        node: named in errors.
        loop: the event loop of all tasks in it; None before the first.
        waiting: the places whose requests are not yet written.
        in_flight: those whose requests are: the list that the link keeps.
        answered: those whose tasks are to be woken.
        waiters: what tasks wait on; *idle* are those that no task uses.
        waits: counts the requests that had to wait for room.
    """

    __slots__ = (
        "_crowd",
        "_done",
        "_drained",
        "_will_look",
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
        self.waiting: list[PendingReply[Any]] = []  # Any: whatever each waits for
        self.in_flight: list[PendingReply[Any]] = []  # Any: as above
        self.answered: deque[PendingReply[Any]] = deque()  # Any: as above
        self.waiters: list[Waiter] = []
        self.idle: deque[Waiter] = deque()
        self.waits = WaitCounts()
        self._crowd = CROWD
        self._drained: asyncio.Future[None] | None = None
        self._will_look = False

    def adopt(self, loop: asyncio.AbstractEventLoop) -> None:
        """Belong to *loop* from now on. Raises InvalidArgumentError for a second loop."""
        if self.loop is not None:
            raise InvalidArgumentError(
                "this connection belongs to another event loop; make a client in each loop that uses one"
            )
        self.loop = loop
        self._done: asyncio.Future[None] = asyncio.Future(loop=loop)  # given to a task that may go on
        self._done.set_result(None)

    def new_waiter(self) -> Waiter:
        """Return one more waiter."""
        assert self.loop is not None, "a place is made where a loop runs"
        waiter = Waiter(self.loop)
        self.waiters.append(waiter)
        return waiter

    @property
    def undone(self) -> list[PendingReply[Any]]:  # Any: as above
        """The places that have no answer and are waited for."""
        return [place for place in (*self.in_flight, *self.waiting) if place.answer is None]

    @property
    def awaited(self) -> list[PendingReply[Any]]:  # Any: as above
        """The places that tasks wait for: also those that are in no list, for a signal's exception hit there."""
        both = [(waiter, waiter.place) for waiter in self.waiters]
        return [place for waiter, place in both if place is not None and place.waiter is waiter]

    # --- waking ------------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Resume the tasks of all places in ``answered``. Call it where no task runs.

        A task may run the loop in there (nested loops do): then the rest is woken from within.
        """
        answered, idle, done = self.answered, self.idle, self._done
        try:
            while answered:
                place = answered.popleft()
                waiter = place.waiter
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
                waiter.place = None
                idle.append(waiter)
        except BaseException as error:  # of a signal handler, or one that ends the loop: the loop handles it
            assert self.loop is not None, "a place has an answer"
            self.loop.call_soon(self.wake)
            self.loop.call_soon(throw, error)

    def wake_lost(self) -> None:
        """Wake the tasks whose places are done and that were not woken; forget the waiters that are of no use."""
        self.answered.extend(place for place in self.awaited if place.is_lost)
        self.wake()
        self.waiters = [waiter for waiter in self.waiters if not waiter.future.done()]
        if not self.awaited:
            self.waiters.clear()
            self.idle.clear()

    def fail(self, places: Iterable[PendingReply[Any]], error: MetacacheError, *, sent: bool) -> None:  # Any: as above
        """Give those of *places* that are not done an error of their own; *sent*: a write may have been applied."""
        error.locate(node=self.node.name)
        failed = [place for place in places if place.answer is None]
        if failed and self.loop is not None:
            self.loop.call_soon(self.wake)
            fail_places(failed, error, sent=sent)
            self.answered.extend(failed)
        self.look_who_is_left()

    def ask_again(self, in_flight: list[PendingReply[Any]], dialled: float) -> None:  # Any: as above
        """Move back the reads of *in_flight* that found their connection stale: one *dialled* before they came."""
        again = [place for place in in_flight if _is_stale_read(place, dialled)]
        behind = self.waits.held
        self.waiting[behind:behind] = again
        in_flight[:] = [place for place in in_flight if not _is_stale_read(place, dialled)]
        for place in again:
            place.asked = -math.inf

    # --- those that are left -----------------------------------------------------------------------------------------

    def look_soon(self) -> None:
        """Look who is left, once for all that are given up together."""
        if self._drained is not None and not self._will_look and self.loop is not None:
            self._will_look = True
            self.loop.call_soon(self.look_who_is_left)

    def drop_abandoned(self) -> None:
        """Forget those waiting whose callers have gone."""
        held = self.waits.held
        if held:
            self.waits.keep(sum(place.answer is None for place in self.waiting[:held]), monotonic())
        self.waiting = [place for place in self.waiting if place.answer is None]

    def thin_out(self) -> None:
        """Do so when there are twice as many as were left the last time."""
        if len(self.waiting) > self._crowd:
            self.drop_abandoned()
            self._crowd = 2 * len(self.waiting) + CROWD

    def look_who_is_left(self) -> None:
        """End the wait of `drain` when no place is left."""
        self._will_look = False
        if self._drained is not None and not self.undone:
            self._drained.set_result(None)
            self._drained = None

    async def drain(self, seconds: float) -> None:
        """Wait until every place is done; look again every *seconds*, for a signal's exception may lose the news."""
        while self.undone:  # again and again: a batch asks for its next windows when it has some
            if self._drained is None:
                self._drained = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._drained,), timeout=seconds)


def throw(error: BaseException) -> NoReturn:
    """Raise *error*. As a callback of the loop: asyncio drops an OSError that comes out of a protocol's methods."""
    raise error


def weight_of(work: Work) -> int:
    """Return how many requests *work* is."""
    return work.stop - work.start if type(work) is BatchWindow else 1


def _is_stale_read(place: PendingReply[Any], dialled: float) -> bool:  # Any: whatever it waits for
    """Tell whether *place* is a read that found its connection stale: one *dialled* before it was asked for."""
    return place.answer is None and place.work.is_read and dialled < place.asked


def fail_places(places: Iterable[PendingReply[Any]], error: MetacacheError, *, sent: bool) -> None:  # Any: as above
    """Give those that are not done an error of their own; *sent*: a write may have been applied."""
    for place in places:
        if place.answer is None:
            own = unsent(error)
            own.maybe_applied = sent and not place.work.is_read
            place.answer = own


def unsent(error: MetacacheError) -> MetacacheError:
    """Return *error* for requests of which surely no byte was sent."""
    own = copy.copy(error)
    own.__cause__ = error.__cause__
    own.maybe_applied = False
    return own
