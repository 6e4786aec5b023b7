"""Methods with two requests that end at every point: the state of the item, and what the error says about it.

The tests end them by a failing transport, a cancelled task, and a signal handler that raises.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, NamedTuple, NoReturn, TypeAlias

import pytest

from metacache import (
    ClosedError,
    ConnectError,
    ConnectionLost,
    DecodeError,
    MetacacheError,
    Node,
    OperationTimeout,
    PoolTimeout,
    StoreResult,
)
from metacache.protocol.flags import Token
from metacache.serializers import BytesSerializer, IntSerializer, StrSerializer
from metacache.testing import Memcached
from tests import raw_requests
from tests.client.rig import ask, store
from tests.client.watched import REAL, Watched, on_a_memcached

Call: TypeAlias = Callable[[Watched, str], Awaitable[object]]
Put: TypeAlias = Callable[[Node, str], object]
State: TypeAlias = tuple[bytes, int, str] | None
"""The value, the TTL in seconds rounded to hundreds, and the marks that a reader gets; None: no item."""

OLD, NEW = 500, 2000
_numbers = itertools.count(1)


# --- calls and items --------------------------------------------------------------------------------------------------


def touch(watched: Watched, key: str) -> Awaitable[object]:
    return watched.make(IntSerializer()).touch(key, NEW)


def get_and_touch(watched: Watched, key: str) -> Awaitable[object]:
    return watched.make(IntSerializer()).get_and_touch(key, NEW)


def increment(watched: Watched, key: str) -> Awaitable[object]:
    return watched.make(IntSerializer()).increment(key, ttl=NEW)


def decrement(watched: Watched, key: str) -> Awaitable[object]:
    return watched.make(IntSerializer()).decrement(key, initial=1, ttl=NEW)


def append(watched: Watched, key: str) -> Awaitable[object]:
    return watched.make(BytesSerializer()).append(key, b"9")


def prepend(watched: Watched, key: str) -> Awaitable[object]:
    return watched.make(StrSerializer()).prepend(key, "9")


def update(watched: Watched, key: str) -> Awaitable[object]:
    return watched.make(IntSerializer()).update(key, lambda number: (number or 0) + 1, ttl=NEW)


def nothing(node: Node, key: str) -> None:
    pass


def number(node: Node, key: str) -> None:
    store(node, key, b"9", ttl=OLD)


def lease(node: Node, key: str) -> None:
    ask(node, raw_requests.meta_get(key.encode(), {"vivify": OLD}))


def stale(node: Node, key: str) -> None:
    number(node, key)
    ask(node, raw_requests.meta_delete(key.encode(), {"invalidate": True}))


def stale_lease(node: Node, key: str) -> None:
    lease(node, key)
    ask(node, raw_requests.meta_delete(key.encode(), {"invalidate": True}))


class Case(NamedTuple):
    """A method and an item, and the states of the item after no request, after one and after two.

    ``is_unsure``: ``maybe_applied`` of an error before and after the first request, before and after the second.
    """

    call: Call
    put: Put
    after: tuple[State, ...]
    is_unsure: tuple[bool, ...]
    result: object = None


# A method whose first request changes the item, and a method whose first request only reads.
CHANGES: Final = (False, True, True, True)
LOOKS: Final = (False, False, False, True)
NEVER: Final = (False, False, False, False)
STORED, NOT_STORED = StoreResult.STORED, StoreResult.NOT_STORED

CASES: Final = (
    Case(touch, number, ((b"9", OLD, ""), (b"9", NEW, "")), CHANGES, result=True),
    Case(touch, stale, ((b"9", OLD, "WX"), (b"9", NEW, "XZ")), CHANGES, result=True),
    Case(touch, lease, ((b"", OLD, "Z"), (b"", NEW, "Z"), None), CHANGES, result=False),
    Case(touch, stale_lease, ((b"", OLD, "WX"), (b"", NEW, "XZ"), None), CHANGES, result=False),
    Case(touch, nothing, (None, None), CHANGES, result=False),
    Case(get_and_touch, number, ((b"9", OLD, ""), (b"9", NEW, "")), CHANGES, 9),
    Case(get_and_touch, stale, ((b"9", OLD, "WX"), (b"9", NEW, "XZ")), CHANGES, 9),
    Case(get_and_touch, lease, ((b"", OLD, "Z"), (b"", NEW, "Z"), None), CHANGES, None),
    Case(get_and_touch, stale_lease, ((b"", OLD, "WX"), (b"", NEW, "XZ"), None), CHANGES, None),
    Case(increment, number, ((b"9", OLD, ""), (b"10", OLD, ""), (b"10", NEW, "")), CHANGES, 10),
    Case(increment, nothing, (None, None), CHANGES, None),
    Case(decrement, number, ((b"9", OLD, ""), (b"8", OLD, ""), (b"8", NEW, "")), CHANGES, 8),
    Case(decrement, stale, ((b"9", OLD, "WX"), (b"8", OLD, "WX"), (b"8", NEW, "XZ")), CHANGES, 8),
    Case(decrement, nothing, (None, (b"1", NEW, ""), (b"1", NEW, "")), CHANGES, 1),
    Case(append, number, ((b"9", OLD, ""), (b"9", OLD, ""), (b"99", OLD, "")), LOOKS, STORED),
    Case(append, stale, ((b"9", OLD, "WX"), (b"9", OLD, "XZ"), (b"9", OLD, "WX")), NEVER, NOT_STORED),
    Case(append, lease, ((b"", OLD, "Z"), (b"", OLD, "Z")), NEVER, NOT_STORED),
    Case(append, nothing, (None, None), NEVER, NOT_STORED),
    Case(prepend, number, ((b"9", OLD, ""), (b"9", OLD, ""), (b"99", OLD, "")), LOOKS, STORED),
    Case(prepend, stale_lease, ((b"", OLD, "WX"), (b"", OLD, "XZ"), (b"", OLD, "WX")), NEVER, NOT_STORED),
    Case(update, number, ((b"9", OLD, ""), (b"9", OLD, ""), (b"10", NEW, "")), LOOKS, 10),
    Case(update, stale, ((b"9", OLD, "WX"), (b"9", OLD, "XZ"), (b"10", NEW, "")), LOOKS, 10),
    Case(update, lease, ((b"", OLD, "Z"), (b"", OLD, "Z"), (b"1", NEW, "")), LOOKS, 1),
    Case(update, nothing, (None, None, (b"1", NEW, "")), LOOKS, 1),
)


def name_of(case: Case) -> str:
    return f"{name(case.call)}-{name(case.put)}"


def name(function: Callable[..., object]) -> str:
    return function.__name__


class Moment(NamedTuple):
    """When a call ends: before or after the request of this number, from 0."""

    number: int
    is_after: bool

    @property
    def done(self) -> int:
        """The number of requests that the server has executed."""
        return self.number + self.is_after


def places(case: Case) -> Iterator[Moment]:
    return (Moment(half // 2, half % 2 == 1) for half in range(2 * (len(case.after) - 1)))


PLACES: Final = [
    pytest.param(case, place, id=f"{name_of(case)}-{place.number}-{'after' if place.is_after else 'before'}")
    for case in CASES
    for place in places(case)
]
SHOWN: Final[Mapping[str, Token]] = {"value": True, "return_ttl": True}


def state_of(node: Node, key: str) -> State:
    tokens, value = ask(node, raw_requests.meta_get(key.encode(), SHOWN))
    if value is None:
        return None
    ttl = next(int(token[1:]) for token in tokens[2:] if token[:1] == b"t")
    marks = sorted(token.decode() for token in tokens[2:] if token in (b"W", b"X", b"Z"))
    return value, round(ttl, -2), "".join(marks)


def begun(kind: str, server: Memcached, case: Case) -> tuple[Watched, str]:
    """Return clients of *kind*, and the key of the item of *case*."""
    key = f"two:{next(_numbers)}"
    case.put(server.node, key)
    return on_a_memcached(kind, server), key


# --- tests ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=name_of)
@pytest.mark.parametrize("kind", REAL)
async def test_a_call_without_an_interruption_has_the_final_state(
    shared_memcached: Memcached, kind: str, case: Case
) -> None:
    watched, key = begun(kind, shared_memcached, case)
    assert await case.call(watched, key) == case.result
    assert watched.sent == [name(case.call)] * (len(case.after) - 1)
    assert state_of(shared_memcached.node, key) == case.after[-1]
    await watched.aclose()


# Errors before a request, which say that it was not sent, and errors after one.
BEFORE: Final = (PoolTimeout, ConnectError, ClosedError)
AFTER: Final = (OperationTimeout, ConnectionLost)


@pytest.mark.parametrize(("case", "place"), PLACES)
@pytest.mark.parametrize("kind", REAL)
async def test_an_error_says_whether_the_call_may_have_been_applied(
    shared_memcached: Memcached, kind: str, case: Case, place: Moment
) -> None:
    for error in AFTER if place.is_after else BEFORE:
        watched, key = begun(kind, shared_memcached, case)
        watched.hook = failing_at(watched, place, error)
        with pytest.raises(error) as raised:
            await case.call(watched, key)
        assert raised.value.maybe_applied is case.is_unsure[2 * place.number + place.is_after]
        assert state_of(shared_memcached.node, key) == case.after[place.done]
        await watched.aclose()


def failing_at(watched: Watched, place: Moment, error: type[MetacacheError]) -> Callable[[int, bool], None]:
    """Return a hook that fails at *place* like a transport."""

    def fail(number: int, is_done: bool) -> None:
        if Moment(number, is_done) == place:
            raise error("as planned", maybe_applied=is_done and not watched.reads[number])

    return fail


# --- handlers ---------------------------------------------------------------------------------------------------------

MINE: Final = (TimeoutError, ConnectionResetError, KeyboardInterrupt, LookupError, OperationTimeout, DecodeError)


@contextmanager
def handler(mine: BaseException) -> Generator[None]:
    """Install a handler of SIGUSR1 that raises *mine*."""

    def raising(*_: object) -> NoReturn:
        raise mine

    before = signal.signal(signal.SIGUSR1, raising)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize(("case", "place"), PLACES)
def test_an_exception_of_a_handler_propagates_unchanged(shared_memcached: Memcached, case: Case, place: Moment) -> None:
    for kind in MINE:
        mine = kind("mine")
        watched, key = begun("Connection", shared_memcached, case)
        watched.hook = raising_at(place)
        with handler(mine), pytest.raises(kind) as raised:
            asyncio.run(awaiting(case.call(watched, key)))
        assert raised.value is mine
        assert mine.args == ("mine",)
        if isinstance(mine, MetacacheError):
            assert (mine.maybe_applied, mine.operation, mine.key, mine.node) == (False, None, None, None)
        assert state_of(shared_memcached.node, key) == case.after[place.done]
        asyncio.run(watched.aclose())


async def awaiting(call: Awaitable[object]) -> object:
    return await call


def raising_at(place: Moment) -> Callable[[int, bool], None]:
    def interrupt(number: int, is_done: bool) -> None:
        if Moment(number, is_done) == place:
            signal.raise_signal(signal.SIGUSR1)

    return interrupt


# --- cancelled tasks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("case", "place"), PLACES)
async def test_a_cancelled_task_leaves_the_state_of_the_finished_requests(
    shared_memcached: Memcached, case: Case, place: Moment
) -> None:
    watched, key = begun("AsyncConnection", shared_memcached, case)

    def cancel(number: int, is_done: bool) -> None:
        if Moment(number, is_done) == place:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()

    watched.hook = cancel
    task = asyncio.create_task(awaiting(case.call(watched, key)))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert state_of(shared_memcached.node, key) == case.after[place.done]
    await watched.aclose()


# --- leases -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [touch, get_and_touch])
@pytest.mark.parametrize("kind", REAL)
async def test_the_owner_of_a_touched_lease_can_still_store(shared_memcached: Memcached, kind: str, verb: Call) -> None:
    node, key = shared_memcached.node, f"two:{next(_numbers)}"
    tokens, _ = ask(node, raw_requests.meta_get(key.encode(), {"vivify": OLD, "return_cas": True}))
    cas = next(int(token[1:]) for token in tokens if token[:1] == b"c")
    watched = on_a_memcached(kind, shared_memcached)
    watched.hook = failing_at(watched, Moment(1, is_after=False), PoolTimeout)
    with pytest.raises(PoolTimeout):
        await verb(watched, key)
    store(node, key, b"5", compare_cas=cas)
    assert state_of(node, key) == (b"5", 0, "")
    await watched.aclose()


@pytest.mark.parametrize("kind", REAL)
async def test_a_lease_that_replaced_a_number_is_deleted(shared_memcached: Memcached, kind: str) -> None:
    node, key = shared_memcached.node, f"two:{next(_numbers)}"
    number(node, key)
    watched = on_a_memcached(kind, shared_memcached)

    def take(which: int, is_done: bool) -> None:
        if (which, is_done) == (0, True):
            ask(node, raw_requests.meta_delete(key.encode(), {}))
            lease(node, key)

    watched.hook = take
    assert await increment(watched, key) == 10
    assert watched.sent == ["increment"] * 3
    assert state_of(node, key) is None
    await watched.aclose()


@pytest.mark.parametrize("kind", REAL)
async def test_the_decode_error_of_get_and_touch_has_maybe_applied(shared_memcached: Memcached, kind: str) -> None:
    node, key = shared_memcached.node, f"two:{next(_numbers)}"
    store(node, key, b"text", ttl=OLD)
    watched = on_a_memcached(kind, shared_memcached)
    with pytest.raises(DecodeError) as raised:
        await watched.make(IntSerializer(), on_undecodable="raise").get_and_touch(key, NEW)
    assert raised.value.maybe_applied
    assert state_of(node, key) == (b"text", NEW, "")
    await watched.aclose()
