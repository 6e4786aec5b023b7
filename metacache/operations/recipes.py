"""Methods that need several requests, written once for both clients: coroutines that await only their effects.

The effects of the blocking client block, so its recipes run to their end in one step. The effects of the asyncio client
await the event loop. A recipe builds operations and decides what to run next; it does no I/O.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, TypeVar, final

from metacache.errors import (
    ConflictError,
    DecodeError,
    InvalidArgumentError,
    InvalidTypeError,
    MetacacheError,
)
from metacache.interrupts import is_injected
from metacache.operations.arguments import Default, Ttl
from metacache.operations.policies import MISS
from metacache.operations.readers import Precheck
from metacache.operations.requests import GET_AND_TOUCH, RENEWALS, TOUCH, UPDATE_STORE, Operations, error_context
from metacache.operations.results import StoreResult
from metacache.protocol.keys import Key
from metacache.settings import number_text
from metacache.transports.base import Operation, Verb

__all__ = ["Effects", "arithmetic", "extend", "get_and_touch", "touch", "update"]

T = TypeVar("T")
R = TypeVar("R")

# Seconds. After a lost race a recipe waits for a random time; its upper limit doubles with each attempt up to
# LONGEST_PAUSE. Without the random part, rivals would meet again in the next attempt.
FIRST_PAUSE: Final = 0.001
LONGEST_PAUSE: Final = 0.1
# More than the default of `update`, because an attempt runs no function of the caller. All attempts together wait about
# 3 seconds. 64 threads, or 1,000 tasks, that append to one key at the same time need 20 attempts at most.
EXTEND_ATTEMPTS: Final = 64


class Effects(Protocol):
    """The effects that a recipe may await."""

    async def run(self, op: Operation[R], /) -> R:
        """Run *op* with a timeout of its own."""
        ...

    async def sleep(self, seconds: float, /) -> None:
        """Wait for that number of seconds."""
        ...


@final
class _outcome:  # noqa: N801 - reads as a phrase: with _outcome(maybe_applied=True)
    """Set ``maybe_applied`` of every error of *kind* that is raised inside."""

    __slots__ = ("_kind", "_maybe_applied")

    def __init__(self, *, maybe_applied: bool, kind: type[MetacacheError] = MetacacheError) -> None:
        self._maybe_applied = maybe_applied
        self._kind = kind

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object, /) -> None:
        # An exception of a signal handler belongs to the caller and stays unchanged.
        if isinstance(error, self._kind) and not is_injected(error):
            error.maybe_applied = self._maybe_applied


async def get_and_touch(effects: Effects, ops: Operations[T], key: Key, ttl: Ttl) -> T | None:
    """Read the value and set its TTL; delete a lease placeholder, which would last too long with this TTL."""
    with _outcome(maybe_applied=True, kind=DecodeError):
        state = await effects.run(ops.get_and_touch(key, ttl))
    if state is None:
        return None
    if state.is_placeholder:
        await _remove(effects, ops, key, state.cas, GET_AND_TOUCH)
    return None if state.value is MISS else state.value


async def touch(effects: Effects, ops: Operations[T], key: Key, ttl: Ttl, verb: Verb = TOUCH) -> bool:
    """Set the TTL; delete a lease placeholder, which would last too long with this TTL."""
    state = await effects.run(ops.touch(key, ttl, verb))
    if state is None:
        return False
    if state.is_placeholder:
        await _remove(effects, ops, key, state.cas, verb)
    return not state.is_placeholder


async def _remove(effects: Effects, ops: Operations[T], key: Key, cas: int, verb: Verb) -> None:
    if not cas:
        return  # a server without CAS (-C): an unguarded delete could delete a value that was stored in between
    with _outcome(maybe_applied=True):
        await effects.run(ops.remove(key, cas, verb))


async def arithmetic(
    effects: Effects,
    ops: Operations[T],
    verb: Verb,
    key: Key,
    delta: int,
    initial: int | None,
    initial_ttl: Ttl | Default,
    ttl: Ttl | Default,
) -> int | None:
    """Add or subtract, then set the TTL if *ttl* is given."""
    number = await effects.run(ops.arithmetic(verb, key, delta, initial, initial_ttl, ttl))
    if number is None or isinstance(ttl, Default):
        return number
    with _outcome(maybe_applied=True):
        await touch(effects, ops, key, ttl, RENEWALS[verb])
    return number


async def extend(effects: Effects, ops: Operations[T], verb: Verb, key: Key, value: T) -> StoreResult:
    """Read the state of the item, then append or prepend by its CAS; retry if another writer stores in between."""
    extension = ops.extension(verb, key, value)  # checks the arguments before the precheck is sent
    for attempt in range(EXTEND_ATTEMPTS):
        await _pause(effects, attempt)
        precheck = await effects.run(ops.precheck(key, verb))
        if precheck is None or not await _can_extend(effects, ops, verb, key, precheck):
            return StoreResult.NOT_STORED
        stored = await effects.run(extension(precheck.cas))
        if stored is not StoreResult.EXISTS:
            return stored
    raise _conflict(verb, key, EXTEND_ATTEMPTS)


async def _can_extend(effects: Effects, ops: Operations[T], verb: Verb, key: Key, precheck: Precheck) -> bool:
    """Return whether the item may be extended; release the win flag if the precheck consumed it."""
    if not precheck.won:
        return precheck.can_extend
    with _outcome(maybe_applied=False):  # nothing was appended
        return await effects.run(ops.release_win(key, precheck, verb))


async def update(
    effects: Effects, ops: Operations[T], key: Key, fn: Callable[[T | None], T], ttl: Ttl | Default, attempts: int
) -> T:
    """Read the item, then store the new value by its CAS; retry if another writer stores in between."""
    with error_context(UPDATE_STORE, key):  # checks the arguments before the read is sent
        _check_update(fn, attempts)
        ops.ttl_flag(ttl)
    for attempt in range(attempts):
        await _pause(effects, attempt)
        state = await effects.run(ops.read_for_update(key))
        value = fn(None if state is None or state.value is MISS else state.value)
        stored = await effects.run(ops.store_for_update(key, value, ttl, None if state is None else state.cas))
        if stored is StoreResult.STORED:
            return value
    raise _conflict(UPDATE_STORE, key, attempts)


async def _pause(effects: Effects, attempt: int) -> None:
    if attempt:
        import random  # late: only after a conflict

        await effects.sleep(random.uniform(0, min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE)))


def _conflict(verb: Verb, key: Key, attempts: int) -> ConflictError:
    return ConflictError(f"another writer was first in each of {attempts} attempts", operation=verb.name, key=key)


def _check_update(fn: object, attempts: object) -> None:
    if not callable(fn):
        raise InvalidTypeError(f"fn is a function that takes the current value, not {type(fn).__name__}")
    if isinstance(attempts, bool) or not isinstance(attempts, int):
        raise InvalidTypeError(f"attempts is an int, not {type(attempts).__name__}")
    if attempts < 1:
        raise InvalidArgumentError(f"attempts is at least 1, not {number_text(attempts)}")
