"""`get_or_compute_many`: ask for all keys, compute what was won in one call of the factory, then wait for the others.

The same rules as in `recipe`, for one factory and many keys. It awaits only the effects of its client.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Final, Generic, TypeAlias, TypeVar, final

from metacache.caching.asking import ASK_MANY, REMOVE_MANY, STORE_MANY, Asked, is_asked
from metacache.caching.context import begin_computing, end_computing, refuse_own
from metacache.caching.effects import CallMany, Effects
from metacache.caching.flights import Flight, Flights
from metacache.caching.recipe import (
    ASK_AGAIN,
    COMPUTE,
    FIRST_LOOK,
    LAST_LOOK,
    OVERTIME,
    Fetcher,
    log_covered,
    log_kept,
)
from metacache.errors import BatchError, BusyError, InvalidTypeError, MetacacheError, ServerError
from metacache.interrupts import is_from_handler, is_injected
from metacache.operations.policies import MISS, READ, ErrorPolicy
from metacache.operations.results import Computed, Source
from metacache.protocol.keys import K, WireKey
from metacache.transports.base import Batch

__all__ = ["ManyFetcher"]

T = TypeVar("T")

STORED: Final = b"HD"

_Flights: TypeAlias = Mapping[K, Flight[Computed[T] | Asked[T]]]


@final
class _Round(Generic[K, T]):
    """What one ask for many keys found, by what is to be done."""

    __slots__ = ("busy", "failed", "found", "undecodable", "unsound", "won")

    def __init__(self) -> None:
        self.found: dict[K, T] = {}
        self.won: dict[K, Asked[T]] = {}
        self.busy: dict[K, Asked[T]] = {}
        self.undecodable: dict[K, Asked[T]] = {}
        self.unsound: dict[K, Asked[T]] = {}  # no CAS, or refused by a strict client
        self.failed: dict[K, MetacacheError] = {}

    def add(self, key: K, seen: T | Asked[T]) -> None:
        """Sort one reply in."""
        if not is_asked(seen):
            self.found[key] = seen
        elif not seen.cas or seen.failure is not None:
            self.unsound[key] = seen
        elif seen.won:
            self.won[key] = seen
        elif seen.value is not MISS:
            self.found[key] = seen.value
        elif seen.is_placeholder:
            self.busy[key] = seen
        else:
            self.undecodable[key] = seen


@final
class ManyFetcher(Generic[T]):
    """Runs `get_or_compute_many` for one client; *fetcher* runs its `get_or_compute`."""

    __slots__ = ("_effects", "_errors", "_fetcher", "_flights")

    def __init__(self, fetcher: Fetcher[T]) -> None:
        self._fetcher = fetcher
        self._effects: Effects = fetcher.effects
        self._flights: Flights[Computed[T] | Asked[T]] = fetcher.flights
        self._errors: ErrorPolicy = fetcher.errors

    async def fetch(self, call: CallMany[K, T]) -> dict[K, T]:
        """Return the values by key, without those that the factory left out."""
        results: dict[K, T] = {}
        pending = dict(call.wires)
        until, pause = math.inf, FIRST_LOOK
        while pending:
            seen = await self._ask(call, pending)
            results.update(seen.found)
            await self._end_if_unsound(call, seen, results)
            try:
                lost = await self._shorten(call, seen.won)
            except BaseException as error:
                if not isinstance(error, GeneratorExit):
                    await self._give_back(call, seen.won)
                raise
            won = {key: each for key, each in seen.won.items() if key not in lost}
            if won or seen.failed:
                results.update(await self._compute(call, won, uncached=list(seen.failed)))
            if seen.undecodable:
                await self._remove(call, seen.undecodable)
            pending = {key: call.wires[key] for key in (*seen.undecodable, *lost, *seen.busy)}
            if seen.undecodable or lost or not pending:
                continue
            refuse_own(self._flights, ASK_MANY.name, {key: call.wires[key][0] for key in pending})
            now = self._effects.now()
            until = min(until, now + call.plan.wait)
            if now >= until:
                results.update(await self._overtime(call, seen.busy))
                break
            joined = await self._wait(call, seen.busy, min(pause, until - now))
            results.update(joined)
            pending = {key: wire for key, wire in pending.items() if key not in joined}
            pause = min(2 * pause, LAST_LOOK)
        for alias, key in call.aliases.items():
            if key in results:
                results[alias] = results[key]
        return results

    # --- asking ------------------------------------------------------------------------------------------------------

    async def _ask(self, call: CallMany[K, T], wires: Mapping[K, WireKey]) -> _Round[K, T]:
        seen: _Round[K, T] = _Round()
        replies = await self._effects.run_batch(self._fetcher.asking.ask_many(wires, call.flags))
        for index, key in enumerate(wires):
            error = replies.errors.get(index)
            if error is None:
                tokens = replies.headers[index].split(b" ")
                seen.add(key, self._fetcher.asking.read((tokens, replies.values[index])))
            else:
                seen.failed[key] = error.locate(operation=ASK_MANY.name)
        return seen

    async def _end_if_unsound(self, call: CallMany[K, T], seen: _Round[K, T], results: Mapping[K, T]) -> None:
        """Raise what ends the whole call; give back what it has won before."""
        errors = dict(seen.failed)
        self._errors.count(errors.values())
        is_forgiven = not errors or self._errors.suppresses_all(READ, errors.values())
        if is_forgiven and not seen.unsound:
            return
        await self._give_back(call, {**seen.won, **{key: each for key, each in seen.unsound.items() if each.won}})
        for key, each in seen.unsound.items():
            raise (
                each.failure.locate(operation=ASK_MANY.name, key=key)
                if each.failure
                else ServerError(
                    "the server runs without CAS (-C), which get_or_compute_many needs to guard its stores",
                    operation=ASK_MANY.name,
                    key=key,
                )
            )
        raise BatchError(results=results, errors=errors, operation=ASK_MANY.name)

    async def _shorten(self, call: CallMany[K, T], won: Mapping[K, Asked[T]]) -> list[K]:
        """Shorten the lives of old values; return the keys that hold another item by now."""
        return [
            key
            for key, each in won.items()
            if await self._fetcher.shorten(key, call.wires[key], call.plan, each) is None
        ]

    # --- computing ---------------------------------------------------------------------------------------------------

    async def _compute(
        self, call: CallMany[K, T], won: Mapping[K, Asked[T]], *, uncached: Sequence[K] = (), kind: str = COMPUTE
    ) -> dict[K, T]:
        """Compute the values of the keys in *won* and *uncached*, and store those of *won*."""
        started = {key: self._flights.start((call.wires[key][0], each.cas, kind)) for key, each in won.items()}
        flights = {key: flight for key, (flight, is_owner) in started.items() if is_owner}
        try:
            return await self._compute_and_store(call, won, [*won, *uncached], flights)
        finally:
            for flight in flights.values():
                flight.finish()  # with nothing: waiters ask again

    async def _compute_and_store(
        self, call: CallMany[K, T], won: Mapping[K, Asked[T]], keys: list[K], flights: _Flights[K, T]
    ) -> dict[K, T]:
        began = self._effects.now()
        refuse_own(self._flights, ASK_MANY.name, {key: call.wires[key][0] for key in keys})
        try:
            made = await self._run_factory(call, keys)
            wanted = [key for key in won if key in made and (call.should_cache is None or call.should_cache(made[key]))]
            batch = self._store_batch(call, {key: won[key] for key in wanted}, made)
        except GeneratorExit:
            raise  # a closed coroutine may await nothing
        except BaseException as error:
            return await self._after_failure(call, won, keys, flights, error)
        await self._remove(call, {key: each for key, each in won.items() if key not in wanted})
        stored = await self._store(call, wanted, batch, made, began) if wanted else frozenset[K]()
        for key, value in made.items():
            source = Source.COMPUTED if key in stored else Source.UNSTORED
            self._fetcher.counts.count(source)
            if key in flights:
                flights[key].finish(Computed(value, source))
        return made

    async def _run_factory(self, call: CallMany[K, T], keys: list[K]) -> dict[K, T]:
        token = begin_computing(self._flights, [call.wires[key][0] for key in keys])
        try:
            made = await self._effects.compute(lambda: call.factory(list(keys)))
        finally:
            end_computing(token)
        if not isinstance(made, Mapping):
            raise InvalidTypeError(
                f"the factory returns a mapping of values by key, not {type(made).__name__}", operation=ASK_MANY.name
            )
        return {key: made[key] for key in keys if key in made}

    def _store_batch(self, call: CallMany[K, T], won: Mapping[K, Asked[T]], made: Mapping[K, T]) -> Batch:
        parts = [
            self._fetcher.asking.store_parts(key, call.wires[key], made[key], call.plan.life(random.random()), each.cas)
            for key, each in won.items()
        ]
        raws, heads, bodies = ([part[index] for part in parts] for index in range(3))
        return Batch(STORE_MANY, list(won), raws, heads, bodies)

    async def _store(
        self, call: CallMany[K, T], keys: Sequence[K], batch: Batch, made: Mapping[K, T], began: float
    ) -> frozenset[K]:
        """Store *batch*, the values of *keys* in *made*; return which keys were stored."""
        replies = await self._effects.run_batch(batch)
        errors = {keys[index]: error.locate(operation=STORE_MANY.name) for index, error in replies.errors.items()}
        if errors:
            self._errors.count(errors.values())
            if not self._errors.suppresses_all(READ, errors.values()):
                raise BatchError(results=made, errors=errors, operation=STORE_MANY.name)
        stored = [key for key, header in zip(keys, replies.headers, strict=True) if header[:2] == STORED]
        if len(stored) + len(errors) < len(keys) and self._effects.now() - began > call.plan.lease:
            self._fetcher.counts.log_slow(call.label, call.plan.lease)
        return frozenset(stored)

    async def _after_failure(
        self,
        call: CallMany[K, T],
        won: Mapping[K, Asked[T]],
        keys: list[K],
        flights: _Flights[K, T],
        error: BaseException,
    ) -> dict[K, T]:
        """Give all leases back after *error*; then raise it, or return the old values if they cover all of *keys*."""
        is_failure = isinstance(error, Exception) and not is_from_handler(error)
        try:
            await self._give_back(call, won)
        finally:
            if isinstance(error, Exception) and is_failure:
                self._fetcher.counts.count_failure(error)
                for flight in flights.values():
                    flight.finish(failure=error)
        old = {key: each.value for key, each in won.items() if each.value is not MISS}
        if not is_failure or len(old) < len(keys) or not isinstance(error, call.plan.policy.stale_on):
            raise error
        log_covered(call.label, error)
        for _ in old:
            self._fetcher.counts.count(Source.STALE)
        return old

    # --- giving back -------------------------------------------------------------------------------------------------

    async def _give_back(self, call: CallMany[K, T], won: Mapping[K, Asked[T]]) -> None:
        """Delete placeholders; let old values live on, with a win for the next reader."""
        asking = self._fetcher.asking
        heads = [
            asking.remove_head(call.wires[key], each.cas)
            if each.value is MISS
            else asking.give_back_head(call.wires[key], each.cas, None)
            for key, each in won.items()
        ]
        await self._delete(call, list(won), heads)

    async def _remove(self, call: CallMany[K, T], items: Mapping[K, Asked[T]]) -> None:
        heads = [self._fetcher.asking.remove_head(call.wires[key], each.cas) for key, each in items.items()]
        await self._delete(call, list(items), heads)

    async def _delete(self, call: CallMany[K, T], keys: list[K], heads: list[bytes]) -> None:
        if not keys:
            return
        try:
            await self._effects.run_batch(Batch(REMOVE_MANY, keys, [call.wires[key][0] for key in keys], heads))
        except MetacacheError as error:
            if is_injected(error):
                raise
            log_kept(error)

    # --- waiting -----------------------------------------------------------------------------------------------------

    async def _wait(self, call: CallMany[K, T], busy: Mapping[K, Asked[T]], seconds: float) -> dict[K, T]:
        """Wait a little; return the values that callers of this process have computed."""
        flights = {key: self._flights.find((call.wires[key][0], each.cas, COMPUTE)) for key, each in busy.items()}
        own = {key: flight for key, flight in flights.items() if flight is not None}
        if len(own) < len(busy):
            await self._effects.sleep(random.uniform(seconds / 2, seconds))
        elif own:
            await self._effects.wait(next(iter(own.values())), max(seconds, min(ASK_AGAIN, call.plan.wait)))
        joined: dict[K, T] = {}
        for key, flight in own.items():
            if flight.failure is not None:
                raise flight.failure
            if isinstance(flight.result, Computed):
                self._fetcher.counts.count(Source.WAITED)
                joined[key] = flight.result.value
        return joined

    async def _overtime(self, call: CallMany[K, T], busy: Mapping[K, Asked[T]]) -> dict[K, T]:
        """Raise BusyError, or compute although other callers have the leases."""
        if call.plan.policy.on_busy == "raise":
            raise BusyError(
                f"other callers have computed the values for longer than {call.plan.wait:g} seconds",
                operation=ASK_MANY.name,
                key=next(iter(busy)),
            )
        return await self._compute(call, busy, kind=OVERTIME)
