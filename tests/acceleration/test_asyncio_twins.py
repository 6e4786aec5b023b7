"""The primitives of asyncio do what their functions in Python do, for arbitrary requests, replies and cancellations.

METACACHE_EXAMPLES sets the number of examples of each test.
"""

from __future__ import annotations

import asyncio
import gc
import os
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from itertools import count, pairwise
from time import monotonic
from typing import Any, Final, final
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzzing.links import SEAMS
from fuzzing.seams import use_python
from metacache import AsyncClient, AsyncConnection, ConnectionLost, Node, Settings
from metacache.protocol.commands import MN
from metacache.protocol.error_lines import Refusal, refusal
from metacache.protocol.replies import known_headers, known_sizes
from metacache.testing import Memcached
from metacache.transports.aio import link as aio_link
from metacache.transports.aio import pending as aio_pending
from metacache.transports.aio.link import Link
from metacache.transports.aio.pending import (
    AnyPending,
    BatchWindow,
    PendingReply,
    RequestQueue,
    Waiter,
    new_pending,
    new_waiter,
)
from metacache.transports.base import Batch, Operation, Verb
from tests.acceleration.test_twins import PIECES
from tests.transports.aio_rig import OPERATIONS, PATIENT, Recorder, nothing_left
from tests.transports.test_aio_pending_replies import getting

pytestmark = pytest.mark.usefixtures("primitives")

MANY: Final = settings(max_examples=int(os.environ.get("METACACHE_EXAMPLES", "200")))
NOOP: Final = Verb("noop", MN, is_read=True)


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def test_the_compiled_classes_are_used() -> None:
    assert new_pending is not PendingReply
    assert new_waiter is not Waiter


# --- awaiting ---------------------------------------------------------------------------------------------------------

REFUSED: Final = refusal(b"SERVER_ERROR out of memory storing object", OPERATIONS.set("k", b"v", None).verb.command)
assert isinstance(REFUSED, Refusal)
ANSWERS: Final[tuple[Callable[[], object], ...]] = (
    lambda: ([b"VA", b"3", b"f0"], b"abc"),
    lambda: ([b"EN"], None),
    lambda: ([b"VA", b"3", b"f0", b"W"], b"abc"),
    lambda: (list[bytes](), b"abc"),  # its reader raises
    lambda: REFUSED,
    lambda: ConnectionLost("gone"),
    lambda: KeyboardInterrupt("handler"),
    lambda: "of another type",
)
THROWN: Final[tuple[Callable[[], BaseException], ...]] = (
    lambda: asyncio.CancelledError("message"),
    lambda: GeneratorExit(),
    lambda: ValueError("other"),
)
STEPS: Final = st.one_of(
    st.sampled_from(["resume", "resume", "resume", "close", "abandon", "again"]),
    st.sampled_from(ANSWERS).map(lambda make: ("answer", make)),
    st.sampled_from(THROWN).map(lambda make: ("throw", make)),
)


