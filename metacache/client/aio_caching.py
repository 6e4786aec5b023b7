"""`get_or_compute` and its relatives, of an `AsyncClient`: effects and methods. The recipes are in `caching`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar, final

from metacache.caching.asking import Asked
from metacache.caching.cached import AsyncCached, key_function, refuse_function
from metacache.caching.core import Caching, function_name
from metacache.caching.effects import Recipe
from metacache.caching.flights import Flight
from metacache.caching.many import ManyFetcher
from metacache.caching.namespaces import TOKENS, clear_namespace, namespace_prefix, token_options
from metacache.caching.policy import Plan, Stampede
from metacache.caching.recipe import Fetcher
from metacache.client.aio_background import Background
from metacache.client.aio_effects import AsyncEffects
from metacache.client.core import Core
from metacache.errors import MetacacheError
from metacache.operations.arguments import Default, Ttl
from metacache.operations.policies import READ
from metacache.operations.requests import Operations
from metacache.operations.results import Computed, DeleteResult
from metacache.operations.tallies import note_suppressed
from metacache.protocol.keys import K, Key
from metacache.protocol.windows import Replies
from metacache.transports.aio.loops import running_loop
from metacache.transports.base import ASYNC_CLOSED, AsyncTransport, Batch, Operation

__all__ = ["AsyncCaching", "AsyncCachingEffects"]

R = TypeVar("R")
T = TypeVar("T")


@final
class AsyncCachingEffects:
    """The effects of `get_or_compute` in an asyncio client: tasks wait on futures, a task refreshes."""

    __slots__ = ("_background", "_effects")

    def __init__(self, effects: AsyncEffects, background: Background) -> None:
        self._effects = effects
        self._background = background

    async def run(self, op: Operation[R], /) -> R:
        """Run *op* within one timeout of its own."""
        return await self._effects.transport_run(op, deadline=None)

    async def run_batch(self, batch: Batch, /) -> Replies:
        """Run *batch* within one timeout of its own."""
        return await self._effects.run_batch(batch)

    async def sleep(self, seconds: float, /) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    async def compute(self, factory: Callable[[], Awaitable[Any]], /) -> Any:  # Any: T
        """Return what *factory* computes."""
        return await factory()

    async def wait(self, flight: Flight[Any], seconds: float, /) -> None:  # Any: of no use here
        """Wait until *flight* ends, *seconds* at most."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def resolve() -> None:
            if not done.done():
                done.set_result(None)

        flight.listen(resolve)
        await asyncio.wait((done,), timeout=max(seconds, 0.0))

    def now(self) -> float:
        """Return ``time.monotonic()``."""
        return time.monotonic()

    def spawn(self, recipe: Recipe, _: Plan, /) -> bool:
        """Run *recipe* in a task of the client; return False when the client was closed."""
        return self._background.start(recipe)


class Fetches(Protocol[T]):
    """Fetches the values of a cached function: the caching of a client, or its observed form."""

    def get(
        self,
        key: Key,
        factory: Callable[[], Awaitable[T]],
        policy: Stampede,
        ttl: Ttl | Default,
        should_cache: Callable[[T], bool] | None,
        label: str | None = None,
    ) -> Awaitable[T]:
        """Run `get_or_compute`."""
        ...

    def refresh(
        self,
        key: Key,
        factory: Callable[[], Awaitable[T]],
        policy: Stampede,
        ttl: Ttl | Default,
        should_cache: Callable[[T], bool] | None,
        label: str,
    ) -> Awaitable[Computed[T]]:
        """Run `Cached.refresh`."""
        ...


