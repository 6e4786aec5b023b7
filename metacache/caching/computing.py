"""How one caller computes a value: run the factory, store its result by CAS, share it, or give the lease back.

The CAS that was read before the factory began guards the store. No connection is held while a factory runs. It awaits
only the effects of its client.
"""

from __future__ import annotations

import logging
import random
from typing import Final, Generic, TypeGuard, TypeVar, final

from metacache.caching.asking import Asked
from metacache.caching.context import begin_computing, end_computing
from metacache.caching.effects import Call
from metacache.caching.exchanges import Exchanges
from metacache.caching.flights import Flight, Flights
from metacache.caching.leases import Leases
from metacache.caching.statistics import ComputationCounts
from metacache.caching.waiting import ASK_AGAIN, COMPUTE, Shared, result_of
from metacache.errors import BusyError, MetacacheError, ValueTooLargeError
from metacache.interrupts import is_from_handler, is_injected
from metacache.observe import Source
from metacache.operations.policies import MISS
from metacache.operations.results import Computed, StoreResult
from metacache.transports.base import Operation

__all__ = ["OVERTIME", "UNCACHED", "Computing", "is_failure", "log_covered", "raised_by_factory"]

logger = logging.getLogger("metacache.caching")

T = TypeVar("T")

# What the owner of a flight does, beside COMPUTE.
OVERTIME: Final = "overtime"  # it has waited for another caller for too long
UNCACHED: Final = "uncached"  # the cache failed


