"""`get_or_compute` for one key: ask, then return, compute, or wait. One coroutine text for both clients.

It awaits only the effects of its client. The rule that everything here serves: the CAS that was read before the factory
began guards the store, so no older value replaces a newer one, and no deleted value returns. No connection is held
while a factory runs.
"""

from __future__ import annotations

import logging
import math
import random
from typing import Final, Generic, TypeVar, final

import attrs

from metacache.caching.asking import Asked, Asking, is_asked
from metacache.caching.context import begin_computing, end_computing, refuse_own
from metacache.caching.effects import Call, Effects
from metacache.caching.flights import Flight, Flights
from metacache.caching.leases import Leases
from metacache.caching.statistics import ComputationCounts
from metacache.errors import BusyError, MetacacheError, ServerError, ValueTooLargeError
from metacache.interrupts import is_from_handler, is_injected
from metacache.observe import Source
from metacache.operations.policies import MISS, READ, ErrorPolicy
from metacache.operations.results import Computed, StoreResult
from metacache.transports.base import Operation

__all__ = ["Fetcher", "log_covered"]

logger = logging.getLogger("metacache.caching")

T = TypeVar("T")
R = TypeVar("R")

# What the owner of a flight does.
COMPUTE: Final = "compute"  # it has the win
OVERTIME: Final = "overtime"  # it has waited for another caller for too long
UNCACHED: Final = "uncached"  # the cache failed
LOOK: Final = "look"  # it asks again for all that wait