@final
class AsyncCaching(Generic[T]):
    """`get_or_compute` and its relatives, as an `AsyncClient` offers them.

    Args:
        core: of the client.
        transport: for the tokens of namespaces.
        effects: of the client.
        background: the tasks of the client and its views.
    """

    __slots__ = ("_asks", "_background", "_core", "_effects", "_run", "_shared", "_transport")

    def __init__(self, core: Core[T], transport: AsyncTransport, effects: AsyncEffects, background: Background) -> None:
        self._core = core
        self._shared = core.shared.get()
        self._asks: Caching[T] = Caching(
            core.operations, core.options, core.read_counts, self._shared.computations, bool
        )
        self._background = background
        self._transport = transport
        self._effects = effects
        self._run = effects.transport_run

    def close(self, closed: AsyncEffects) -> None:
        """Run everything with the effects of a closed client from now on."""
        self._transport, self._effects, self._run = ASYNC_CLOSED, closed, closed.transport_run

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
        try:
            found = await self._run(self._asks.ask(key, factory, policy, ttl, should_cache), deadline=None)
        except MetacacheError as error:
            if not self._core.errors.suppresses(READ, error):
                raise
        else:
            kind = type(found)
            if kind is not Asked:  # as `is_asked`, without its call, of which the checkers know more
                return found  # type: ignore[return-value]  # pyright: ignore[reportReturnType]
            call = self._asks.call(key, factory, policy, ttl, should_cache, label)
            return (await self._fetcher().get(call, found)).value
        call = self._asks.call(key, factory, policy, ttl, should_cache, label)
        return (await self._fetcher().get_uncached(call)).value

    async def get_item(
        self,
        key: Key,
        factory: Callable[[], Awaitable[T]],
        policy: Stampede,
        ttl: Ttl | Default,
        should_cache: Callable[[T], bool] | None,
        label: str | None = None,
    ) -> Computed[T]:
        """Run `get_or_compute_item`; *label* is what logs call the computation."""
        op = self._asks.ask(key, factory, policy, ttl, should_cache)
        call = self._asks.call(key, factory, policy, ttl, should_cache, label)
        try:
            found = await self._run(op, deadline=None)
        except MetacacheError as error:
            if not self._core.errors.suppresses(READ, error):
                raise
            note_suppressed(type(error))
        else:
            return await self._fetcher().get(call, found)
        return await self._fetcher().get_uncached(call)

    async def get_many(
        self,
        keys: Iterable[K],
        factory: Callable[[Sequence[K]], Awaitable[Mapping[K, T]]],
        policy: Stampede,
        ttl: Ttl | Default,
        should_cache: Callable[[T], bool] | None,
    ) -> dict[K, T]:
        """Run `get_or_compute_many`."""
        call = self._asks.call_many(keys, factory, policy, ttl, should_cache)
        return await ManyFetcher(self._fetcher(), call).fetch()

    async def refresh(
        self,
        key: Key,
        factory: Callable[[], Awaitable[T]],
        policy: Stampede,
        ttl: Ttl | Default,
        should_cache: Callable[[T], bool] | None,
        label: str,
    ) -> Computed[T]:
        """Run `Cached.refresh`; *label* is what logs call the computation."""
        call = self._asks.call(key, factory, policy, ttl, should_cache, label)
        return await self._fetcher().refresh(call)

    def decorate(
        self,
        function: Callable[..., Awaitable[T]],
        key: str | Callable[..., Key],
        ignore: Collection[str],
        policy: Stampede,
        ttl: Ttl | Default,
        should_cache: Callable[[T], bool] | None,
        delete: Callable[[Key], Awaitable[DeleteResult]],
        fetcher: Fetches[T] | None = None,
    ) -> AsyncCached[..., T]:
        """Return the cached form of *function*. *delete* deletes a key. *fetcher*: fetches the values; None: this."""
        fetches = self if fetcher is None else fetcher
        refuse_function(function, is_async=True)
        self._asks.check(policy, ttl, should_cache)
        label = f"cached {function_name(function)}"

        async def refresh(key: Key, factory: Callable[[], Awaitable[T]]) -> T:
            return (await fetches.refresh(key, factory, policy, ttl, should_cache, label)).value

        def fetch(key: Key, factory: Callable[[], Awaitable[T]]) -> Awaitable[T]:
            return fetches.get(key, factory, policy, ttl, should_cache, label)

        return AsyncCached(function, key_function(key, function, ignore), fetch, refresh, delete)

    async def namespace_prefix(self, name: str) -> Key:
        """Return the prefix of the keys in the namespace *name*."""
        return await namespace_prefix(*self._tokens(), self._core.options.prefix, name)

    async def clear_namespace(self, name: str) -> None:
        """Store another token for the namespace *name*."""
        await clear_namespace(*self._tokens(), name)

    def _tokens(self) -> tuple[AsyncEffects, Operations[bytes]]:
        core = Core[bytes].of(TOKENS, token_options(self._core.options))
        return AsyncEffects(self._transport, core.options.timeout, core.errors), core.operations

    def _fetcher(self) -> Fetcher[T]:
        core = self._core
        effects = AsyncCachingEffects(self._effects, self._background)
        flights = self._shared.flights.of(running_loop())
        return Fetcher(effects, self._asks.asking, flights, core.errors, self._shared.computations)
