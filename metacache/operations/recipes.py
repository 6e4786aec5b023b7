"""Verbs that need several exchanges, written once: coroutines that await nothing but the effects they are given.

The blocking client runs them with effects that never wait for a loop, the asyncio client with ones that do. Knows
operations; knows no transport, no socket, no loop.
"""

from __future__ import annotations

import random
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
from metacache.operations.readers import Look
from metacache.operations.requests import GET_AND_TOUCH, RENEWALS, TOUCH, UPDATE_STORE, Operations, located
from metacache.operations.results import StoreResult
from metacache.protocol.keys import Key
from metacache.settings import shown
from metacache.transports.base import Operation, Verb

__all__ = ["Effects", "arithmetic", "get_and_touch", "grow", "touch", "update"]

T = TypeVar("T")
R = TypeVar("R")

# Seconds a lost race waits at most before the next attempt, doubling; chosen at random, so that rivals part.
FIRST_PAUSE: Final = 0.001
LONGEST_PAUSE: Final = 0.1
# More than `update` has, for no function of the caller runs. All of them take 3 seconds or so: 64 threads, or 1,000
# tasks, that append to one key at the same time need 20 at most.
GROW_ATTEMPTS: Final = 64


class Effects(Protocol):
    """What a recipe may wait for."""

    async def run(self, op: Operation[R], /) -> R:
        """Run *op* within one timeout of its own."""
        ...

    async def sleep(self, seconds: float, /) -> None:
        """Wait."""
        ...


@final
class _outcome:  # noqa: N801 - reads as a phrase: with _outcome(maybe_applied=True)
    """Say in errors of these kinds raised inside whether the verb may have been applied."""

    __slots__ = ("_kind", "_maybe_applied")

    def __init__(self, *, maybe_applied: bool, kind: type[MetacacheError] = MetacacheError) -> None:
        self._maybe_applied = maybe_applied
        self._kind = kind

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object, /) -> None:
        # An exception that a signal handler raised is the caller's, and comes out unchanged.
        if isinstance(error, self._kind) and not is_injected(error):
            error.maybe_applied = self._maybe_applied


async def get_and_touch(effects: Effects, ops: Operations[T], key: Key, ttl: Ttl) -> T | None:
    """Read and touch; a placeholder, whose lease would now last too long, is removed."""
    with _outcome(maybe_applied=True, kind=DecodeError):
        held = await effects.run(ops.get_and_touch(key, ttl))
    if held is None:
        return None
    if held.is_placeholder:
        await _remove(effects, ops, key, held.cas, GET_AND_TOUCH)
    return None if held.value is MISS else held.value


async def touch(effects: Effects, ops: Operations[T], key: Key, ttl: Ttl, verb: Verb = TOUCH) -> bool:
    """Touch; a placeholder, whose lease would now last too long, is removed."""
    held = await effects.run(ops.touch(key, ttl, verb))
    if held is None:
        return False
    if held.is_placeholder:
        await _remove(effects, ops, key, held.cas, verb)
    return not held.is_placeholder


async def _remove(effects: Effects, ops: Operations[T], key: Key, cas: int, verb: Verb) -> None:
    if not cas:
        return  # a server without CAS (-C): an unguarded delete could hit a value that was stored meanwhile
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
    """Add or subtract, then touch where a time to live was given."""
    number = await effects.run(ops.arithmetic(verb, key, delta, initial, initial_ttl, ttl))
    if number is None or isinstance(ttl, Default):
        return number
    with _outcome(maybe_applied=True):
        await touch(effects, ops, key, ttl, RENEWALS[verb])
    return number


async def grow(effects: Effects, ops: Operations[T], verb: Verb, key: Key, value: T) -> StoreResult:
    """Look at the item, then append or prepend by its CAS, until no other writer came in between."""
    growth = ops.growth(verb, key, value)  # checks everything before the look is sent
    for attempt in range(GROW_ATTEMPTS):
        await _pause(effects, attempt)
        look = await effects.run(ops.look(key, verb))
        if look is None or not await _can_grow(effects, ops, verb, key, look):
            return StoreResult.NOT_STORED
        stored = await effects.run(growth(look.cas))
        if stored is not StoreResult.EXISTS:
            return stored
    raise _conflict(verb, key, GROW_ATTEMPTS)


async def _can_grow(effects: Effects, ops: Operations[T], verb: Verb, key: Key, look: Look) -> bool:
    """Return whether the item may be changed; give back the win that the look consumed."""
    if not look.won:
        return look.can_grow
    with _outcome(maybe_applied=False):  # nothing is appended
        return await effects.run(ops.give_back(key, look, verb))


async def update(
    effects: Effects, ops: Operations[T], key: Key, fn: Callable[[T | None], T], ttl: Ttl | Default, attempts: int
) -> T:
    """Compare-and-set until no other writer came in between."""
    with located(UPDATE_STORE, key):  # all of it before the read is sent, not after
        _check_update(fn, attempts)
        ops.ttl_flag(ttl)
    for attempt in range(attempts):
        await _pause(effects, attempt)
        held = await effects.run(ops.held(key))
        value = fn(None if held is None or held.value is MISS else held.value)
        stored = await effects.run(ops.fill(key, value, ttl, None if held is None else held.cas))
        if stored is StoreResult.STORED:
            return value
    raise _conflict(UPDATE_STORE, key, attempts)


async def _pause(effects: Effects, attempt: int) -> None:
    if attempt:
        await effects.sleep(random.uniform(0, min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE)))


def _conflict(verb: Verb, key: Key, attempts: int) -> ConflictError:
    return ConflictError(f"another writer came first in each of {attempts} attempts", operation=verb.name, key=key)


def _check_update(fn: object, attempts: object) -> None:
    if not callable(fn):
        raise InvalidTypeError(f"fn is a function of the value, not {type(fn).__name__}")
    if isinstance(attempts, bool) or not isinstance(attempts, int):
        raise InvalidTypeError(f"attempts is an int, not {type(attempts).__name__}")
    if attempts < 1:
        raise InvalidArgumentError(f"attempts is at least 1, not {shown(attempts)}")
