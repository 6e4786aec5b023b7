"""`get_or_compute` and its relatives, of a `Client`: effects and methods. The recipes are in `caching`."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from contextvars import copy_context
from typing import Any, Generic, Protocol, TypeVar, final

from metacache.caching.asking import Asked
from metacache.caching.cached import Cached, key_function, refuse_function
from metacache.caching.core import Caching, function_name
from metacache.caching.effects import Recipe
from metacache.caching.flights import Flight
from metacache.caching.many import ManyFetcher
from metacache.caching.namespaces import TOKENS, clear_namespace, namespace_prefix, token_options
from metacache.caching.policy import Plan, Stampede
from metacache.caching.recipe import Fetcher
from metacache.client.blocking_effects import BlockingEffects
from metacache.client.core import Core
from metacache.errors import MetacacheError
from metacache.interrupts import is_own
from metacache.operations.arguments import Default, Ttl
from metacache.operations.policies import READ
from metacache.operations.requests import Operations
from metacache.operations.results import Computed, DeleteResult
from metacache.operations.tallies import note_suppressed
from metacache.protocol.keys import K, Key
from metacache.protocol.windows import Replies
from metacache.transports.base import CLOSED, Batch, Operation, Transport
from metacache.transports.blocking.checkout import POLL, Waker
from metacache.transports.blocking.driver import drive

__all__ = ["BlockingCaching", "BlockingCachingEffects"]

R = TypeVar("R")
T = TypeVar("T")


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


class Fetches(Protocol[T]):
    """Fetches the values of a cached function: the caching of a client, or its observed form."""

    def get(
        self,
        key: Key,
        factory: Callable[[], T],
        policy: Stampede,
        ttl: Ttl | Default,
        should_cache: Callable[[T], bool] | None,
        label: str | None = None,
    ) -> T:
        """Run `get_or_compute`."""
        ...

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
        ...


@final
class BlockingCaching(Generic[T]):
    """`get_or_compute` and its relatives, as a `Client` offers them.

    Args:
        core: of the client.
        transport: for the tokens of namespaces.
        effects: of the client.
    """

    __slots__ = ("_asks", "_core", "_effects", "_run", "_shared", "_transport")

    def __init__(self, core: Core[T], transport: Transport, effects: BlockingEffects) -> None:
        self._core = core
        self._shared = core.shared.get()
        self._asks: Caching[T] = Caching(
            core.operations, core.options, core.read_counts, self._shared.computations, Executor
        )
        self._transport = transport
        self._effects = effects
        self._run = effects.transport_run

    def close(self, closed: BlockingEffects) -> None:
        """Run everything with the effects of a closed client from now on."""
        self._transport, self._effects, self._run = CLOSED, closed, closed.transport_run

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
        try:
            found = self._run(self._asks.ask(key, factory, policy, ttl, should_cache), deadline=None)
        except MetacacheError as error:
            if not self._core.errors.suppresses(READ, error):
                raise
        else:
            kind = type(found)
            if kind is not Asked:  # as `is_asked`, without its call, of which the checkers know more
                return found  # type: ignore[return-value]  # pyright: ignore[reportReturnType]
            call = self._asks.call(key, factory, policy, ttl, should_cache, label)
            return (drive(self._fetcher().get(call, found))).value
        call = self._asks.call(key, factory, policy, ttl, should_cache, label)
        return (drive(self._fetcher().get_uncached(call))).value

    def get_item(
        self,
        key: Key,
        factory: Callable[[], T],
        policy: Stampede,
        ttl: Ttl | Default,
        should_cache: Callable[[T], bool] | None,
        label: str | None = None,
    ) -> Computed[T]:
        """Run `get_or_compute_item`; *label* is what logs call the computation."""
        op = self._asks.ask(key, factory, policy, ttl, should_cache)
        call = self._asks.call(key, factory, policy, ttl, should_cache, label)
        try:
            found = self._run(op, deadline=None)
        except MetacacheError as error:
            if not self._core.errors.suppresses(READ, error):
                raise
            note_suppressed(type(error))
        else:
            return drive(self._fetcher().get(call, found))
        return drive(self._fetcher().get_uncached(call))

    def get_many(
        self,
        keys: Iterable[K],
        factory: Callable[[Sequence[K]], Mapping[K, T]],
        policy: Stampede,
        ttl: Ttl | Default,
        should_cache: Callable[[T], bool] | None,
    ) -> dict[K, T]:
        """Run `get_or_compute_many`."""
        call = self._asks.call_many(keys, factory, policy, ttl, should_cache)
        return drive(ManyFetcher(self._fetcher(), call).fetch())

    def refresh(
        self,
        key: Key,
        factory: Callable[[], T],
        policy: Stampede,
        ttl: Ttl | Default,
        should_cache: Callable[[T], bool] | None,
        label: str,
    ) -> Computed[T]:
        """Run `Cached.refresh`; *label* is what logs call the computation."""
        call = self._asks.call(key, factory, policy, ttl, should_cache, label)
        return drive(self._fetcher().refresh(call))

    def decorate(
        self,
        function: Callable[..., T],
        key: str | Callable[..., Key],
        ignore: Collection[str],
        policy: Stampede,
        ttl: Ttl | Default,
        should_cache: Callable[[T], bool] | None,
        delete: Callable[[Key], DeleteResult],
        fetcher: Fetches[T] | None = None,
    ) -> Cached[..., T]:
        """Return the cached form of *function*. *delete* deletes a key. *fetcher*: fetches the values; None: this."""
        fetches = self if fetcher is None else fetcher
        refuse_function(function, is_async=False)
        self._asks.check(policy, ttl, should_cache)
        label = f"cached {function_name(function)}"

        def refresh(key: Key, factory: Callable[[], T]) -> T:
            return (fetches.refresh(key, factory, policy, ttl, should_cache, label)).value

        def fetch(key: Key, factory: Callable[[], T]) -> T:
            return fetches.get(key, factory, policy, ttl, should_cache, label)

        return Cached(function, key_function(key, function, ignore), fetch, refresh, delete)

    def namespace_prefix(self, name: str) -> Key:
        """Return the prefix of the keys in the namespace *name*."""
        return drive(namespace_prefix(*self._tokens(), self._core.options.prefix, name))

    def clear_namespace(self, name: str) -> None:
        """Store another token for the namespace *name*."""
        drive(clear_namespace(*self._tokens(), name))

    def _tokens(self) -> tuple[BlockingEffects, Operations[bytes]]:
        core = Core[bytes].of(TOKENS, token_options(self._core.options))
        return BlockingEffects(self._transport, core.options.timeout, core.errors), core.operations

    def _fetcher(self) -> Fetcher[T]:
        core = self._core
        effects = BlockingCachingEffects(self._effects)
        return Fetcher(effects, self._asks.asking, self._shared.flights.of(), core.errors, self._shared.computations)
