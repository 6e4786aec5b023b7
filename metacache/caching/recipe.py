"""`get_or_compute` for one key: ask, then return, compute, or wait. One coroutine text for both clients.

It awaits only the effects of its client. The rule that everything here serves: the CAS that was read before the factory
began guards the store, so no older value replaces a newer one, and no deleted value returns.
"""

from __future__ import annotations

import logging
import math
from typing import Generic, TypeVar, final

import attrs

from metacache.caching.asking import Asked, Asking, is_asked
from metacache.caching.computing import Computing
from metacache.caching.context import refuse_own
from metacache.caching.effects import Call, Effects
from metacache.caching.exchanges import Exchanges
from metacache.caching.flights import Flights
from metacache.caching.leases import Leases
from metacache.caching.statistics import ComputationCounts
from metacache.caching.waiting import Shared, Waiting
from metacache.errors import ServerError
from metacache.interrupts import is_from_handler
from metacache.observe import Source
from metacache.operations.policies import MISS, ErrorPolicy
from metacache.operations.results import Computed

__all__ = ["Fetcher"]

logger = logging.getLogger("metacache.caching")

T = TypeVar("T")


@final
class Fetcher(Generic[T]):
    """Runs `get_or_compute` for one client and its views.

    Args:
        effects: of the client.
        asking: its requests.
        flights: the computations of this process.
        errors: which errors it forgives.
        counts: counts computations.
    """

    __slots__ = ("_computing", "_effects", "_leases", "counts", "exchanges", "flights", "waiting")

    def __init__(
        self,
        effects: Effects,
        asking: Asking[T],
        flights: Flights[Shared[T]],
        errors: ErrorPolicy,
        counts: ComputationCounts,
    ) -> None:
        self._effects = effects
        self.exchanges = Exchanges(effects, asking, errors)
        self.flights = flights
        self.counts = counts
        self.waiting = Waiting(self.exchanges, flights)
        self._leases = Leases(effects, asking)
        self._computing = Computing(self.exchanges, self._leases, flights, counts)

    async def get(self, call: Call[T], found: T | Asked[T]) -> Computed[T]:
        """Return the value of *call*, whose ask found *found*, and count its source."""
        return self._counted(await self._get(call, found))

    async def get_uncached(self, call: Call[T]) -> Computed[T]:
        """Compute the value of *call*, whose ask failed, and count its source."""
        return self._counted(await self._computing.compute_uncached(call))

    async def refresh(self, call: Call[T]) -> Computed[T]:
        """Compute the value of *call* now and store it, whatever is in the cache, and count its source.

        The item is marked stale first: so no computation that began before is stored, and one caller wins. Another
        caller's win after that counts as a computation that began after this call. An old value covers no failure.
        """
        refuse_own(self.counts, "refresh", {call.key: call.wire[0]})
        policy = attrs.evolve(call.plan.policy, stale_on=(), background=False)
        call = attrs.evolve(call, plan=attrs.evolve(call.plan, policy=policy))
        marked = await self.exchanges.attempt(self.exchanges.asking.invalidate(call.key, call.wire))
        found = None if marked is None else await self.exchanges.ask(call)
        if found is None:
            return await self.get_uncached(call)
        return self._counted(await self._get(call, found[0], takes_old=False))

    def _counted(self, computed: Computed[T]) -> Computed[T]:
        self.counts.count(computed.source)
        return computed

    async def _get(self, call: Call[T], found: T | Asked[T], *, takes_old: bool = True) -> Computed[T]:
        has_waited = False
        until = math.inf
        while True:
            if not is_asked(found):
                return Computed(found, Source.WAITED if has_waited else Source.HIT)
            if not found.cas:
                await self._refuse_without_cas(call, found)
            elif found.failure is not None:
                await self._refuse_undecodable(call, found)
            elif found.won:
                computed = await self._win(call, found)
                if computed is not None:
                    return computed
            elif found.value is not MISS and (takes_old or not found.taken):
                return Computed(found.value, _source(call, found, has_waited=has_waited))
            elif found.value is MISS and not found.is_placeholder:  # it cannot be decoded
                remove = self.exchanges.asking.remove(call.key, call.wire, found.cas)
                if await self.exchanges.attempt(remove) is None:
                    return await self._computing.compute_uncached(call)
            else:
                has_waited, until = True, min(until, self._effects.now() + call.plan.wait)
                if self._effects.now() >= until:
                    return await self._computing.compute_overtime(call, found)
                ask = self.exchanges.asking.ask(call.key, call.wire, call.flags)
                met = await self.waiting.wait(ask, found, until)
                if isinstance(met, Computed):
                    return met
                if met is not None:
                    found = met[0]
                    continue
            again = await self.exchanges.ask(call)
            if again is None:
                return await self._computing.compute_uncached(call)
            found = again[0]

    # --- what ends the call ------------------------------------------------------------------------------------------

    async def _refuse_without_cas(self, call: Call[T], found: Asked[T]) -> None:
        if found.won:
            await self._effects.run(self.exchanges.asking.remove_any(call.key, call.wire))
        raise ServerError(
            "the server runs without CAS (-C), which get_or_compute needs to guard its stores",
            operation="get_or_compute",
            key=call.key,
        )

    async def _refuse_undecodable(self, call: Call[T], found: Asked[T]) -> None:
        assert found.failure is not None
        if found.won:
            await self._leases.give_back(call, found, None)
        raise found.failure.locate(operation="get_or_compute", key=call.key)

    # --- after a win -------------------------------------------------------------------------------------------------

    async def _win(self, call: Call[T], found: Asked[T]) -> Computed[T] | None:
        """Compute, beside the caller if it may have the old value; None: ask again."""
        ends = self._effects.now() + found.left
        try:
            is_cut = await self._leases.shorten(call, found)
        except GeneratorExit:
            raise  # a closed coroutine may await nothing
        except BaseException as error:
            await self._leases.end(call, found, found.left)
            if self.exchanges.forgives(error):
                return await self._computing.compute_uncached(call)
            raise
        if is_cut is None:
            return None
        cut = ends if is_cut else None
        if (
            call.plan.policy.background
            and found.value is not MISS
            and self._effects.spawn(lambda: self._refresh_beside(call, found, cut), call.plan)
        ):
            return Computed(found.value, _source(call, found))
        return await self._computing.compute(call, found, cut)

    async def _refresh_beside(self, call: Call[T], found: Asked[T], cut: float | None) -> None:
        """Compute and store without a caller: a failure is logged."""
        try:
            self._counted(await self._computing.compute(call, found, cut))
        except Exception as error:
            if is_from_handler(error):
                raise
            logger.warning("%s failed in the background (%s)", call.label, type(error).__name__)


def _source(call: Call[T], found: Asked[T], *, has_waited: bool = False) -> Source:
    """Return the source of a value that another caller is about to replace."""
    if found.is_stale or found.left <= call.plan.stale:
        return Source.STALE
    return Source.WAITED if has_waited else Source.HIT
