"""`get_or_compute` of a `Client`: its effects. The recipes are in `caching`."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar, final

from metacache.caching.effects import Recipe
from metacache.caching.flights import Flight
from metacache.caching.policy import Plan
from metacache.interrupts import is_own
from metacache.protocol.windows import Replies
from metacache.transports.base import Batch, Operation
from metacache.transports.blocking.checkout import POLL, Waker
from metacache.transports.blocking.driver import drive

if TYPE_CHECKING:
    from metacache.client.blocking_effects import BlockingEffects

__all__ = ["BlockingCachingEffects"]

R = TypeVar("R")


@final
class BlockingCachingEffects:
    """The effects of `get_or_compute` in a blocking client: threads wait on wakers, an Executor refreshes."""

    __slots__ = ("_effects",)

    def __init__(self, effects: BlockingEffects) -> None:
        self._effects = effects

    async def run(self, op: Operation[R], /) -> R:
        """Run *op* within one timeout of its own."""
        return self._effects.transport_run(op, deadline=None)

    async def run_batch(self, batch: Batch, /) -> Replies:
        """Run *batch* within one timeout of its own."""
        return self._effects.run_batch(batch)

    async def sleep(self, seconds: float, /) -> None:
        """Wait."""
        time.sleep(seconds)

    async def compute(self, factory: Callable[[], Any], /) -> Any:  # Any: T
        """Return what *factory* computes."""
        return factory()

    async def wait(self, flight: Flight[Any], seconds: float, /) -> None:  # Any: of no use here
        """Wait until *flight* ends, *seconds* at most."""
        waker = Waker()
        flight.listen(waker.wake)
        end = time.monotonic() + seconds
        # A signal may interrupt the thread that ends the flight, so waiters look for themselves.
        while not flight.is_done and (left := end - time.monotonic()) > 0:
            waker.wait(min(left, POLL))

    def now(self) -> float:
        """Return ``time.monotonic()``."""
        return time.monotonic()

    def spawn(self, recipe: Recipe, plan: Plan, /) -> bool:
        """Run *recipe* in the Executor of the policy; return False if that is shut down."""
        executor = plan.policy.background
        if not isinstance(executor, Executor):
            return False
        try:
            executor.submit(copy_context().run, lambda: drive(recipe()))
        except RuntimeError as error:  # it is shut down
            if not is_own(error, type(executor).__module__):
                raise
            return False
        return True