@final
class Awaited:
    """A pending reply of either kind, and what happens when it is awaited."""

    def __init__(self, kind: type[AnyPending], loop: asyncio.AbstractEventLoop) -> None:
        self.queue = RequestQueue(Node("localhost"))
        self.queue.bind(loop)
        op = getting("key")
        self.pending = kind()
        self.pending.queue, self.pending.work, self.pending.plain, self.pending.read = self.queue, op, op, op.read
        self.pending.deadline = self.pending.made_at = 0.0
        self.pending.answer = self.pending.waiter = None
        self.iterator: Any = None  # Any: a generator, or the compiled pending reply

    def take(self, step: str | tuple[str, Callable[[], Any]]) -> object:  # Any: an answer or an exception
        if isinstance(step, tuple):
            name, make = step
            if name == "answer":
                if self.pending.answer is None:
                    self.pending.answer = make()
                return None
            return self._outcome(lambda: self.iterator.throw(make())) if self.iterator is not None else None
        if step == "abandon":
            self.pending.abandon()
            return None
        if step == "close":
            if self.iterator is not None:
                self.iterator.close()
                self.iterator = None
            return None
        if step == "again":  # a second task, while the first one waits or after it was resumed
            return None if self.iterator is None else self._outcome(self._second, is_first=False)
        return self._outcome(self._resume)

    def _resume(self) -> object:
        if self.iterator is None:
            self.iterator = self.pending.__await__()
        return next(self.iterator)

    def _second(self) -> object:
        return next(iter(self.pending.__await__()))

    def _outcome(self, act: Callable[[], object], *, is_first: bool = True) -> object:
        try:
            yielded = act()
        except StopIteration as stop:
            found: object = ("returned", stop.value)
        except BaseException as error:
            found = ("raised", type(error), str(error), getattr(error, "key", None), error.__cause__)
        else:
            assert isinstance(yielded, asyncio.Future)
            blocking, yielded._asyncio_future_blocking = yielded._asyncio_future_blocking, False
            return "waits", blocking, yielded.done()
        if is_first:
            self.iterator = None
        return found

    def state(self) -> object:
        waiter, answer = self.pending.waiter, self.pending.answer
        waits = waiter is not None and waiter.pending is self.pending
        return waits, type(answer), len(self.queue.waiters), len(self.queue.idle), repr(self.pending)


@MANY
@given(steps=st.lists(STEPS, max_size=12))
def test_a_request_is_awaited_as_in_python(
    steps: list[str | tuple[str, Callable[[], Any]]],  # Any: as in `take`
    loop: asyncio.AbstractEventLoop,
) -> None:
    compiled, pure = Awaited(new_pending, loop), Awaited(PendingReply, loop)
    with patch.object(aio_pending, "new_waiter", Waiter):
        expected = [(pure.take(step), pure.state()) for step in steps]
    assert [(compiled.take(step), compiled.state()) for step in steps] == expected


@pytest.mark.parametrize("is_pure", [False, True], ids=["compiled", "pure"])
def test_an_iterator_that_is_used_late_does_not_take_the_place_of_a_task(
    is_pure: bool, loop: asyncio.AbstractEventLoop
) -> None:
    awaited = Awaited(PendingReply if is_pure else new_pending, loop)

    async def await_it() -> object:
        return await awaited.pending

    async def both() -> object:
        late = iter(awaited.pending.__await__())
        task = asyncio.ensure_future(await_it())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task awaits"):
            next(late)
        awaited.pending.answer = ANSWERS[0]()
        awaited.queue.answered.append(awaited.pending)
        loop.call_soon(awaited.queue.wake)
        return await asyncio.wait_for(task, 5.0)

    with ExitStack() as stack:
        if is_pure:
            stack.enter_context(use_python(SEAMS))
        assert loop.run_until_complete(both()) == b"abc"


def test_a_request_that_was_not_queued_cannot_be_awaited() -> None:
    with pytest.raises(AttributeError, match="not queued"):
        next(iter(new_pending().__await__()))


def test_a_throw_takes_all_forms_of_exceptions(loop: asyncio.AbstractEventLoop) -> None:
    for arguments in (
        (ValueError("one"),),
        (ValueError,),
        (ValueError, "two"),
        (ValueError, ValueError("three"), None),
    ):
        awaited = Awaited(new_pending, loop)
        awaited.take("resume")
        with pytest.raises(ValueError, match=r"^(one|two|three|)$"):
            awaited.iterator.throw(*arguments)
        assert "done" in repr(awaited.pending)
    awaited = Awaited(new_pending, loop)
    with pytest.raises(TypeError, match="takes an exception"):
        awaited.pending.__await__().throw(7)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]


def test_asyncio_does_not_take_a_request_for_a_coroutine_or_a_future() -> None:
    assert not asyncio.iscoroutine(new_pending())
    assert not asyncio.isfuture(new_pending())


