"""The steps of the workers: one random call each, with the check of its result. One text for both clients."""

# The clients are Any, and pyright calls the types of what they return unknown.
# pyright: reportUnknownLambdaType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from metacache import Computed, Item, Stampede
from storms.canary import ForeignValue, canary, check_canary

__all__ = ["Clients", "Step", "next_step"]

KEYS: Final = 2_000
BATCH: Final = 40  # keys
TTL: Final = 600  # seconds
# No call waits for the lease of a worker whose node was frozen.
POLICY: Final = Stampede(lease=2, wait=0.1, on_busy="compute")


class Clients(NamedTuple):
    """The clients of a worker. Any: a Client or an AsyncClient, which have the same methods."""

    values: Any  # as above, of bytes
    counters: Any  # as above, of int
    timeout: float
    factory: Callable[[Callable[[], bytes]], Callable[[], Any]]  # Any: what a factory of the client returns


class Step(NamedTuple):
    """One call. Any: its result, or an awaitable of it."""

    verb: str
    keys: int
    call: Callable[[Clients], Any]
    check: Callable[[Any], object]
    is_timed: bool = True  # one deadline covers the whole call


def next_step(chance: random.Random, writer: int, number: int) -> Step:
    """Return the next random step of *writer*."""
    draw = _Draw(chance.randrange(KEYS), writer, number, chance)
    return chance.choice(_STEPS)(draw)


class _Draw(NamedTuple):
    """The random choices of one step."""

    first: int
    writer: int
    number: int
    chance: random.Random

    @property
    def key(self) -> str:
        return f"key:{self.first}"

    @property
    def keys(self) -> list[str]:
        return [f"key:{(self.first + each) % KEYS}" for each in range(BATCH)]

    def value(self, key: str) -> bytes:
        """Return a canary for *key*."""
        return canary(key, self.writer, self.number, self.chance)


def _anything(_: object) -> None:
    """Accept every result."""


def _get(draw: _Draw) -> Step:
    key = draw.key
    return Step("get", 1, lambda clients: clients.values.get(key), lambda value: check_canary(key, value))


def _set(draw: _Draw) -> Step:
    key = draw.key
    value = draw.value(key)
    return Step("set", 1, lambda clients: clients.values.set(key, value, ttl=TTL), _anything)


def _get_many(draw: _Draw) -> Step:
    keys = draw.keys
    return Step("get_many", BATCH, lambda clients: clients.values.get_many(keys), _check_all)


def _check_all(found: Mapping[str, bytes]) -> None:
    for key, value in found.items():
        check_canary(key, value)


def _set_many(draw: _Draw) -> Step:
    keys = draw.keys
    values = {key: draw.value(key) for key in keys}
    return Step("set_many", BATCH, lambda clients: clients.values.set_many(values, ttl=TTL), _anything)


def _get_item(draw: _Draw) -> Step:
    key = draw.key

    def check(item: Item[bytes] | None) -> None:
        if item is not None:
            check_canary(key, item.value)

    return Step("get_item", 1, lambda clients: clients.values.get_item(key), check)


def _get_and_touch(draw: _Draw) -> Step:
    key = draw.key
    return Step(
        "get_and_touch",
        1,
        lambda clients: clients.values.get_and_touch(key, TTL),
        lambda value: check_canary(key, value),
    )


def _delete(draw: _Draw) -> Step:
    key = draw.key
    return Step("delete", 1, lambda clients: clients.values.delete(key), _anything)


def _add(draw: _Draw) -> Step:
    key = draw.key
    value = draw.value(key)
    return Step("add", 1, lambda clients: clients.values.add(key, value, ttl=TTL), _anything)


def _increment(draw: _Draw) -> Step:
    key = f"count:{draw.first}"

    def check(count: int | None) -> None:
        if count is not None and not 1_000_000 <= count < 1_000_000_000:
            raise ForeignValue(key)

    return Step("increment", 1, lambda clients: clients.counters.increment(key, 1, initial=1_000_000), check)


def _get_or_compute(draw: _Draw) -> Step:
    key = f"made:{draw.first % 200}"
    value = draw.value(key)

    def call(clients: Clients) -> Any:  # Any: as in `Step`
        return clients.values.get_or_compute_item(key, clients.factory(lambda: value), ttl=5, policy=POLICY)

    def check(made: Computed[bytes]) -> None:
        check_canary(key, made.value)

    return Step("get_or_compute", 1, call, check, is_timed=False)


_STEPS: Final = (
    *(_get, _get, _get, _get, _set, _set, _get_many, _get_many, _set_many),
    *(_get_item, _get_and_touch, _delete, _add, _increment, _get_or_compute),
)
