"""Verbs that need several exchanges, written once: coroutines that await nothing but the effects they are given.

The blocking client runs them with effects that never wait for a loop, the asyncio client with ones that do. Knows
operations; knows no transport, no socket, no loop.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from metacache.arguments import Default, Ttl
from metacache.errors import ConflictError, InvalidArgumentError, InvalidTypeError, MetacacheError, ServerError
from metacache.operations import (
    DECREMENT,
    DECREMENT_RENEW,
    GET_AND_TOUCH_REMOVE,
    INCREMENT,
    INCREMENT_RENEW,
    TOUCH_REMOVE,
    UPDATE_STORE,
    Operations,
    located,
)
from metacache.policies import MISS
from metacache.protocol.keys import Key
from metacache.results import StoreResult
from metacache.settings import shown
from metacache.transports import Operation, Verb

__all__ = ["Effects", "arithmetic", "get_and_touch", "touch", "update"]

T = TypeVar("T")
R = TypeVar("R")

RENEW: Final = {INCREMENT: INCREMENT_RENEW, DECREMENT: DECREMENT_RENEW}

# Seconds a lost race waits at most before the next attempt, doubling; chosen at random, so that rivals part.
FIRST_PAUSE: Final = 0.001
LONGEST_PAUSE: Final = 0.05


class Effects(Protocol):
    """What a recipe may wait for."""

    async def run(self, op: Operation[R], /) -> R:
        """Run *op* within one timeout of its own."""
        ...

    async def sleep(self, seconds: float, /) -> None:
        """Wait."""
        ...


async def get_and_touch(effects: Effects, ops: Operations[T], key: Key, ttl: Ttl) -> T | None:
    """Read and touch; a placeholder, whose lease would now last too long, is removed."""
    held = await effects.run(ops.get_and_touch(key, ttl))
    if held is None:
        return None
    if held.is_placeholder and held.cas:
        await effects.run(ops.delete(key, held.cas, GET_AND_TOUCH_REMOVE))
    return None if held.value is MISS else held.value


async def touch(effects: Effects, ops: Operations[T], key: Key, ttl: Ttl) -> bool:
    """Touch; a placeholder, whose lease would now last too long, is removed."""
    held = await effects.run(ops.touch(key, ttl))
    if held is None:
        return False
    if held.is_placeholder and held.cas:
        await effects.run(ops.delete(key, held.cas, TOUCH_REMOVE))
    return not held.is_placeholder


async def arithmetic(
    effects: Effects, ops: Operations[T], verb: Verb, key: Key, delta: int, initial: int | None, ttl: Ttl | Default
) -> int | None:
    """Add or subtract, then touch where a time to live was given."""
    number = await effects.run(ops.arithmetic(verb, key, delta, initial, ttl))
    if number is None or isinstance(ttl, Default):
        return number
    # The server writes a number into the item that it has, or makes a new one: when it gains a digit, and whenever
    # anything else holds the item, a reader for one. T then goes to the old item, and the reply tells it all the same.
    try:
        await effects.run(ops.touch(key, ttl, RENEW[verb]))
    except MetacacheError as error:
        error.maybe_applied = True  # the number was
        raise
    return number


async def update(
    effects: Effects, ops: Operations[T], key: Key, fn: Callable[[T | None], T], ttl: Ttl | Default, attempts: int
) -> T:
    """Compare-and-set until nobody came in between."""
    with located(UPDATE_STORE, key):  # all of it before the read is sent, not after
        _check_update(fn, attempts)
        ops.ttl_flag(ttl)
    for attempt in range(attempts):
        if attempt:
            await effects.sleep(random.uniform(0, min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE)))
        held = await effects.run(ops.held(key))
        if held is not None and not held.cas:
            raise ServerError("the server runs without CAS (-C): update would lose writes", operation="update", key=key)
        value = fn(None if held is None or held.value is MISS else held.value)
        stored = await effects.run(ops.fill(key, value, ttl, None if held is None else held.cas))
        if stored is StoreResult.STORED:
            return value
    raise ConflictError(f"another writer came first in each of {attempts} attempts", operation="update", key=key)


def _check_update(fn: object, attempts: object) -> None:
    if not callable(fn):
        raise InvalidTypeError(f"fn is a function of the value, not {type(fn).__name__}")
    if isinstance(attempts, bool) or not isinstance(attempts, int):
        raise InvalidTypeError(f"attempts is an int, not {type(attempts).__name__}")
    if attempts < 1:
        raise InvalidArgumentError(f"attempts is at least 1, not {shown(attempts)}")
