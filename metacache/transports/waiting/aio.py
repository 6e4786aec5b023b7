"""Places: what tasks wait for on a shared connection, each with the work whose reply is to end the wait.

Knows tasks, work, and a loop that was held up; knows no socket.
"""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from contextlib import asynccontextmanager
from contextvars import Context
from itertools import repeat
from time import monotonic
from typing import Any, Final, Generic, NamedTuple, NoReturn, TypeAlias, TypeVar, final

from typing_extensions import override

from metacache.errors import InvalidArgumentError, MetacacheError
from metacache.nodes import Node
from metacache.protocol.replies import Refusal
from metacache.transports import Batch, Operation

__all__ = [
    "Alarm",
    "BatchWindow",
    "Line",
    "Place",
    "Work",
    "fail_places",
    "is_stale_read",
    "patience",
    "unsent",
    "wake",
    "weight_of",
]

R = TypeVar("R")

# Seconds in which a loop that was held up reads what has arrived. Not 0: uvloop would not read in between.
GRACE: Final = 0.001

# The answer of a place that has raised what it was.
_RAISED: Final = object()

# Requests that may wait before those whose callers have gone are looked for.
CROWD: Final = 64


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

    @property
    def is_read(self) -> bool:
        """True when sending it twice changes nothing."""
        return self.batch.is_read


Work: TypeAlias = Operation[Any] | BatchWindow  # Any: whatever it is, its place reads the answer


@final
class Place(Generic[R]):
    """A request's place in the line of a connection: what the task that asked waits for, in place of a Future.

    A Future has its task called back through the loop, which costs as much as all else this client does with a reply;
    of places one call wakes as many as got their replies together. It has as much of a Future as a Task asks for.

    Attributes:
        line: that of the connection.
        work: what is asked.
        plain: the same, when it is a plain request: one that echoes its opaque.
        read: what makes the result of its answer.
        deadline: a ``time.monotonic()`` time.
        asked: when it was asked for; minus infinity when it was sent a second time.
        answer: the answer, or what to raise; None while there is neither. A place that has one is done: what still
            comes for it is dropped.
        get_loop: returns the line's loop: a task of another is refused by asyncio.
        wakeup: resumes the task, in ``context``; None when no task waits.
    """

    # No __init__: a call of one costs 1,400 instructions. Whoever makes one assigns all but the context.
    __slots__ = (
        "_asyncio_future_blocking",
        "answer",
        "asked",
        "context",
        "deadline",
        "get_loop",
        "line",
        "plain",
        "read",
        "wakeup",
        "work",
    )

    line: Line
    work: Work
    plain: Operation[R] | None
    read: Callable[[Any], R]  # Any: the answer, of which it knows the shape
    deadline: float
    asked: float
    answer: object | None
    get_loop: Callable[[], asyncio.AbstractEventLoop]
    wakeup: Callable[[Place[Any]], object] | None  # Any: itself
    context: Context
    _asyncio_future_blocking: bool | None  # None: to `asyncio.ensure_future` it is an awaitable, and no Future

    # A task asks for it when it goes on: it may be anything that does not raise. In C, for it costs every request.
    result = staticmethod(asyncio.get_running_loop)

    def __await__(self) -> Generator[Place[R], None, R]:
        """Wait for the answer; return what its reader makes of it, in the caller's task and context."""
        if self.wakeup is not None or self._asyncio_future_blocking:
            raise RuntimeError("another task awaits this request already")
        # Until it is so: as with a condition variable, to be woken proves nothing.
        while self.answer is None:
            self._asyncio_future_blocking = True
            try:
                yield self
            finally:
                self.wakeup = self._asyncio_future_blocking = None
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

    def add_done_callback(self, wakeup: Callable[[Place[Any]], object], *, context: Context) -> None:  # Any: itself
        """Keep how to resume the task that waits."""
        self._asyncio_future_blocking = None  # the task has made it False, which marks a Future
        self.wakeup = wakeup
        self.context = context

    def cancel(self, msg: object = None) -> bool:
        """Abandon the place, for its task is cancelled; return False if it is done already."""
        if self.answer is not None:
            return False
        self.line.abandon(self, asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg))
        return True

    @override
    def __repr__(self) -> str:
        return f"<Place on {self.line.node.name}: {'waiting' if self.answer is None else 'done'}>"


