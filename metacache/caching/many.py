"""`get_or_compute_many`: ask for all keys, compute what was won in one call of the factory, then wait for the others.

The same rules as in `recipe`, for one factory and many keys. It awaits only the effects of its client.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Final, Generic, TypeAlias, TypeVar, final

from metacache.caching.asking import ASK_MANY, REMOVE_MANY, SHORTEN_MANY, STORE_MANY, Asked, is_asked, read_cas
from metacache.caching.computing import OVERTIME, UNCACHED, is_failure, log_covered, raised_by_factory
from metacache.caching.context import begin_computing, end_computing
from metacache.caching.effects import CallMany
from metacache.caching.flights import Flight
from metacache.caching.leases import log_kept, shorter_life
from metacache.caching.recipe import Fetcher
from metacache.caching.waiting import ASK_AGAIN, COMPUTE, Shared, result_of
from metacache.errors import BatchError, BusyError, InvalidTypeError, MetacacheError, ServerError, ValueTooLargeError
from metacache.interrupts import is_injected
from metacache.observe import Source
from metacache.operations.policies import MISS, READ
from metacache.operations.results import Computed
from metacache.operations.tallies import note_suppressed
from metacache.protocol.keys import K, WireKey
from metacache.transports.base import Batch, Verb

__all__ = ["ManyFetcher"]

T = TypeVar("T")

STORED: Final = b"HD"

Part: TypeAlias = tuple[bytes, bytes, bytes]
"""Routing key, request line and data block of a store."""

_Flights: TypeAlias = dict[K, Flight[Shared[T]]]


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
class ManyFetcher(Generic[K, T]):
    """Runs one `get_or_compute_many` of a client, whose `get_or_compute` *fetcher* runs."""

    __slots__ = ("_asking", "_call", "_counts", "_effects", "_ends", "_errors", "_exchanges", "_flights", "_waiting")

    def __init__(self, fetcher: Fetcher[T], call: CallMany[K, T]) -> None:
        self._exchanges = fetcher.exchanges
        self._asking = fetcher.exchanges.asking
        self._effects = fetcher.exchanges.effects
        self._errors = fetcher.exchanges.errors
        self._waiting = fetcher.waiting
        self._counts = fetcher.counts
        self._flights = fetcher.flights
        self._call = call
        # When the old values whose lives were shortened were to expire.
        self._ends: dict[K, float] = {}

    async def fetch(self) -> dict[K, T]:
        """Return the values by key, without those that the factory left out."""
        call = self._call
        results: dict[K, T] = {}
        pending = dict(call.wires)
        until = math.inf
        while pending:
            seen = await self._ask(pending)
            pending = await self._settle(seen, pending, results)
            if not pending or pending.keys() != seen.busy.keys():
                continue
            until = min(until, self._effects.now() + call.plan.wait)
            if self._effects.now() >= until:
                results.update(await self._overtime(seen.busy))
                break
            seen = await self._wait(seen.busy, until)
            pending = await self._settle(seen, pending, results)
        for alias, key in call.aliases.items():
            if key in results:
                results[alias] = results[key]
        return results

    async def _settle(self, seen: _Round[K, T], pending: Mapping[K, WireKey], results: dict[K, T]) -> dict[K, WireKey]:
        """Add the values of *seen* to *results*, and compute those that this caller is to compute.

        Return which of *pending* are to be asked for again, or waited for.
        """
        results.update(seen.found)
        await self._end_if_unsound(seen, results)
        lost = await self._shorten(seen.won)
        won = {key: each for key, each in seen.won.items() if key not in lost}
        results.update(await self._compute(won, dict.fromkeys(seen.failed), UNCACHED))
        await self._remove(seen.undecodable)
        done = seen.found.keys() | won.keys() | seen.failed.keys()
        return {key: wire for key, wire in pending.items() if key not in done}

    # --- asking ------------------------------------------------------------------------------------------------------

    async def _ask(self, wires: Mapping[K, WireKey]) -> _Round[K, T]:
        seen: _Round[K, T] = _Round()
        replies = await self._effects.run_batch(self._asking.ask_many(wires, self._call.flags))
        for index, key in enumerate(wires):
            error = replies.errors.get(index)
            if error is None:
                tokens = replies.headers[index].split(b" ")
                seen.add(key, self._asking.read((tokens, replies.values[index])))
            else:
                seen.failed[key] = error.locate(operation=ASK_MANY.name)
        return seen

    async def _end_if_unsound(self, seen: _Round[K, T], results: Mapping[K, T]) -> None:
        """Raise what ends the whole call; give back what it has won before."""
        errors = dict(seen.failed)
        self._errors.count(errors.values())
        is_forgiven = not errors or self._errors.suppresses_all(READ, errors.values())
        if is_forgiven and not seen.unsound:
            if errors:
                note_suppressed(BatchError)
            return
        await self._give_back({**seen.won, **{key: each for key, each in seen.unsound.items() if each.won}})
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

    async def _shorten(self, won: Mapping[K, Asked[T]]) -> set[K]:
        """Shorten the lives of old values; return the keys that hold another item by now, or may do so."""
        lives = {key: shorter_life(self._call.plan, each) for key, each in won.items()}
        heads = {
            key: self._asking.shorten_head(self._call.wires[key], life)
            for key, life in lives.items()
            if life is not None
        }
        if not heads:
            return set()
        now = self._effects.now()
        self._ends.update({key: now + won[key].left for key in heads})
        try:
            replies = await self._effects.run_batch(self._batch(SHORTEN_MANY, heads))
        except GeneratorExit:
            raise  # a closed coroutine may await nothing
        except BaseException:
            await self._give_back(won)
            raise
        return {
            key
            for index, key in enumerate(heads)
            # After an error it is unknown which item is there: the next ask shows it.
            if index in replies.errors or read_cas((replies.headers[index].split(b" "), None)) != won[key].cas
        }

    # --- computing ---------------------------------------------------------------------------------------------------

    async def _compute(self, won: Mapping[K, Asked[T]], others: Mapping[K, Asked[T] | None], kind: str) -> dict[K, T]:
        """Compute the values of the keys in *won*, and once a process those of *others*; store what has a CAS."""
        results: dict[K, T] = {}
        while won or others:
            guards = {**won, **others}
            started = {key: self._flights.start(self._flight_key(key, guards[key], won, kind)) for key in guards}
            own = {key: flight for key, (flight, is_owner) in started.items() if is_owner}
            keys = [key for key in guards if key in own or key in won]
            try:
                if keys:
                    guarded = {key: each for key in keys if (each := guards[key]) is not None}
                    results.update(await self._compute_and_store(keys, guarded, won, own))
            finally:
                for flight in own.values():
                    flight.finish()  # with nothing: waiters ask again
            met = {key: started[key][0] for key in guards if key not in keys}
            for flight in met.values():
                await self._effects.wait(flight, ASK_AGAIN)
            joined = self._joined(met)
            for _ in joined:
                self._counts.count(Source.WAITED)
            results.update(joined)
            won, others = {}, {key: others[key] for key in met if key not in results}
        return results

    def _flight_key(
        self, key: K, seen: Asked[T] | None, won: Mapping[K, Asked[T]], kind: str
    ) -> tuple[bytes, int, str]:
        return self._call.wires[key][0], 0 if seen is None else seen.cas, COMPUTE if key in won else kind

    async def _compute_and_store(
        self, keys: list[K], guarded: Mapping[K, Asked[T]], won: Mapping[K, Asked[T]], flights: _Flights[K, T]
    ) -> dict[K, T]:
        """Compute *keys*; store those in *guarded*; *won* are the leases to give back if that fails."""
        call = self._call
        began = self._effects.now()
        try:
            made = await self._run_factory(keys)
            wanted = {
                key: each
                for key, each in guarded.items()
                if key in made and (call.should_cache is None or call.should_cache(made[key]))
            }
            parts = self._store_parts(wanted, made)
        except GeneratorExit:
            raise  # a closed coroutine may await nothing
        except BaseException as error:
            return await self._after_failure(won, keys, flights, raised_by_factory(error))
        seconds = self._effects.now() - began
        try:
            await self._remove({key: each for key, each in won.items() if key not in parts})
            stored = await self._store(parts, won, made, seconds)
        except (GeneratorExit, BatchError):
            raise  # a closed coroutine may await nothing; before a BatchError the leases were given back
        except BaseException:
            await self._give_back(won)  # a cancellation, for one, perhaps before the stores were sent
            raise
        for key, value in made.items():
            source = Source.COMPUTED if key in stored else Source.UNSTORED
            self._counts.count(source)
            if key in flights:
                flights[key].finish(Computed(value, source))
        return made

    async def _run_factory(self, keys: list[K]) -> dict[K, T]:
        call = self._call
        began = begin_computing(self._counts, [call.wires[key][0] for key in keys])
        try:
            made = await self._effects.compute(lambda: call.factory(list(keys)))
        finally:
            end_computing(began)
        if not isinstance(made, Mapping):
            raise InvalidTypeError(
                f"the factory returns a mapping of values by key, not {type(made).__name__}", operation=ASK_MANY.name
            )
        return {key: made[key] for key in keys if key in made}

    def _store_parts(self, wanted: Mapping[K, Asked[T]], made: Mapping[K, T]) -> dict[K, Part]:
        """Return the stores of *wanted*; without values that are too large, if that is forgiven."""
        call = self._call
        parts: dict[K, Part] = {}
        for key, each in wanted.items():
            life = call.plan.life(random.random())
            try:
                parts[key] = self._asking.store_parts(key, call.wires[key], made[key], life, each.cas)
            except ValueTooLargeError as error:
                if not self._exchanges.forgives_too_large(error):
                    raise
        return parts

    async def _store(
        self,
        parts: Mapping[K, Part],
        won: Mapping[K, Asked[T]],
        made: Mapping[K, T],
        seconds: float,
    ) -> frozenset[K]:
        """Send the stores *parts*, which were computed in *seconds*; return which keys were stored."""
        if not parts:
            return frozenset()
        keys = list(parts)
        raws, heads, bodies = ([part[index] for part in parts.values()] for index in range(3))
        replies = await self._effects.run_batch(Batch(STORE_MANY, keys, raws, heads, bodies))
        errors = {keys[index]: error.locate(operation=STORE_MANY.name) for index, error in replies.errors.items()}
        if errors:
            self._errors.count(errors.values())
            if not self._errors.suppresses_all(READ, errors.values()):
                await self._give_back({key: won[key] for key in errors if key in won})
                raise BatchError(results=made, errors=errors, operation=STORE_MANY.name)
            note_suppressed(BatchError)
        stored = [key for key, header in zip(keys, replies.headers, strict=True) if header[:2] == STORED]
        if len(stored) + len(errors) < len(keys):
            self._counts.note_refused(self._call.label, seconds, self._call.plan.lease)
        return frozenset(stored)

    async def _after_failure(
        self, won: Mapping[K, Asked[T]], keys: list[K], flights: _Flights[K, T], error: BaseException
    ) -> dict[K, T]:
        """Give all leases back after *error*; then raise it, or return the old values if they cover all of *keys*."""
        try:
            await self._give_back(won)
        finally:
            if is_failure(error):
                self._counts.count_failure(error)
                for flight in flights.values():
                    flight.finish(failure=error)
        old = {key: each.value for key, each in won.items() if each.value is not MISS}
        if not is_failure(error) or len(old) < len(keys) or not isinstance(error, self._call.plan.policy.stale_on):
            raise error
        log_covered(self._call.label, error)
        for _ in old:
            self._counts.count(Source.STALE)
        return old

    # --- giving back -------------------------------------------------------------------------------------------------

    async def _give_back(self, won: Mapping[K, Asked[T]]) -> None:
        """Delete placeholders; let old values live on, with a win for the next reader."""
        await self._delete({key: self._give_back_head(key, each) for key, each in won.items()})

    def _give_back_head(self, key: K, each: Asked[T]) -> bytes:
        wire = self._call.wires[key]
        if each.value is MISS and each.failure is None:
            return self._asking.remove_head(wire, each.cas)
        ends = self._ends.get(key)
        return self._asking.give_back_head(wire, each.cas, None if ends is None else ends - self._effects.now())

    async def _remove(self, items: Mapping[K, Asked[T]]) -> None:
        await self._delete(
            {key: self._asking.remove_head(self._call.wires[key], each.cas) for key, each in items.items()}
        )

    async def _delete(self, heads: Mapping[K, bytes]) -> None:
        if not heads:
            return
        try:
            await self._effects.run_batch(self._batch(REMOVE_MANY, heads))
        except MetacacheError as error:
            if is_injected(error):
                raise
            log_kept(error)

    def _batch(self, verb: Verb, heads: Mapping[K, bytes]) -> Batch:
        return Batch(verb, list(heads), [self._call.wires[key][0] for key in heads], list(heads.values()))

    # --- waiting -----------------------------------------------------------------------------------------------------

    async def _wait(self, busy: Mapping[K, Asked[T]], until: float) -> _Round[K, T]:
        """Wait for the first of *busy*, as `get_or_compute` does; return what is known then of these keys."""
        (key, found), *others = busy.items()
        flights = {
            other: flight
            for other, each in others
            if (flight := self._flights.find((self._call.wires[other][0], each.cas, COMPUTE))) is not None
        }
        ask = self._asking.ask(key, self._call.wires[key], self._call.flags, ASK_MANY)
        # The value of another key may be absent soon, so after ASK_AGAIN all are asked for.
        met = await self._waiting.wait(ask, found, min(until, self._effects.now() + ASK_AGAIN))
        seen: _Round[K, T] = _Round()
        if isinstance(met, Computed):
            seen.found = {key: met.value, **self._joined(flights)}
        elif met is not None:
            seen.add(key, met[0])
        for _ in seen.found:
            self._counts.count(Source.WAITED)
        return seen

    def _joined(self, flights: _Flights[K, T]) -> dict[K, T]:
        """Return the values of the *flights* that have one; raise the failure of one that failed."""
        met = {key: result_of(flight) for key, flight in flights.items()}
        return {key: each.value for key, each in met.items() if isinstance(each, Computed)}

    async def _overtime(self, busy: Mapping[K, Asked[T]]) -> dict[K, T]:
        """Raise BusyError, or compute although other callers have the leases."""
        call = self._call
        if call.plan.policy.on_busy == "raise":
            raise BusyError(
                f"other callers have computed the values for longer than {call.plan.wait:g} seconds",
                operation=ASK_MANY.name,
                key=next(iter(busy)),
            )
        return await self._compute({}, busy, OVERTIME)
