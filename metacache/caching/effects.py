"""What the recipes of `get_or_compute` need of a client: the protocol of its effects, and one call's arguments."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar, final

import attrs

from metacache.caching.flights import Flight
from metacache.caching.policy import Plan
from metacache.protocol.keys import K, Key, WireKey
from metacache.protocol.windows import Replies
from metacache.transports.base import Batch, Operation

__all__ = ["Call", "CallMany", "Effects", "Recipe"]

T = TypeVar("T")
R = TypeVar("R")

# Any: a coroutine of a recipe yields nothing that the recipe knows of.
Recipe = Callable[[], Coroutine[Any, Any, object]]


class Effects(Protocol):
    """What a recipe may wait for, and the clock."""

    async def run(self, op: Operation[R], /) -> R:
        """Run *op* within one timeout of its own."""
        ...

    async def run_batch(self, batch: Batch, /) -> Replies:
        """Run *batch* within one timeout of its own."""
        ...

    async def sleep(self, seconds: float, /) -> None:
        """Wait."""
        ...

    async def compute(self, factory: Callable[[], Any], /) -> Any:  # Any: T, or in the asyncio client an awaitable of T
        """Return what *factory* computes."""
        ...

    async def wait(self, flight: Flight[Any], seconds: float, /) -> None:  # Any: of no use here
        """Wait until *flight* ends, *seconds* at most."""
        ...

    def now(self) -> float:
        """Return ``time.monotonic()``."""
        ...

    def spawn(self, recipe: Recipe, plan: Plan, /) -> bool:
        """Run *recipe* beside the caller; return False if that is not possible now."""
        ...


@final
@attrs.frozen(eq=False)
class Call(Generic[T]):
    """The arguments of one `get_or_compute`.

    Attributes:
        key: the key as the caller gave it, for errors.
        wire: the key as it is sent.
        flags: what follows the key of an ask.
        factory: computes the value; in the asyncio client it returns an awaitable.
        plan: the policy for the time to live.
        should_cache: whether to store a computed value; None: always.
        label: what logs call the computation.
    """

    key: Key
    wire: WireKey
    flags: bytes
    factory: Callable[[], Any]  # Any: as in `Effects.compute`
    plan: Plan
    should_cache: Callable[[T], bool] | None
    label: str


@final
@attrs.frozen(eq=False)
class CallMany(Generic[K, T]):
    """The arguments of one `get_or_compute_many`.

    Attributes:
        wires: the keys as they are sent, by the caller's keys.
        aliases: further keys of the caller, and the one of *wires* that is the same key.
        flags, plan, should_cache, label: as in `Call`.
        factory: computes the values of the keys that it is given.
    """

    wires: Mapping[K, WireKey]
    aliases: Mapping[K, K]
    flags: bytes
    factory: Callable[[Sequence[K]], Any]  # Any: as in `Call`
    plan: Plan
    should_cache: Callable[[T], bool] | None
    label: str