# Seconds after which a caller that waits for a computation of this process asks the cache again: the key may have been
# deleted, or be computed by another process.
ASK_AGAIN: Final = 1.0
# Seconds between two looks at a key that another process computes. They grow by GROWTH with each look, so that a caller
# waits about a seventh of a computation's time longer than that takes.
FIRST_LOOK: Final = 0.005
LAST_LOOK: Final = 0.1
GROWTH: Final = 1.25


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

    __slots__ = ("asking", "counts", "effects", "errors", "flights", "leases")

    def __init__(
        self,
        effects: Effects,
        asking: Asking[T],
        flights: Flights[Computed[T] | Asked[T]],
        errors: ErrorPolicy,
        counts: ComputationCounts,
    ) -> None:
        self.effects = effects
        self.asking = asking
        self.flights = flights
        self.leases = Leases(effects, asking)
        self.errors = errors
        self.counts = counts

    async def get(self, call: Call[T], found: T | Asked[T]) -> Computed[T]:
        """Return the value of *call*, whose ask found *found*, and count its source."""
        computed = await self._get(call, found)
        self.counts.count(computed.source)
        return computed

    async def refresh(self, call: Call[T]) -> Computed[T]:
        """Compute the value of *call* now and store it, whatever is in the cache, and count its source.

        The item is marked stale first: so no computation that began before is stored, and one caller wins. Another
        caller's win after that counts as a computation that began after this call. An old value covers no failure.
        """
        refuse_own(self.counts, "refresh", {call.key: call.wire[0]})
        policy = attrs.evolve(call.plan.policy, stale_on=(), background=False)
        call = attrs.evolve(call, plan=attrs.evolve(call.plan, policy=policy))
        marked = await self._try(self.asking.invalidate(call.key, call.wire))
        found = None if marked is None else await self.ask(call)
        if found is None:
            return await self.get_uncached(call)
        computed = await self._get(call, found[0], takes_old=False)
        self.counts.count(computed.source)
        return computed

    async def get_uncached(self, call: Call[T]) -> Computed[T]:
        """Compute the value of *call*, whose ask failed, and count its source."""
        computed = await self._compute_uncached(call)
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
                if await self._try(self.asking.remove(call.key, call.wire, found.cas)) is None:
                    return await self._compute_uncached(call)
            else:
                has_waited, until = True, min(until, self.effects.now() + call.plan.wait)
                if self.effects.now() >= until:
                    return await self._overtime(call, found)
                met = await self._wait(call, found, until)
                if isinstance(met, Computed):
                    return met
                if met is not None:
                    found = met[0]
                    continue
            again = await self.ask(call)
            if again is None:
                return await self._compute_uncached(call)
            found = again[0]

    async def ask(self, call: Call[T]) -> tuple[T | Asked[T]] | None:
        """Ask the cache; None when that fails and the client forgives it."""
        return await self._try(self.asking.ask(call.key, call.wire, call.flags))

    async def _try(self, op: Operation[R]) -> tuple[R] | None:
        """Return the result of *op*; None when it fails and the client forgives that."""
        try:
            return (await self.effects.run(op),)
        except MetacacheError as error:
            if self.errors.suppresses(READ, error):
                return None
            raise

    # --- what ends the call ------------------------------------------------------------------------------------------

    async def _refuse_without_cas(self, call: Call[T], found: Asked[T]) -> None:
        if found.won:
            await self.effects.run(self.asking.remove_any(call.key, call.wire))
        raise ServerError(
            "the server runs without CAS (-C), which get_or_compute needs to guard its stores",
            operation="get_or_compute",
            key=call.key,
        )

    async def _refuse_undecodable(self, call: Call[T], found: Asked[T]) -> None:
        assert found.failure is not None
        if found.won:
            await self.leases.give_back(call, found, None)
        raise found.failure.locate(operation="get_or_compute", key=call.key)

    # --- computing ---------------------------------------------------------------------------------------------------

    async def _win(self, call: Call[T], found: Asked[T]) -> Computed[T] | None:
        """Compute, beside the caller if it may have the old value; None: ask again."""
        ends = self.effects.now() + found.left
        try:
            is_cut = await self.leases.shorten(call, found)
        except GeneratorExit:
            raise  # a closed coroutine may await nothing
        except BaseException as error:
            await self.leases.end(call, found, found.left)
            if isinstance(error, MetacacheError) and self.errors.suppresses(READ, error):
                return await self._compute_uncached(call)
            raise
        if is_cut is None:
            return None
        cut = ends if is_cut else None
        if call.plan.policy.background and found.value is not MISS:

            async def refresh() -> None:
                try:
                    self.counts.count((await self._compute(call, found, cut)).source)
                except Exception as error:
                    if is_from_handler(error):
                        raise
                    logger.warning("%s failed in the background (%s)", call.label, type(error).__name__)

            if self.effects.spawn(refresh, call.plan):
                return Computed(found.value, _source(call, found))
        return await self._compute(call, found, cut)

    async def _compute(self, call: Call[T], found: Asked[T], cut: float | None) -> Computed[T]:
        """Compute and store, for this caller and for the waiters of this process.

        *cut*: when the old value was to expire, if its life was shortened.
        """
        flight, _ = self.flights.start((call.wire[0], found.cas, COMPUTE))
        try:
            return await self._compute_and_store(call, found, flight, cut)
        finally:
            flight.finish()  # with nothing: waiters ask again

    async def _compute_and_store(
        self, call: Call[T], found: Asked[T], flight: Flight[Computed[T] | Asked[T]], cut: float | None
    ) -> Computed[T]:
        began = self.effects.now()
        try:
            value = await self._run_factory(call)
            store = self._store(call, found, value)
        except GeneratorExit:
            raise  # a closed coroutine may await nothing
        except BaseException as error:
            return await self._give_back(call, found, flight, error, cut)
        if store is None:
            await self.leases.remove(call, found)
            return self._finish(flight, Computed(value, Source.UNSTORED))
        computed = Computed(value, Source.UNSTORED)
        try:
            stored = await self.effects.run(store)
        except MetacacheError as error:
            flight.finish(computed)
            if not self.errors.suppresses(READ, error):
                raise
            return self._finish(flight, computed)
        if stored is StoreResult.STORED:
            computed = Computed(value, Source.COMPUTED)
        else:
            self.counts.note_refused(call.label, self.effects.now() - began, call.plan.lease)
        return self._finish(flight, computed)

    def _finish(self, flight: Flight[Computed[T] | Asked[T]], computed: Computed[T]) -> Computed[T]:
        flight.finish(computed)
        return computed

    async def _run_factory(self, call: Call[T]) -> T:
        began = begin_computing(self.counts, (call.wire[0],))
        try:
            value: T = await self.effects.compute(call.factory)
            return value
        finally:
            end_computing(began)

    def _store(self, call: Call[T], found: Asked[T], value: T) -> Operation[StoreResult] | None:
        """Return the operation that stores *value*; None: it is not wanted, or it is too large and that is forgiven."""
        if call.should_cache is not None and not call.should_cache(value):
            return None
        try:
            return self.asking.store(call.key, call.wire, value, call.plan.life(random.random()), found.cas)
        except ValueTooLargeError as error:
            if self.forgives_too_large(error):
                return None
            raise

    def forgives_too_large(self, error: ValueTooLargeError) -> bool:
        """Return whether a computed value that is too large for the protocol is returned and not stored."""
        return not is_injected(error) and self.errors.suppresses_too_large(error)

    # --- after a failure ---------------------------------------------------------------------------------------------

    async def _give_back(
        self,
        call: Call[T],
        found: Asked[T],
        flight: Flight[Computed[T] | Asked[T]],
        error: BaseException,
        cut: float | None,
    ) -> Computed[T]:
        """Give the right to compute back after *error*, then raise it, or return the old value that covers it."""
        # An exception of a signal handler, like a cancellation, concerns this caller only.
        is_failure = isinstance(error, Exception) and not is_from_handler(error)
        try:
            await self.leases.end(call, found, None if cut is None else cut - self.effects.now())
        finally:
            if isinstance(error, Exception) and is_failure:
                self.counts.count_failure(error)
                flight.finish(failure=error)
        if not is_failure or found.value is MISS or not isinstance(error, call.plan.policy.stale_on):
            raise error
        log_covered(call.label, error)
        return Computed(found.value, Source.STALE)

    # --- waiting -----------------------------------------------------------------------------------------------------

    async def _wait(self, call: Call[T], found: Asked[T], until: float) -> Computed[T] | tuple[T | Asked[T]] | None:
        """Wait for another caller; return its value, or what the cache then says; None: ask again."""
        flight = self.flights.find((call.wire[0], found.cas, COMPUTE))
        if flight is not None:
            await self.effects.wait(flight, min(ASK_AGAIN, until - self.effects.now()))
            return self._met(flight)
        look, is_owner = self.flights.start((call.wire[0], found.cas, LOOK))
        if is_owner:
            return await self._look(call, found, look, until)
        await self.effects.wait(look, min(ASK_AGAIN, until - self.effects.now()))
        return self._met(look)

    def _met(self, flight: Flight[Computed[T] | Asked[T]]) -> Computed[T] | tuple[T | Asked[T]] | None:
        """Return what a flight has come to; None if it has not, or its owner gave up."""
        if flight.failure is not None:
            raise flight.failure
        result = flight.result
        if isinstance(result, Asked):
            return (result,)
        if result is None:
            return None
        return Computed(result.value, Source.WAITED)

    async def _look(
        self, call: Call[T], found: Asked[T], look: Flight[Computed[T] | Asked[T]], until: float
    ) -> Computed[T] | tuple[T | Asked[T]] | None:
        """Ask again from time to time, for all that wait in this process, until the state of the key changes."""
        pause = FIRST_LOOK
        try:
            while True:
                left = until - self.effects.now()
                if left <= 0:
                    return (found,)
                await self.effects.sleep(min(random.uniform(pause / 2, pause), left))
                pause = min(GROWTH * pause, LAST_LOOK)
                # The winner may be of this process, and have begun its flight after this caller looked for it.
                if self.flights.find((call.wire[0], found.cas, COMPUTE)) is not None:
                    return None
                again = await self.ask(call)
                if again is None:
                    return await self._compute_uncached(call)
                (seen,) = again
                if is_asked(seen) and seen.cas == found.cas and not seen.won:
                    continue
                look.finish(seen.as_taken() if is_asked(seen) else Computed(seen, Source.WAITED))
                return again
        finally:
            look.finish()

    async def _overtime(self, call: Call[T], found: Asked[T]) -> Computed[T]:
        """Raise BusyError, or compute once in this process although another caller has the lease."""
        if call.plan.policy.on_busy == "raise":
            raise BusyError(
                f"another caller has computed the value for longer than {call.plan.wait:g} seconds",
                operation="get_or_compute",
                key=call.key,
            )
        return await self._alone(call, found, OVERTIME)

    async def _compute_uncached(self, call: Call[T]) -> Computed[T]:
        """Compute once in this process, for the cache failed."""
        return await self._alone(call, None, UNCACHED)

    async def _alone(self, call: Call[T], found: Asked[T] | None, kind: str) -> Computed[T]:
        """Compute without the lease, or wait for the caller of this process that does so."""
        cas = 0 if found is None else found.cas
        while True:
            flight, is_owner = self.flights.start((call.wire[0], cas, kind))
            if is_owner:
                break
            await self.effects.wait(flight, ASK_AGAIN)
            met = self._met(flight)
            if isinstance(met, Computed):
                return met
        try:
            return await self._compute_alone(call, found, flight)
        finally:
            flight.finish()

    async def _compute_alone(
        self, call: Call[T], found: Asked[T] | None, flight: Flight[Computed[T] | Asked[T]]
    ) -> Computed[T]:
        try:
            value = await self._run_factory(call)
            store = None if found is None else self._store(call, found, value)
        except Exception as error:
            if not is_from_handler(error):
                self.counts.count_failure(error)
                flight.finish(failure=error)
            raise
        computed = Computed(value, Source.UNSTORED)
        if store is not None:
            try:
                if await self.effects.run(store) is StoreResult.STORED:
                    computed = Computed(value, Source.COMPUTED)
            except MetacacheError as error:
                flight.finish(computed)
                if not self.errors.suppresses(READ, error):
                    raise
        return self._finish(flight, computed)


def _source(call: Call[T], found: Asked[T], *, has_waited: bool = False) -> Source:
    """Return the source of a value that another caller is about to replace."""
    if found.is_stale or found.left <= call.plan.stale:
        return Source.STALE
    return Source.WAITED if has_waited else Source.HIT


def log_covered(label: str, error: BaseException) -> None:
    """Log that an old value is served instead of *error*."""
    logger.warning("%s failed (%s); an old value is served", label, type(error).__name__)