def test_a_cycle_through_a_request_is_collected(loop: asyncio.AbstractEventLoop) -> None:
    queues: list[weakref.ref[asyncio.Future[None]]] = []
    for is_waiting in (True, False):
        awaited = Awaited(new_pending, loop)
        if is_waiting:
            awaited.take("resume")
        awaited.pending.plain = awaited.pending  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
        awaited.queue.waiting.append(awaited.pending)
        queues.append(weakref.ref(awaited.queue._done))
        del awaited
    gc.collect()
    assert [each() for each in queues] == [None, None]


# --- a link -----------------------------------------------------------------------------------------------------------

KINDS: Final = ("get", "get", "get", "set", "big", "huge", "noop", "window", "given up", "cancelled")


def work_of(kind: str) -> Operation[Any] | BatchWindow:  # Any: of several types
    if kind == "window":
        made = [getting(key) for key in ("a", "b", "c")]
        batch = Batch(made[0].verb, ["a", "b", "c"], [op.key for op in made], [op.head for op in made])
        return BatchWindow(batch, 0, 3)
    if kind == "noop":
        op: Operation[object] = Operation()
        op.verb, op.given, op.key, op.head, op.body, op.read = NOOP, None, b"", b"mn", None, repr
        return op
    size = {"set": 3, "big": 20_000, "huge": 70_000}.get(kind)
    return getting("key") if size is None else OPERATIONS.set("key", b"v" * size, None)


def pending_of(kind: str, queue: RequestQueue) -> AnyPending:
    pending = aio_pending.new_pending()
    work = pending.work = work_of(kind)
    pending.plain = work if isinstance(work, Operation) and work.verb.command.echoes else None
    pending.queue, pending.read, pending.deadline, pending.made_at = queue, repr, 1e9, 0.0
    pending.answer, pending.waiter = ("given up" if kind == "given up" else None), None
    if kind == "cancelled":
        pending.waiter = queue.new_waiter()
        pending.waiter.future.cancel()
    return pending


async def link_outcome(kinds: list[str], pieces: list[bytes], cuts: list[int], *, is_pure: bool) -> object:
    """Return what a link writes for requests of *kinds*, and the answers that they get from *pieces*."""
    known_headers.clear()
    known_sizes.clear()
    with ExitStack() as stack:
        if is_pure:
            stack.enter_context(use_python(SEAMS))
        stack.enter_context(patch.object(aio_link, "getrandbits", return_value=5))
        lost: list[str] = []
        link = Link(
            Settings(max_in_flight=12, max_reply_size=1000),
            lambda _, __: None,
            lambda _: None,
            lambda _, error: lost.append(str(error)),
        )
        recorder, queue = Recorder(), RequestQueue(Node("localhost"))
        queue.bind(asyncio.get_running_loop())
        link.connection_made(recorder)
        made = [pending_of(kind, queue) for kind in kinds]
        waiting = list(made)
        link.write(waiting)
        sent = b"".join(recorder.writes)
        marks = iter([word for word in sent.split() if word.startswith(b"O")] + [b"O1"] * 100)
        plain = (piece.replace(b"%m", b" %b") for piece in pieces)
        stream = b"".join(piece.replace(b"%b", next(marks)) if b"%b" in piece else piece for piece in plain)
        before = len(link.in_flight), link.requests, len(waiting), recorder.writes
        edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
        for start, stop in pairwise(edges):
            if start < stop:
                link.data_received(stream[start:stop])
        answers = [type(each.answer).__name__ if each.plain is None else repr(each.answer) for each in made]
        return before, answers, lost, link.is_lost, link.requests, len(link.in_flight)


@MANY
@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=15),
    pieces=st.lists(PIECES, max_size=8),
    cuts=st.lists(st.integers(0, 4000), max_size=4),
)
def test_a_link_sends_and_answers_as_in_python(
    kinds: list[str], pieces: list[bytes], cuts: list[int], loop: asyncio.AbstractEventLoop
) -> None:
    expected = loop.run_until_complete(link_outcome(kinds, pieces, cuts, is_pure=True))
    assert loop.run_until_complete(link_outcome(kinds, pieces, cuts, is_pure=False)) == expected


