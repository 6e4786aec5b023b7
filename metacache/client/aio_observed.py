"""The observed forms of the effects and of the caching of an `AsyncClient`. Reads the clock; they do what those do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from time import monotonic
from typing import Any, Generic, TypeVar, final

from metacache.caching.cached import AsyncCached
from metacache.caching.policy import Stampede
from metacache.client.aio_caching import AsyncCaching
from metacache.client.aio_effects import AsyncEffects, Run
from metacache.client.calls import Calls
from metacache.errors import BatchError, MetacacheError
from metacache.operations.arguments import Default, Ttl
from metacache.operations.batches import BatchOperation
from metacache.operations.policies import ErrorPolicy, Kind
from metacache.operations.results import Computed, DeleteResult, Outcomes
from metacache.operations.tallies import count_step
from metacache.protocol.keys import K, Key
from metacache.transports.base import AsyncTransport, Operation
from metacache.transports.observed import KEEP_REPLY, returns_answers

__all__ = ["ObservedAsyncCaching", "ObservedAsyncEffects"]

R = TypeVar("R")
T = TypeVar("T")
V = TypeVar("V")


def _answered_run(run: Run, calls: Calls) -> Run:
    """Return a function like *run* that reports each operation as one call. *run* returns answers."""
    answered = calls.answered

    async def observed(op: Operation[R], /, *, deadline: float | None) -> R:
        read = op.read
        op.read = KEEP_REPLY
        began = monotonic()
        try:
            # `KEEP_REPLY` makes it an answer.
            answer: Any = await run(op, deadline=deadline)  # Any: R is Answer here
        except BaseException as error:
            calls.failed(op, error, began)
            raise
        reply, exchanges, sent, ended = answer
        return answered(op, read, reply, exchanges, began, sent, ended)

    return observed


def _tallied_run(run: Run, calls: Calls) -> Run:
    """Return a function like *run* that reports each operation as one call. A wrapper in *run* needs its result."""

    async def observed(op: Operation[R], /, *, deadline: float | None) -> R:
        with calls.call(op.verb.name):
            return await run(op, deadline=deadline)

    return observed


@final
class ObservedAsyncEffects:
    """`AsyncEffects` that report each call. The steps of a recipe are not calls."""

    __slots__ = ("_calls", "_errors", "_steps", "transport_run")

    transport_run: Run

    def __init__(self, transport: AsyncTransport, steps: AsyncEffects, errors: ErrorPolicy, calls: Calls) -> None:
        self._steps = steps
        self._errors = errors
        self._calls = calls
        make = _answered_run if returns_answers(transport) else _tallied_run
        self.transport_run = make(steps.transport_run, calls)

    async def run(self, op: Operation[R], /) -> R:
        """Run *op* as one step of a recipe."""
        result = await self._steps.transport_run(op, deadline=None)
        count_step()
        return result

    async def sleep(self, seconds: float, /) -> None:
        """Wait for that number of seconds."""
        await self._steps.sleep(seconds)

    async def call(self, kind: Kind, op: Operation[R], *, fallback: R) -> R:
        """Run *op*; return *fallback* if the policy suppresses its error."""
        try:
            return await self.transport_run(op, deadline=None)
        except MetacacheError as error:
            if self._errors.suppresses(kind, error):
                return fallback
            raise

    async def results(self, batch: BatchOperation[K, V]) -> dict[K, V]:
        """Run *batch*; return its results by key. Raises BatchError if the policy does not suppress the errors."""
        with self._calls.call(batch.batch.verb.name, len(batch.batch)) as call:
            replies = await self._steps.run_batch(batch.batch)
            call.error = BatchError if replies.errors else None
            return batch.results(replies, self._errors)

    async def outcomes(self, batch: BatchOperation[K, V]) -> Outcomes[K, V]:
        """Run *batch*; return its results and errors by key."""
        with self._calls.call(batch.batch.verb.name, len(batch.batch)) as call:
            outcomes = batch.outcomes(await self._steps.run_batch(batch.batch), self._errors)
            call.error = BatchError if outcomes.errors else None
            return outcomes

    # Any: the event loop defines the values that a coroutine yields and receives.
    async def run_recipe(self, verb: str, recipe: Coroutine[Any, Any, R], *, fallback: R) -> R:
        """Run a recipe that writes; return *fallback* if the policy suppresses its error."""
        return await self._steps.run_recipe(verb, self._as_call(verb, recipe), fallback=fallback)

    async def run_recipe_or_raise(self, verb: str, recipe: Coroutine[Any, Any, R]) -> R:  # Any: as above
        """Run a recipe; count its error and raise it, whatever the policy is."""
        return await self._steps.run_recipe_or_raise(verb, self._as_call(verb, recipe))

    async def _as_call(self, verb: str, recipe: Coroutine[Any, Any, R]) -> R:  # Any: as above
        with self._calls.call(verb):
            return await recipe


@final
class ObservedAsyncCaching(Generic[T]):
    """`AsyncCaching` that reports each call, with the source of a single value."""

    __slots__ = ("_calls", "_inner")

    def __init__(self, inner: AsyncCaching[T], calls: Calls) -> None:
        self._inner = inner
        self._calls = calls

    def close(self, closed: AsyncEffects) -> None:
        """Run everything with the effects of a closed client from now on."""
        self._inner.close(closed)

    async def get(
        self,
        key: Key,
        factory: Callable[[], Awaitable[T]],
        policy: Stampede,
        ttl: Ttl | Default,
        should_cache: Callable[[T], bool] | None,
        label: str | None = None,
    ) -> T:
        """Run `get_or_compute`; *label* is what logs call the computation."""
        with self._calls.call("get_or_compute") as call:
            computed = await self._inner.get_item(key, factory, policy, ttl, should_cache, label)
            call.source = computed.source
            return computed.value

    async def get_item(
        self,
        key: Key,
        factory: Callable[[], Awaitable[T]],
        policy: Stampede,
        ttl: Ttl | Default,
        should_cache: Callable[[T], bool] | None,
        label: str | None = None,
    ) -> Computed[T]:
        """Run `get_or_compute_item`."""
        with self._calls.call("get_or_compute_item") as call:
            computed = await self._inner.get_item(key, factory, policy, ttl, should_cache, label)
            call.source = computed.source
            return computed

    async def get_many(
        self,
        keys: Iterable[K],
        factory: Callable[[Sequence[K]], Awaitable[Mapping[K, T]]],
        policy: Stampede,
        ttl: Ttl | Default,
        should_cache: Callable[[T], bool] | None,
    ) -> dict[K, T]:
        """Run `get_or_compute_many`."""
        given = keys if isinstance(keys, Collection) else tuple(keys)
        with self._calls.call("get_or_compute_many", len(given)):
            return await self._inner.get_many(given, factory, policy, ttl, should_cache)

    async def refresh(
        self,
        key: Key,
        factory: Callable[[], Awaitable[T]],
        policy: Stampede,
        ttl: Ttl | Default,
        should_cache: Callable[[T], bool] | None,
        label: str,
    ) -> Computed[T]:
        """Run `Cached.refresh`."""
        with self._calls.call("refresh") as call:
            computed = await self._inner.refresh(key, factory, policy, ttl, should_cache, label)
            call.source = computed.source
            return computed

    def decorate(
        self,
        function: Callable[..., Awaitable[T]],
        key: str | Callable[..., Key],
        ignore: Collection[str],
        policy: Stampede,
        ttl: Ttl | Default,
        should_cache: Callable[[T], bool] | None,
        delete: Callable[[Key], Awaitable[DeleteResult]],
    ) -> AsyncCached[..., T]:
        """Return the cached form of *function*. *delete* deletes a key."""
        return self._inner.decorate(function, key, ignore, policy, ttl, should_cache, delete, self)

    async def namespace_prefix(self, name: str) -> Key:
        """Return the prefix of the keys in the namespace *name*."""
        with self._calls.call("namespace"):
            return await self._inner.namespace_prefix(name)

    async def clear_namespace(self, name: str) -> None:
        """Store another token for the namespace *name*."""
        with self._calls.call("clear_namespace"):
            await self._inner.clear_namespace(name)
