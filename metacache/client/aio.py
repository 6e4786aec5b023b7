"""`AsyncClient[T]`: the public methods of an asyncio client.

Most of them are a line or two. The modules in `operations/` build the requests and read the replies. The transport
sends and receives the bytes. `Client` has the same methods without `await`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Self, TypeVar, Unpack, final, overload

from metacache.caching.policy import STAMPEDE, Stampede
from metacache.client.aio_background import Background
from metacache.client.aio_effects import AsyncEffects
from metacache.client.core import Core, check_transport, observed_options
from metacache.copying import refuse_copy
from metacache.errors import MetacacheError
from metacache.marks import override
from metacache.operations import recipes
from metacache.operations.arguments import DEFAULT, Default, Ttl
from metacache.operations.options import ClientOptions, ViewOptions, options_of
from metacache.operations.policies import READ, WRITE
from metacache.operations.requests import APPEND, DECREMENT, INCREMENT, PREPEND
from metacache.operations.results import Computed, DeleteResult, Item, Metadata, Outcomes, StoreResult
from metacache.operations.statistics import ClientStatistics
from metacache.protocol.keys import K, Key
from metacache.serializers.frame import Cause
from metacache.serializers.interfaces import Serializer
from metacache.serializers.plain import BytesSerializer
from metacache.transports.base import ASYNC_CLOSED, AsyncTransport

if TYPE_CHECKING:
    import typing_extensions

    from metacache.caching.cached import AsyncCached
    from metacache.client.aio_caching import AsyncCaching
    from metacache.client.aio_observed import ObservedAsyncCaching, ObservedAsyncEffects

__all__ = ["AsyncClient"]

if TYPE_CHECKING:
    T = typing_extensions.TypeVar("T", default=bytes)
else:
    T = TypeVar("T")  # without a default: `typing` knows them from Python 3.13 on
D = TypeVar("D")
R = TypeVar("R")
B = TypeVar("B", bytes, str)
P = ParamSpec("P")


@final
class AsyncClient(Generic[T]):
    """A typed memcached client: stores and returns values of one Python type.

    Args:
        transport: sends the requests: an AsyncConnection, an AsyncPool, an AsyncCluster, or a wrapper of one.
        serializer: encodes and decodes T (`load_serializer` makes one). Left out: an ``AsyncClient[bytes]``.
        owns: True: closing the client closes the transport.
        options: see `ClientOptions`.

    A miss, NOT_STORED and a lost compare-and-set are results, not errors.

    Every method may raise before its request is sent: InvalidKeyError, InvalidArgumentError, SerializationError,
    ValueTooLargeError, ClosedError, PoolTimeout, NodeDownError, ConnectError, AuthenticationError. It may also raise
    later: OperationTimeout, ConnectionLost, ProtocolError, ServerError, ClientError. ``maybe_applied`` of the error
    says whether the server may have applied a write. The transport closes a connection that it cannot use any more, and
    opens another one for a later operation.

    ``on_error="miss"`` turns failures of servers and the network into misses in reads; ``"ignore"`` suppresses them in
    writes too. See `ClientOptions`.

    A client of `connect_async` works in every event loop. On another transport it belongs to the loop of its first use.
    """

    __reduce_ex__ = refuse_copy
    __slots__ = (
        "_background",
        "_caching",
        "_core",
        "_effects",
        "_is_view",
        "_operations",
        "_owns",
        "_run",
        "_transport",
    )

    @overload
    def __init__(
        self: AsyncClient[bytes],
        transport: AsyncTransport,
        serializer: None = None,
        *,
        owns: bool = False,
        **options: Unpack[ClientOptions],
    ) -> None: ...
    @overload
    def __init__(
        self,
        transport: AsyncTransport,
        serializer: Serializer[T],
        *,
        owns: bool = False,
        **options: Unpack[ClientOptions],
    ) -> None: ...
    def __init__(
        self,
        transport: AsyncTransport,
        serializer: Serializer[T] | None = None,
        *,
        owns: bool = False,
        **options: Unpack[ClientOptions],
    ) -> None:
        check_transport(transport, "AsyncClient")
        chosen: Serializer[Any] = BytesSerializer() if serializer is None else serializer  # Any: T or bytes
        # pyright takes the T of a bare class for unknown.
        self._set_up(
            transport,
            Core.of(chosen, observed_options(options_of(options), transport)),  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
            owns=owns,
        )

    def _set_up(
        self, transport: AsyncTransport, core: Core[T], *, owns: bool, background: Background | None = None
    ) -> None:
        self._is_view = background is not None
        self._background = Background(core.timeout) if background is None else background
        self._transport = transport
        self._core = core
        self._operations = core.operations
        self._owns = owns
        effects = AsyncEffects(transport, core.options.timeout, core.errors)
        # Chosen once, so that a client without an observer does nothing more.
        self._effects: AsyncEffects | ObservedAsyncEffects = effects
        self._caching: AsyncCaching[T] | ObservedAsyncCaching[T] | None = None  # made when it is first used
        if core.calls is not None:
            # Late: only a client with an observer needs it.
            from metacache.client.aio_observed import ObservedAsyncEffects

            self._effects = ObservedAsyncEffects(transport, effects, core.errors, core.calls)
        self._run = self._effects.transport_run

    def _load_caching(self) -> AsyncCaching[T] | ObservedAsyncCaching[T]:
        """Make what `get_or_compute` and its relatives need. Two threads may make one each: both share one state."""
        # Late: most programs only get and set, and need not load these modules.
        from metacache.client.aio_caching import AsyncCaching

        core, transport = self._core, self._transport
        effects = AsyncEffects(transport, core.options.timeout, core.errors)
        inner = AsyncCaching(core, transport, effects, self._background)
        caching: AsyncCaching[T] | ObservedAsyncCaching[T] = inner
        if core.calls is not None:
            from metacache.client.aio_observed import ObservedAsyncCaching  # late: as above

            caching = ObservedAsyncCaching(inner, core.calls)
        self._caching = caching
        if self._transport is not transport:  # another thread closed the client, and may have seen no caching
            caching.close(AsyncEffects(ASYNC_CLOSED, None, core.errors))
        return caching

    def with_options(self, **changes: Unpack[ViewOptions]) -> AsyncClient[T]:
        """Return a view of this client with some options changed.

        A view shares the transport and the counters. It is cheap, and closing it does not close the transport. Raises
        InvalidArgumentError for an invalid option.
        """
        return self._view(self._core.view(**changes))

    def _view(self, core: Core[T]) -> AsyncClient[T]:
        view = object.__new__(type(self))
        view._set_up(self._transport, core, owns=False, background=self._background)
        return view

    async def aclose(self) -> None:
        """Close the client, and its transport if the client owns it. Later operations raise ClosedError. Idempotent."""
        transport, self._transport = self._transport, ASYNC_CLOSED
        self._effects = effects = AsyncEffects(ASYNC_CLOSED, None, self._core.errors)
        self._run = ASYNC_CLOSED.run
        if self._caching is not None:
            self._caching.close(effects)
        if not self._is_view:
            await self._background.aclose()
        if self._owns:
            await transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self.aclose()

    @override
    def __repr__(self) -> str:
        return f"<AsyncClient prefix={self._core.options.prefix!r} on {self._transport!r}>"

    @property
    def undecodable(self) -> Mapping[Cause, int]:
        """The number of stored values that could not be decoded, by cause. A live view."""
        return self._core.undecodable.counts

    @property
    def errors_as_misses(self) -> Mapping[str, int]:
        """The number of errors that ``on_error`` suppressed, by class name. A live view."""
        return self._core.errors.counts

    @property
    def statistics(self) -> ClientStatistics:
        """The counts of hits, misses, stale and undecodable values, and errors, since the client was made.

        A frozen snapshot. It includes the calls of all views. Threads that share the client lose no count.
        """
        return self._core.statistics

    # --- reading -----------------------------------------------------------------------------------------------------

    @overload
    async def get(self, key: Key) -> T | None: ...
    @overload
    async def get(self, key: Key, default: D) -> T | D: ...
    async def get(self, key: Key, default: D | None = None) -> T | D | None:
        """Return the value, or *default* on a miss.

        A stale value is returned like a fresh one, and the read consumes its win flag. `get_item` returns both marks.
        """
        try:
            return await self._run(self._operations.get(key, default), deadline=None)
        except MetacacheError as error:
            if self._core.errors.suppresses(READ, error):
                return default
            raise

    async def get_item(self, key: Key) -> Item[T] | None:
        """Return the value with its CAS, TTL, size and state; None on a miss."""
        return await self._effects.call(READ, self._operations.get_item(key), fallback=None)

    async def get_many(self, keys: Iterable[K]) -> dict[K, T]:
        """Return the values that were found, by key, in one batch.

        Raises BatchError if a part failed. It holds the results and the errors.
        """
        return await self._effects.results(self._core.batches.get_many(keys))

    async def get_items(self, keys: Iterable[K]) -> dict[K, Item[T]]:
        """Return the items that were found, by key, in one batch. Raises BatchError as `get_many` does."""
        return await self._effects.results(self._core.batches.get_items(keys))

    async def get_many_outcomes(self, keys: Iterable[K]) -> Outcomes[K, T]:
        """Return the values that were found and the errors, by key, in one batch.

        The error of a part that failed is in ``errors`` and is not raised. An invalid key raises before anything is
        sent.
        """
        return await self._effects.outcomes(self._core.batches.get_many(keys))

    async def get_and_touch(self, key: Key, ttl: Ttl) -> T | None:
        """Return the value and set its TTL to *ttl*, in seconds or a timedelta; None on a miss.

        An item that cannot be decoded gets the TTL too. A lease placeholder would last too long with it, so a second
        request deletes the placeholder. An error or a cancel before that leaves the placeholder with *ttl*.
        ``maybe_applied`` of an error says whether the TTL may have been set.
        """
        recipe = recipes.get_and_touch(self._effects, self._operations, key, ttl)
        return await self._effects.run_recipe("get_and_touch", recipe, fallback=None)

    async def touch(self, key: Key, ttl: Ttl) -> bool:
        """Set the TTL of the item to *ttl*, in seconds or a timedelta; return whether the item exists.

        Consumes the win flag of a stale item. Returns False for a lease placeholder, and deletes it as `get_and_touch`
        does. Errors are as in `get_and_touch`.
        """
        recipe = recipes.touch(self._effects, self._operations, key, ttl)
        return await self._effects.run_recipe("touch", recipe, fallback=False)

    async def exists(self, key: Key) -> bool:
        """Return whether there is an item whose client flags this client can read. No value is transferred.

        Returns False for a lease placeholder. Returns False for foreign client flags, or raises DecodeError with
        ``on_undecodable="raise"``. Consumes the win flag of a stale item, as `get` does.
        """
        return await self._effects.call(READ, self._operations.exists(key), fallback=False)

    async def inspect(self, key: Key) -> Metadata | None:
        """Return the metadata of the item; None if there is no item.

        It is not a read: it consumes no win flag and restarts no idle time. Raises InvalidKeyError for a key that is
        base64-encoded on the wire, because it holds a space or a control byte, or is hashed.
        """
        return await self._effects.call(READ, self._operations.inspect(key), fallback=None)

    # --- writing -----------------------------------------------------------------------------------------------------

    async def set(self, key: Key, value: T, *, ttl: Ttl | Default = DEFAULT) -> StoreResult:
        """Store *value*, whether the key exists or not; return STORED.

        *ttl*: seconds or a timedelta; None: the item never expires; left out: the client's default_ttl. A ServerError
        (value too large, out of memory) leaves the key without its old value.
        """
        try:
            return await self._run(self._operations.set(key, value, ttl), deadline=None)
        except MetacacheError as error:
            if self._core.errors.suppresses(WRITE, error):
                return StoreResult.FAILED
            raise

    async def add(self, key: Key, value: T, *, ttl: Ttl | Default = DEFAULT) -> StoreResult:
        """Store *value* if the key does not exist; return STORED or NOT_STORED.

        *ttl* and errors are as in `set`. An item that this client cannot decode exists: `get` returns a miss, but `add`
        returns NOT_STORED.
        """
        return await self._effects.call(WRITE, self._operations.add(key, value, ttl), fallback=StoreResult.FAILED)

    async def replace(self, key: Key, value: T, *, ttl: Ttl | Default = DEFAULT) -> StoreResult:
        """Store *value* if the key exists; return STORED or NOT_STORED. *ttl* and errors are as in `set`."""
        return await self._effects.call(WRITE, self._operations.replace(key, value, ttl), fallback=StoreResult.FAILED)

    async def compare_and_set(self, key: Key, value: T, cas: int, *, ttl: Ttl | Default = DEFAULT) -> StoreResult:
        """Store *value* if the item still has the CAS *cas* (see `get_item`); return STORED, EXISTS or NOT_FOUND.

        *ttl* and errors are as in `set`: a store restarts the TTL.
        """
        op = self._operations.compare_and_set(key, value, cas, ttl)
        return await self._effects.call(WRITE, op, fallback=StoreResult.FAILED)

    async def set_many(self, items: Mapping[K, T], *, ttl: Ttl | Default = DEFAULT) -> dict[K, StoreResult]:
        """Store the values in one batch; return the result of each key.

        *ttl* is as in `set`. All arguments are checked before the first byte is sent. Raises BatchError if a part
        failed. It holds the results and the errors.
        """
        return await self._effects.results(self._core.batches.set_many(items, ttl))

    async def set_many_outcomes(
        self, items: Mapping[K, T], *, ttl: Ttl | Default = DEFAULT
    ) -> Outcomes[K, StoreResult]:
        """Store the values in one batch; return the results and the errors, by key.

        *ttl* is as in `set`. The error of a part that failed is in ``errors`` and is not raised. An invalid key, value
        or ttl raises before anything is sent.
        """
        return await self._effects.outcomes(self._core.batches.set_many(items, ttl))

    @overload
    async def append(self: AsyncClient[bytes], key: Key, value: bytes) -> StoreResult: ...
    @overload
    async def append(self: AsyncClient[str], key: Key, value: str) -> StoreResult: ...
    async def append(self: AsyncClient[B], key: Key, value: B) -> StoreResult:
        """Append *value* to the stored value; return STORED or NOT_STORED. The item keeps its TTL.

        Returns NOT_STORED if there is no item, or if the item cannot be extended: it is a lease placeholder, stale,
        compressed, of another serializer, or would become too large for the server. With ``on_undecodable="raise"``,
        an item that is compressed or of another serializer raises DecodeError instead.

        Two requests, each with its own timeout: one reads the flags and the CAS of the item, the other appends if the
        CAS is unchanged. If the first consumed the win flag of a stale item, a request returns the flag. If another
        writer stores in between, both are repeated: 64 attempts in about 3 seconds, then ConflictError.

        After an error with ``maybe_applied`` False nothing was appended. Raises ServerError if the server runs without
        CAS (-C). Raises ServerError, and leaves the key without a value, if *value* alone is too large for the server.
        Raises InvalidArgumentError unless the client has the built-in serializer of bytes or str and no compressor.
        """
        recipe = recipes.extend(self._effects, self._operations, APPEND, key, value)
        return await self._effects.run_recipe(APPEND.name, recipe, fallback=StoreResult.FAILED)

    @overload
    async def prepend(self: AsyncClient[bytes], key: Key, value: bytes) -> StoreResult: ...
    @overload
    async def prepend(self: AsyncClient[str], key: Key, value: str) -> StoreResult: ...
    async def prepend(self: AsyncClient[B], key: Key, value: B) -> StoreResult:
        """Prepend *value* to the stored value. Results and errors are as in `append`."""
        recipe = recipes.extend(self._effects, self._operations, PREPEND, key, value)
        return await self._effects.run_recipe(PREPEND.name, recipe, fallback=StoreResult.FAILED)

    async def delete(self, key: Key, *, cas: int | None = None) -> DeleteResult:
        """Delete the item, with *cas* only if its CAS is unchanged; return DELETED, NOT_FOUND or EXISTS."""
        return await self._effects.call(WRITE, self._operations.delete(key, cas), fallback=DeleteResult.FAILED)

    async def delete_many(self, keys: Iterable[K]) -> dict[K, DeleteResult]:
        """Delete the items in one batch; return the result of each key.

        Raises BatchError if a part failed. It holds the results and the errors.
        """
        return await self._effects.results(self._core.batches.delete_many(keys))

    async def delete_many_outcomes(self, keys: Iterable[K]) -> Outcomes[K, DeleteResult]:
        """Delete the items in one batch; return the results and the errors, by key.

        The error of a part that failed is in ``errors`` and is not raised. An invalid key raises before anything is
        sent.
        """
        return await self._effects.outcomes(self._core.batches.delete_many(keys))

    async def invalidate(self, key: Key, *, stale_for: int | timedelta) -> bool:
        """Mark the item stale and set its TTL to *stale_for*, in seconds or a timedelta; return whether it exists.

        Readers get the stale value until it expires. The next reader also gets the win flag (`Item.won`): it should
        store a fresh value. Other readers do not get the flag, even if the winner never stores. *stale_for* replaces
        the TTL, also if that was shorter.
        """
        return await self._effects.call(WRITE, self._operations.invalidate(key, stale_for), fallback=False)

    async def update(
        self, key: Key, fn: Callable[[T | None], T], *, ttl: Ttl | Default = DEFAULT, attempts: int = 10
    ) -> T:
        """Store ``fn(current value)`` and return it; retry if another writer stores in between.

        *fn* gets None if there is no item, if it is a lease placeholder, or if it cannot be decoded. It may be called
        *attempts* times. Each request has its own timeout. *ttl* is as in `set`: the store restarts the TTL.

        Raises ConflictError if another writer was first in every attempt. ``on_error`` suppresses no error here. If the
        update ends before the store, the item keeps its value, but the read has consumed the win flag of a stale item.
        """
        recipe = recipes.update(self._effects, self._operations, key, fn, ttl, attempts)
        return await self._effects.run_recipe_or_raise("update", recipe)

    # --- arithmetic --------------------------------------------------------------------------------------------------

    @overload
    async def increment(
        self: AsyncClient[int], key: Key, delta: int = 1, *, initial: int, initial_ttl: Ttl | Default = DEFAULT
    ) -> int: ...
    @overload
    async def increment(
        self: AsyncClient[int], key: Key, delta: int = 1, *, initial: int, ttl: Ttl | Default = DEFAULT
    ) -> int: ...
    @overload
    async def increment(
        self: AsyncClient[int], key: Key, delta: int = 1, *, ttl: Ttl | Default = DEFAULT
    ) -> int | None: ...
    async def increment(
        self: AsyncClient[int],
        key: Key,
        delta: int = 1,
        *,
        initial: int | None = None,
        initial_ttl: Ttl | Default = DEFAULT,
        ttl: Ttl | Default = DEFAULT,
    ) -> int | None:
        """Add *delta* (0 to 2**64-1) on the server; return the sum, or None if the key does not exist.

        The sum wraps at 2**64. If the key does not exist and *initial* is given, *initial* is stored and returned. Its
        TTL is *initial_ttl*, else *ttl*, else the client's default_ttl.

        *ttl* also restarts the TTL of an existing item. That takes a second request, a `touch` with its own timeout,
        which consumes the win flag of a stale item. If only the `touch` fails, the number has changed, and
        ``maybe_applied`` is True.

        Raises InvalidArgumentError unless the client has the built-in serializer of int and no compressor; also for
        *initial_ttl* together with *ttl* or without *initial*. Raises ClientError if the stored value is not a number
        from 0 to 2**64-1. With ``on_error="ignore"`` a failure returns *initial*, also if only the `touch` failed.
        """
        recipe = recipes.arithmetic(self._effects, self._operations, INCREMENT, key, delta, initial, initial_ttl, ttl)
        return await self._effects.run_recipe(INCREMENT.name, recipe, fallback=initial)

    @overload
    async def decrement(
        self: AsyncClient[int], key: Key, delta: int = 1, *, initial: int, initial_ttl: Ttl | Default = DEFAULT
    ) -> int: ...
    @overload
    async def decrement(
        self: AsyncClient[int], key: Key, delta: int = 1, *, initial: int, ttl: Ttl | Default = DEFAULT
    ) -> int: ...
    @overload
    async def decrement(
        self: AsyncClient[int], key: Key, delta: int = 1, *, ttl: Ttl | Default = DEFAULT
    ) -> int | None: ...
    async def decrement(
        self: AsyncClient[int],
        key: Key,
        delta: int = 1,
        *,
        initial: int | None = None,
        initial_ttl: Ttl | Default = DEFAULT,
        ttl: Ttl | Default = DEFAULT,
    ) -> int | None:
        """Subtract *delta* (0 to 2**64-1) on the server; return the difference, or None if the key does not exist.

        The difference is at least 0. Arguments and errors are as in `increment`.
        """
        recipe = recipes.arithmetic(self._effects, self._operations, DECREMENT, key, delta, initial, initial_ttl, ttl)
        return await self._effects.run_recipe(DECREMENT.name, recipe, fallback=initial)

    # --- computing ---------------------------------------------------------------------------------------------------

    async def get_or_compute(
        self,
        key: Key,
        factory: Callable[[], Awaitable[T]],
        *,
        ttl: Ttl | Default = DEFAULT,
        policy: Stampede = STAMPEDE,
        should_cache: Callable[[T], bool] | None = None,
    ) -> T:
        """Return the value; compute it with *factory* and store it if there is none.

        Of all callers of all processes, one computes at a time; the others wait for its value, or get an old one: see
        `Stampede`. *ttl* as in `set`. *should_cache* says whether to store a computed value. A hit is one exchange.

        A store is guarded by the CAS that was read before *factory* began: a value that was set, deleted or invalidated
        meanwhile is not replaced, and the computed value is returned. Exceptions of *factory* come out unchanged, and
        the next caller computes immediately. Raises BusyError when another caller computes for longer than
        `Stampede.wait` and ``on_busy="raise"``, or when *factory* asks for its own key. Raises ServerError when the
        server runs without CAS. When the cache fails, ``on_error="raise"`` raises; "miss" and "ignore" compute without
        storing.
        """
        return await (self._caching or self._load_caching()).get(key, factory, policy, ttl, should_cache)

    async def get_or_compute_item(
        self,
        key: Key,
        factory: Callable[[], Awaitable[T]],
        *,
        ttl: Ttl | Default = DEFAULT,
        policy: Stampede = STAMPEDE,
        should_cache: Callable[[T], bool] | None = None,
    ) -> Computed[T]:
        """Do as `get_or_compute`; return the value and where it came from."""
        return await (self._caching or self._load_caching()).get_item(key, factory, policy, ttl, should_cache)

    async def get_or_compute_many(
        self,
        keys: Iterable[K],
        factory: Callable[[Sequence[K]], Awaitable[Mapping[K, T]]],
        *,
        ttl: Ttl | Default = DEFAULT,
        policy: Stampede = STAMPEDE,
        should_cache: Callable[[T], bool] | None = None,
    ) -> dict[K, T]:
        """Return the values by key; compute those that are missing in one call of *factory*, and store them.

        *factory* gets the keys that this caller is to compute. Keys that it leaves out are not in the result. Then the
        call waits for keys that other callers compute. Else as `get_or_compute`. Raises BatchError, with the values
        found or computed, when a part of an exchange failed.
        """
        return await (self._caching or self._load_caching()).get_many(keys, factory, policy, ttl, should_cache)

    @overload
    def cached(
        self,
        key: str,
        *,
        ttl: Ttl | Default = DEFAULT,
        policy: Stampede = STAMPEDE,
        should_cache: Callable[[T], bool] | None = None,
        ignore: Collection[str] = (),
    ) -> Callable[[Callable[P, Awaitable[T]]], AsyncCached[P, T]]: ...
    @overload
    def cached(
        self,
        key: Callable[P, Key],
        *,
        ttl: Ttl | Default = DEFAULT,
        policy: Stampede = STAMPEDE,
        should_cache: Callable[[T], bool] | None = None,
    ) -> Callable[[Callable[P, Awaitable[T]]], AsyncCached[P, T]]: ...
    def cached(
        self,
        key: str | Callable[..., Key],
        *,
        ttl: Ttl | Default = DEFAULT,
        policy: Stampede = STAMPEDE,
        should_cache: Callable[[T], bool] | None = None,
        ignore: Collection[str] = (),
    ) -> Callable[[Callable[..., Awaitable[T]]], AsyncCached[..., T]]:
        """Return a decorator: each call of the function becomes a `get_or_compute`.

        *key*: a template such as ``"user:{id}"`` that names each parameter which is not in *ignore*, ``self`` too; or a
        function of the same arguments that returns the key. A template takes str, int, bool, None, bytes, UUID and
        Enum. Two calls with different arguments have different keys, but 42 and "42", and a UUID and its text, are one
        key. Raises InvalidArgumentError and InvalidTypeError when decorating.
        """

        def decorate(function: Callable[..., Awaitable[T]]) -> AsyncCached[..., T]:
            caching = self._caching or self._load_caching()
            return caching.decorate(function, key, ignore, policy, ttl, should_cache, self.delete)

        return decorate

    async def namespace(self, name: str) -> AsyncClient[T]:
        """Return a view of the client whose keys are in the namespace *name*; one exchange, two for a new name.

        `clear_namespace` makes all of its values unreachable. The view belongs to the namespace as it is now: make one
        for each unit of work, such as a request. All clients of the same prefix share the namespaces. Failures raise,
        with any ``on_error``.
        """
        caching = self._caching or self._load_caching()
        return self._view(self._core.namespace_view(await caching.namespace_prefix(name)))

    async def clear_namespace(self, name: str) -> None:
        """Make all values of the namespace *name* unreachable; one exchange. Failures raise, with any ``on_error``."""
        await (self._caching or self._load_caching()).clear_namespace(name)
