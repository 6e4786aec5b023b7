"""The observed forms of the effects and of the caching of a `Client`. Reads the clock; they do what those do."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from time import monotonic
from typing import Any, Generic, TypeVar, final

from metacache.caching.cached import Cached
from metacache.caching.policy import Stampede
from metacache.client.blocking_caching import BlockingCaching
from metacache.client.blocking_effects import BlockingEffects, Run
from metacache.client.calls import Calls
from metacache.errors import BatchError, MetacacheError
from metacache.observe import Called, Exchanged, new_event
from metacache.operations.arguments import Default, Ttl
from metacache.operations.batches import BatchOperation
from metacache.operations.policies import ErrorPolicy, Kind
from metacache.operations.requests import GET
from metacache.operations.results import Computed, DeleteResult, Outcomes
from metacache.operations.tallies import count_step
from metacache.pool.blocking import Pool
from metacache.protocol.keys import K, Key
from metacache.transports.base import Operation, Transport
from metacache.transports.blocking.connection import Connection
from metacache.transports.observed import KEEP_REPLY, Exchanges, returns_answers

__all__ = ["ObservedCaching", "ObservedEffects"]

R = TypeVar("R")
T = TypeVar("T")
V = TypeVar("V")


def _reporting_run(run: Run, known: Exchanges | None, calls: Calls) -> Run:
    """Return a function that runs operations with *run* and reports each as one call.

    *known*: *run* uses only the node of these exchanges, and reports none; None: *run* returns an `Answer`.
    """
    # Closure variables, and the whole of a plain hit in one function: a call of `Calls.answered` costs 1,300 of the
    # 5,000 instructions that an observer may cost a `get`.
    answered, called, prefix, totals = calls.answered, calls.called, calls.prefix, calls.totals
    own, around, loads, reporter = calls.own, calls.around, calls.loads, calls.reporter

    def observed(op: Operation[R], /, *, deadline: float | None) -> R:
        read = op.read
        op.read = KEEP_REPLY
        began = sent = monotonic()
        try:
            # `KEEP_REPLY` makes it a reply, or an answer.
            answer: Any = run(op, deadline=deadline)  # Any: R is one of the two, by *known*
        except BaseException as error:
            if known is not None:
                known.failed(op, error, began, monotonic())
            calls.failed(op, error, began)
            raise
        if known is not None:
            ended = monotonic()
            reply = answer
            exchanges = known
        else:
            reply, exchanges, sent, ended = answer
        tokens, data = reply
        if not data or op.verb is not GET:
            return answered(op, read, reply, exchanges, began, sent, ended)
        try:
            _, size, flags = tokens
        except ValueError:  # the marks W, X or Z follow
            return answered(op, read, reply, exchanges, began, sent, ended)
        if flags != own:
            return answered(op, read, reply, exchanges, began, sent, ended)
        received = len(size) + len(data) + around
        fields = ("get", exchanges.node, sent, ended - sent, len(op.head) + 2, received, 1, 1, None)
        try:
            exchanges.exchanged(new_event(Exchanged, fields))
        except Exception as failure:
            reporter.failed(failure)
        result = data
        if loads is not None:
            try:
                result = loads(data)
            except BaseException as error:
                return calls.undecoded(op, read, reply, exchanges, began, error)
            ended = monotonic()
        totals.hits += 1
        try:
            called(new_event(Called, ("get", prefix, 1, 1, 0, 0, 0, None, began, ended - began, None)))
        except Exception as failure:
            reporter.failed(failure)
        return result  # type: ignore[no-any-return]

    return observed


def _tallied_run(run: Run, calls: Calls) -> Run:
    """Return a function like *run* that reports each operation as one call. A wrapper in *run* needs its result."""

    def observed(op: Operation[R], /, *, deadline: float | None) -> R:
        with calls.call(op.verb.name):
            return run(op, deadline=deadline)

    return observed


def _observed_run(transport: Transport, steps: BlockingEffects, calls: Calls) -> Run:
    """Return the cheapest function that runs operations on *transport* and reports each of them as one call."""
    if not returns_answers(transport):
        return _tallied_run(steps.transport_run, calls)
    lending = transport.lending if isinstance(transport, Connection | Pool) else None
    if lending is None or lending.exchanges is None:
        return _reporting_run(steps.transport_run, None, calls)
    return _reporting_run(steps.run_of(lending), lending.exchanges, calls)


@final
class ObservedEffects:
    """`BlockingEffects` that report each call. The steps of a recipe are not calls."""

    __slots__ = ("_calls", "_errors", "_steps", "transport_run")

    transport_run: Run

    def __init__(self, transport: Transport, steps: BlockingEffects, errors: ErrorPolicy, calls: Calls) -> None:
        self._steps = steps
        self._errors = errors
        self._calls = calls
        self.transport_run = _observed_run(transport, steps, calls)

    async def run(self, op: Operation[R], /) -> R:
        """Run *op* as one step of a recipe."""
        result = self._steps.transport_run(op, deadline=None)
        count_step()
        return result

    async def sleep(self, seconds: float, /) -> None:
        """Wait for that number of seconds."""
        await self._steps.sleep(seconds)

    def call(self, kind: Kind, op: Operation[R], *, fallback: R) -> R:
        """Run *op*; return *fallback* if the policy suppresses its error."""
        try:
            return self.transport_run(op, deadline=None)
        except MetacacheError as error:
            if self._errors.suppresses(kind, error):
                return fallback
            raise

    def results(self, batch: BatchOperation[K, V]) -> dict[K, V]:
        """Run *batch*; return its results by key. Raises BatchError if the policy does not suppress the errors."""
        with self._calls.call(batch.batch.verb.name, len(batch.batch)) as call:
            replies = self._steps.run_batch(batch.batch)
            call.error = BatchError if replies.errors else None
            return batch.results(replies, self._errors)

    def outcomes(self, batch: BatchOperation[K, V]) -> Outcomes[K, V]:
        """Run *batch*; return its results and errors by key."""
        with self._calls.call(batch.batch.verb.name, len(batch.batch)) as call:
            outcomes = batch.outcomes(self._steps.run_batch(batch.batch), self._errors)
            call.error = BatchError if outcomes.errors else None
            return outcomes

    # Any: a recipe yields nothing and receives nothing.
    def run_recipe(self, verb: str, recipe: Coroutine[Any, Any, R], *, fallback: R) -> R:
        """Run a recipe that writes; return *fallback* if the policy suppresses its error."""
        return self._steps.run_recipe(verb, self._as_call(verb, recipe), fallback=fallback)

    def run_recipe_or_raise(self, verb: str, recipe: Coroutine[Any, Any, R]) -> R:  # Any: as above
        """Run a recipe; count its error and raise it, whatever the policy is."""
        return self._steps.run_recipe_or_raise(verb, self._as_call(verb, recipe))

    async def _as_call(self, verb: str, recipe: Coroutine[Any, Any, R]) -> R:  # Any: as above
        with self._calls.call(verb):
            return await recipe


@final
class ObservedCaching(Generic[T]):
    """`BlockingCaching` that reports each call, with the source of a single value."""

    __slots__ = ("_calls", "_inner")

    def __init__(self, inner: BlockingCaching[T], calls: Calls) -> None:
        self._inner = inner
        self._calls = calls

    def close(self, closed: BlockingEffects) -> None:
        """Run everything with the effects of a closed client from now on."""
        self._inner.close(closed)

    def get(
        self,
        key: Key,
        factory: Callable[[], T],
        policy: Stampede,
        ttl: Ttl | Default,
        should_cache: Callable[[T], bool] | None,
        label: str | None = None,
    ) -> T:
        """Run `get_or_compute`; *label* is what logs call the computation."""
        with self._calls.call("get_or_compute") as call:
            computed = self._inner.get_item(key, factory, policy, ttl, should_cache, label)
            call.source = computed.source
            return computed.value

    def get_item(
        self,
        key: Key,
        factory: Callable[[], T],
        policy: Stampede,
        ttl: Ttl | Default,
        should_cache: Callable[[T], bool] | None,
        label: str | None = None,
    ) -> Computed[T]:
        """Run `get_or_compute_item`."""
        with self._calls.call("get_or_compute_item") as call:
            computed = self._inner.get_item(key, factory, policy, ttl, should_cache, label)
            call.source = computed.source
            return computed

    def get_many(
        self,
        keys: Iterable[K],
        factory: Callable[[Sequence[K]], Mapping[K, T]],
        policy: Stampede,
        ttl: Ttl | Default,
        should_cache: Callable[[T], bool] | None,
    ) -> dict[K, T]:
        """Run `get_or_compute_many`."""
        given = keys if isinstance(keys, Collection) else tuple(keys)
        with self._calls.call("get_or_compute_many", len(given)):
            return self._inner.get_many(given, factory, policy, ttl, should_cache)

    def refresh(
        self,
        key: Key,
        factory: Callable[[], T],
        policy: Stampede,
        ttl: Ttl | Default,
        should_cache: Callable[[T], bool] | None,
        label: str,
    ) -> Computed[T]:
        """Run `Cached.refresh`."""
        with self._calls.call("refresh") as call:
            computed = self._inner.refresh(key, factory, policy, ttl, should_cache, label)
            call.source = computed.source
            return computed

    def decorate(
        self,
        function: Callable[..., T],
        key: str | Callable[..., Key],
        ignore: Collection[str],
        policy: Stampede,
        ttl: Ttl | Default,
        should_cache: Callable[[T], bool] | None,
        delete: Callable[[Key], DeleteResult],
    ) -> Cached[..., T]:
        """Return the cached form of *function*. *delete* deletes a key."""
        return self._inner.decorate(function, key, ignore, policy, ttl, should_cache, delete, self)

    def namespace_prefix(self, name: str) -> Key:
        """Return the prefix of the keys in the namespace *name*."""
        with self._calls.call("namespace"):
            return self._inner.namespace_prefix(name)

    def clear_namespace(self, name: str) -> None:
        """Store another token for the namespace *name*."""
        with self._calls.call("clear_namespace"):
            self._inner.clear_namespace(name)