def wake(places: Iterable[Place[Any]]) -> None:  # Any: whatever each waits for
    """Resume the tasks that wait in *places*, all in this turn of the loop. Call it where no task runs."""
    rest = iter(places)
    place: Place[Any] | None = None  # Any: as above
    try:
        for place in rest:
            if place.wakeup is not None:
                place.context.run(place.wakeup, place)
    except BaseException as error:  # a signal's, or what ends the loop: it is the loop's, and the others wait
        left = [*rest] if place is None else [*rest, place]
        loop = asyncio.get_running_loop()
        loop.call_soon(_throw, error)
        loop.call_soon(wake, left)


def _throw(error: BaseException) -> NoReturn:
    raise error


@final
class Line:
    """Who waits on one connection, in the order asked.

    Attributes:
        node: whom errors name.
        loop: the event loop of all tasks in it; None before the first. ``get_loop`` returns it.
        waiting: the places whose requests are not yet written.
        in_flight: those whose requests are: the list that the link keeps.
    """

    __slots__ = ("_crowd", "_drained", "_will_look", "get_loop", "in_flight", "loop", "node", "waiting")

    get_loop: Callable[[], asyncio.AbstractEventLoop]

    def __init__(self, node: Node) -> None:
        self.node = node
        self.loop: asyncio.AbstractEventLoop | None = None
        self.waiting: list[Place[Any]] = []  # Any: whatever each waits for
        self.in_flight: list[Place[Any]] = []  # Any: as above
        self._crowd = CROWD
        self._drained: asyncio.Future[None] | None = None
        self._will_look = False

    def adopt(self, loop: asyncio.AbstractEventLoop) -> None:
        """Belong to *loop* from now on. Raises InvalidArgumentError for a second loop."""
        if self.loop is not None:
            raise InvalidArgumentError(
                "this connection belongs to another event loop; make a client in each loop that uses one"
            )
        self.get_loop = repeat(loop).__next__  # in C, for each task asks
        self.loop = loop

    @property
    def undone(self) -> list[Place[Any]]:  # Any: as above
        """The places of those who still wait."""
        return [place for place in (*self.in_flight, *self.waiting) if place.answer is None]

    def fail(self, places: Iterable[Place[Any]], error: MetacacheError, *, sent: bool) -> None:  # Any: as above
        """Give those of *places* that are not done an error of their own; *sent*: a write may have been applied."""
        error.locate(node=self.node.name)
        failed = [place for place in places if place.answer is None]
        if failed:
            asyncio.get_running_loop().call_soon(wake, failed)  # first: whatever strikes, nobody waits for ever
            fail_places(failed, error, sent=sent)
        self.look_who_is_left()

    def abandon(self, place: Place[Any], error: asyncio.CancelledError) -> None:  # Any: as above
        """Let whoever waits in *place* go, with *error*: its task was cancelled, perhaps by the end of the loop."""
        if self.loop is not None:
            if place.wakeup is not None:
                self.loop.call_soon(wake, (place,))
            if self._drained is not None and not self._will_look:  # once for all who are cancelled together
                self._will_look = True
                self.loop.call_soon(self.look_who_is_left)
        place.answer = error

    def drop_abandoned(self) -> None:
        """Forget those waiting whose callers have gone."""
        self.waiting = [place for place in self.waiting if place.answer is None]

    def thin_out(self) -> None:
        """Do so when there are twice as many as were left the last time."""
        if len(self.waiting) > self._crowd:
            self.drop_abandoned()
            self._crowd = 2 * len(self.waiting) + CROWD

    def look_who_is_left(self) -> None:
        """Tell who waits for it when nobody is."""
        self._will_look = False
        if self._drained is not None and not self.undone:
            self._drained.set_result(None)
            self._drained = None

    async def drain(self, seconds: float) -> None:
        """Wait until nobody waits any more; look again every so many *seconds*: what a signal struck tells nobody."""
        while self.undone:  # again and again: a batch asks for its next windows when it has some
            if self._drained is None:
                self._drained = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._drained,), timeout=seconds)


def weight_of(work: Work) -> int:
    """Return how many requests *work* is."""
    return work.stop - work.start if type(work) is BatchWindow else 1


def is_stale_read(place: Place[Any], dialled: float) -> bool:  # Any: whatever it waits for
    """Tell whether *place* is a read that found its connection stale: one *dialled* before it was asked for."""
    return place.answer is None and place.work.is_read and dialled < place.asked


def fail_places(places: Iterable[Place[Any]], error: MetacacheError, *, sent: bool) -> None:  # Any: as above
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