@final
class Computing(Generic[T]):
    """Computes values for one client and its views.

    Args:
        exchanges: of the client.
        leases: gives leases back.
        flights: the computations of this process.
        counts: counts computations.
    """

    __slots__ = ("_counts", "_effects", "_exchanges", "_flights", "_leases")

    def __init__(
        self, exchanges: Exchanges[T], leases: Leases[T], flights: Flights[Shared[T]], counts: ComputationCounts
    ) -> None:
        self._exchanges = exchanges
        self._effects = exchanges.effects
        self._leases = leases
        self._flights = flights
        self._counts = counts

    # --- with a lease ------------------------------------------------------------------------------------------------

    async def compute(self, call: Call[T], found: Asked[T], cut: float | None) -> Computed[T]:
        """Compute and store, for this caller and for the waiters of this process.

        *cut*: when the old value was to expire, if its life was shortened.
        """
        flight, _ = self._flights.start((call.wire[0], found.cas, COMPUTE))
        try:
            return await self._compute(call, found, flight, cut)
        finally:
            flight.finish()  # with nothing: waiters ask again

    async def _compute(
        self, call: Call[T], found: Asked[T], flight: Flight[Shared[T]], cut: float | None
    ) -> Computed[T]:
        began = self._effects.now()
        try:
            value = await self._run_factory(call)
            store = self._store(call, found, value)
        except GeneratorExit:
            raise  # a closed coroutine may await nothing
        except BaseException as error:
            return await self._after_failure(call, found, flight, raised_by_factory(error), cut)
        seconds = self._effects.now() - began
        try:
            computed = await self._end_with(call, found, flight, value, store)
        except GeneratorExit:
            raise
        except BaseException as error:
            if not isinstance(error, MetacacheError) or is_injected(error):
                # A cancellation, or a signal, perhaps before the request was sent.
                await self._leases.end(call, found, self._rest(cut))
            raise
        if store is not None and computed.source is not Source.COMPUTED:
            self._counts.note_refused(call.label, seconds, call.plan.lease)
        return computed

    async def _end_with(
        self,
        call: Call[T],
        found: Asked[T],
        flight: Flight[Shared[T]],
        value: T,
        store: Operation[StoreResult] | None,
    ) -> Computed[T]:
        """Run *store*, or remove the lease without it, and share *value*."""
        if store is not None:
            return await self._run_store(store, flight, value)
        await self._leases.remove(call, found)
        return _shared(flight, Computed(value, Source.UNSTORED))

    def _rest(self, cut: float | None) -> float | None:
        return None if cut is None else cut - self._effects.now()

    async def _after_failure(
        self, call: Call[T], found: Asked[T], flight: Flight[Shared[T]], error: BaseException, cut: float | None
    ) -> Computed[T]:
        """Give the lease back after *error*, then raise it, or return the old value that covers it."""
        try:
            await self._leases.end(call, found, self._rest(cut))
        finally:
            if is_failure(error):
                self._counts.count_failure(error)
                flight.finish(failure=error)
        if not is_failure(error) or found.value is MISS or not isinstance(error, call.plan.policy.stale_on):
            raise error
        log_covered(call.label, error)
        return Computed(found.value, Source.STALE)

    # --- without a lease ---------------------------------------------------------------------------------------------

    async def compute_overtime(self, call: Call[T], found: Asked[T]) -> Computed[T]:
        """Raise BusyError, or compute once in this process although another caller has the lease."""
        if call.plan.policy.on_busy == "raise":
            raise BusyError(
                f"another caller has computed the value for longer than {call.plan.wait:g} seconds",
                operation="get_or_compute",
                key=call.key,
            )
        return await self._compute_alone(call, found, OVERTIME)

    async def compute_uncached(self, call: Call[T]) -> Computed[T]:
        """Compute once in this process, and store nothing, because the cache failed."""
        return await self._compute_alone(call, None, UNCACHED)

    async def _compute_alone(self, call: Call[T], found: Asked[T] | None, kind: str) -> Computed[T]:
        """Compute without the lease, or wait for the caller of this process that does so."""
        cas = 0 if found is None else found.cas
        while True:
            flight, is_owner = self._flights.start((call.wire[0], cas, kind))
            if is_owner:
                break
            await self._effects.wait(flight, ASK_AGAIN)
            met = result_of(flight)
            if isinstance(met, Computed):
                return met
        try:
            return await self._compute_without_lease(call, found, flight)
        finally:
            flight.finish()

    async def _compute_without_lease(
        self, call: Call[T], found: Asked[T] | None, flight: Flight[Shared[T]]
    ) -> Computed[T]:
        try:
            value = await self._run_factory(call)
            store = None if found is None else self._store(call, found, value)
        except Exception as error:
            raised = raised_by_factory(error)
            if is_failure(raised):
                self._counts.count_failure(raised)
                flight.finish(failure=raised)
            raise
        if store is None:
            return _shared(flight, Computed(value, Source.UNSTORED))
        return await self._run_store(store, flight, value)

    # --- steps of both -----------------------------------------------------------------------------------------------

    async def _run_factory(self, call: Call[T]) -> T:
        began = begin_computing(self._counts, (call.wire[0],))
        try:
            value: T = await self._effects.compute(call.factory)
            return value
        finally:
            end_computing(began)

    def _store(self, call: Call[T], found: Asked[T], value: T) -> Operation[StoreResult] | None:
        """Return the operation that stores *value*; None: it is not wanted, or it is too large and that is forgiven."""
        if call.should_cache is not None and not call.should_cache(value):
            return None
        asking = self._exchanges.asking
        try:
            return asking.store(call.key, call.wire, value, call.plan.life(random.random()), found.cas)
        except ValueTooLargeError as error:
            if self._exchanges.forgives_too_large(error):
                return None
            raise

    async def _run_store(self, store: Operation[StoreResult], flight: Flight[Shared[T]], value: T) -> Computed[T]:
        """Run *store* and share *value*. Waiters get the value also when this raises."""
        computed = Computed(value, Source.UNSTORED)
        try:
            if await self._effects.run(store) is StoreResult.STORED:
                computed = Computed(value, Source.COMPUTED)
        except MetacacheError as error:
            if not self._exchanges.forgives(error):
                raise
        finally:
            flight.finish(computed)
        return computed


def _shared(flight: Flight[Shared[T]], computed: Computed[T]) -> Computed[T]:
    flight.finish(computed)
    return computed


def raised_by_factory(error: BaseException) -> BaseException:
    """Return what the factory raised: a coroutine turns a StopIteration into a RuntimeError (PEP 479)."""
    cause = error.__cause__
    return cause if isinstance(error, RuntimeError) and isinstance(cause, StopIteration) else error


def is_failure(error: BaseException) -> TypeGuard[Exception]:
    """Return whether *error* is a failure that concerns all who wait for the factory.

    An exception of a signal handler, like a cancellation, concerns its caller only.
    """
    return isinstance(error, Exception) and not is_from_handler(error)


def log_covered(label: str, error: BaseException) -> None:
    """Log that an old value is served instead of *error*."""
    logger.warning("%s failed (%s); an old value is served", label, type(error).__name__)