# --- queueing ---------------------------------------------------------------------------------------------------------

# Seconds, hours from one another and rounded to UNIT: the machine may be busy, or stand still for minutes.
DEADLINES: Final = st.lists(st.sampled_from([None, 5e3, 5e4, 0.0, -1.0, float("inf")]), min_size=1, max_size=6)
UNIT: Final = 2500.0


async def queue_outcome(deadlines: list[float | None], *, is_pure: bool, is_flushing: bool) -> object:
    """Return the state of a connection after requests with *deadlines*, in seconds from now."""
    with ExitStack() as stack:
        if is_pure:
            stack.enter_context(use_python(SEAMS))
        connection = AsyncConnection(Node("localhost:1"), settings=Settings(timeout=4 * UNIT))
        connection._flushing = is_flushing
        made: list[Any] = []  # Any: pending replies
        now = monotonic()
        for seconds in deadlines:
            made.append(connection.run(getting("key"), deadline=None if seconds is None else now + seconds))
            assert made[-1].work is made[-1].plain
        assert all(now <= each.made_at <= monotonic() for each in made)
        rest = [(f"{(each.deadline - now) / UNIT:.0f}", type(each.answer).__name__) for each in made]
        is_set = f"{(connection._timer.at - now) / UNIT:.0f}", connection._next_check > now, connection._flushing
        waiting = [made.index(each) for each in connection._queue.waiting]
        connection.drop()
        return rest, is_set, waiting


@MANY
@given(deadlines=DEADLINES, is_flushing=st.booleans())
def test_a_request_is_queued_as_in_python(
    deadlines: list[float | None], is_flushing: bool, loop: asyncio.AbstractEventLoop
) -> None:
    expected = loop.run_until_complete(queue_outcome(deadlines, is_pure=True, is_flushing=is_flushing))
    found = loop.run_until_complete(queue_outcome(deadlines, is_pure=False, is_flushing=is_flushing))
    assert found == expected


def test_a_request_outside_its_loop_is_refused_as_in_python(memcached: Memcached) -> None:
    connection = AsyncConnection(memcached.node, settings=PATIENT)
    client = AsyncClient(connection, owns=True)

    async def use() -> None:
        await asyncio.gather(*(client.get("key") for _ in range(3)))

    async def close() -> None:
        await client.aclose()

    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(use())
        with pytest.raises(ValueError, match="another event loop"):
            second.run(use())
        with pytest.raises(ValueError, match="loop"):
            connection.run(getting("key"))
        first.run(close())


# --- cancellation -----------------------------------------------------------------------------------------------------


def steps_of(size: int) -> Generator[int]:
    yield from (0, 1, 2, 3, 5, 8, 13, size)


@pytest.mark.both_loops
@pytest.mark.parametrize("is_first", [True, False], ids=["first", "middle"])
async def test_a_task_cancelled_after_any_number_of_iterations_changes_no_other_result(
    memcached: Memcached, is_first: bool
) -> None:
    keys = [f"cancelled:{number}" for number in range(40)]
    numbers = count()

    async def read(client: AsyncClient[bytes]) -> None:
        for number in numbers:
            if number > 4000:
                return
            key = keys[number % len(keys)]
            assert await client.get(key) == key.encode()

    async with nothing_left(), AsyncClient(AsyncConnection(memcached.node, settings=PATIENT), owns=True) as client:
        await client.set_many({key: key.encode() for key in keys})
        for iterations in steps_of(40):
            tasks = [asyncio.create_task(read(client)) for _ in range(16)]
            chosen = tasks[0 if is_first else 7]
            for _ in range(iterations):
                await asyncio.sleep(0)
            is_early = chosen.cancel("message")
            found = await asyncio.gather(*tasks, return_exceptions=True)
            assert [each for each in found if each is not None and not isinstance(each, asyncio.CancelledError)] == []
            assert chosen.cancelled() == is_early
            assert sum(isinstance(each, asyncio.CancelledError) for each in found) == is_early
            numbers = count()
