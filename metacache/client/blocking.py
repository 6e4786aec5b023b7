"""`Client[T]`: the verbs of one Python type over a blocking transport, a line or two each.

What a verb means is in operations, batches and recipes; how bytes move is the transport's. The asyncio twin has the
same verbs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, Generic, Self, final, overload

from typing_extensions import TypeVar, Unpack, override

from metacache.client.blocking_effects import BlockingEffects
from metacache.client.core import Core, check_transport
from metacache.copying import refuse_copy
from metacache.errors import MetacacheError
from metacache.operations import recipes
from metacache.operations.arguments import DEFAULT, Default, Ttl
from metacache.operations.options import ClientOptions, ViewOptions, options_of
from metacache.operations.policies import READ, WRITE
from metacache.operations.requests import APPEND, DECREMENT, INCREMENT, PREPEND
from metacache.operations.results import DeleteResult, Item, Metadata, Outcomes, StoreResult
from metacache.operations.statistics import ClientStatistics
from metacache.protocol.keys import K, Key
from metacache.serializers.builtin import BytesSerializer
from metacache.serializers.frame import Cause
from metacache.serializers.interfaces import Serializer
from metacache.transports.base import CLOSED, Transport

__all__ = ["Client"]

T = TypeVar("T", default=bytes)
D = TypeVar("D")
R = TypeVar("R")
B = TypeVar("B", bytes, str)


@final
class Client(Generic[T]):
    """Stores and returns values of one Python type.

    Args:
        transport: moves the operations: a Connection, a Pool, a Cluster, or a wrapper of one.
        serializer: turns T into bytes (`load_serializer`); left out: a ``Client[bytes]``.
        owns: close the transport with the client.
        options: see `ClientOptions`.

    Misses, NOT_STORED and lost compare-and-sets are results. Every verb raises, before anything is sent:
    InvalidKeyError, InvalidArgumentError, SerializationError, ValueTooLargeError, ClosedError, PoolTimeout,
    NodeDownError, ConnectError, AuthenticationError. And when its request is on the way: OperationTimeout,
    ConnectionLost, ProtocolError (the connection is closed; ``maybe_applied`` tells whether a write may have been
    done), ServerError and ClientError (the connection goes on). ``on_error="miss"`` makes misses of the errors of
    servers and network in reads, ``"ignore"`` lets writes fail quietly too: see `ClientOptions`.
    Safe to share among threads if the transport is.
    """

    __reduce_ex__ = refuse_copy
    __slots__ = ("_core", "_effects", "_operations", "_owns", "_run", "_transport")

    @overload
    def __init__(
        self: Client[bytes],
        transport: Transport,
        serializer: None = None,
        *,
        owns: bool = False,
        **options: Unpack[ClientOptions],
    ) -> None: ...
    @overload
    def __init__(
        self, transport: Transport, serializer: Serializer[T], *, owns: bool = False, **options: Unpack[ClientOptions]
    ) -> None: ...
    def __init__(
        self,
        transport: Transport,
        serializer: Serializer[T] | None = None,
        *,
        owns: bool = False,
        **options: Unpack[ClientOptions],
    ) -> None:
        check_transport(transport, "Client")
        chosen: Serializer[Any] = BytesSerializer() if serializer is None else serializer  # Any: T is bytes then
        # pyright takes the T of a bare class for unknown.
        self._set_up(
            transport,
            Core.of(chosen, options_of(options)),  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
            owns=owns,
        )

    def _set_up(self, transport: Transport, core: Core[T], *, owns: bool) -> None:
        self._transport = transport
        self._core = core
        self._operations = core.operations
        self._owns = owns
        self._effects = BlockingEffects(transport, core.options.timeout, core.errors)
        self._run = self._effects.run_now

    def with_options(self, **changes: Unpack[ViewOptions]) -> Client[T]:
        """Return a client of the same type on the same transport with some options changed; cheap, and it owns nothing.

        It shares the counters. Raises InvalidArgumentError for a bad option.
        """
        view = object.__new__(type(self))
        view._set_up(self._transport, self._core.view(**changes), owns=False)
        return view

    def close(self) -> None:
        """Refuse further operations with ClosedError; close the transport if it is owned. Closing twice is nothing."""
        transport, self._transport = self._transport, CLOSED
        self._effects = BlockingEffects(CLOSED, None, self._core.errors)
        self._run = CLOSED.run
        if self._owns:
            transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()

    @override
    def __repr__(self) -> str:
        return f"<Client prefix={self._core.options.prefix!r} on {self._transport!r}>"

    @property
    def undecodable(self) -> Mapping[Cause, int]:
        """How many stored values could not be decoded, by cause. Live."""
        return self._core.undecodable.counts

    @property
    def errors_as_misses(self) -> Mapping[str, int]:
        """How many errors ``on_error`` made misses of, or ignored, by the name of their class. Live."""
        return self._core.errors.counts

    @property
    def statistics(self) -> ClientStatistics:
        """Hits, misses, stale and undecodable values, and errors since the client was made, its views included.

        A frozen snapshot; the counts are exact under threads.
        """
        return self._core.statistics

    # --- reading -----------------------------------------------------------------------------------------------------

    @overload
    def get(self, key: Key) -> T | None: ...
    @overload
    def get(self, key: Key, default: D) -> T | D: ...
    def get(self, key: Key, default: D | None = None) -> T | D | None:
        """Return the value, or *default* for a miss.

        A value marked stale is returned as any other, and spends its win: use `get_item` to be told.
        """
        run = self._run
        try:
            return run(self._operations.get(key, default), deadline=None)
        except MetacacheError as error:
            if self._core.errors.forgives(READ, error):
                return default
            raise

    def get_item(self, key: Key) -> Item[T] | None:
        """Return the value with its CAS, time to live, size and state, or None for a miss."""
        return self._effects.call(READ, self._operations.get_item(key), fallback=None)

    def get_many(self, keys: Iterable[K]) -> dict[K, T]:
        """Return the values of those keys that were found; one exchange for all.

        Raises BatchError, with both halves, when a part failed.
        """
        return self._effects.results(self._core.batches.get_many(keys))

    def get_items(self, keys: Iterable[K]) -> dict[K, Item[T]]:
        """Return the items of those keys that were found, as `get_item` and `get_many` do."""
        return self._effects.results(self._core.batches.get_items(keys))

    def get_many_outcomes(self, keys: Iterable[K]) -> Outcomes[K, T]:
        """Return the values found and the errors met, by key; never raises for a part once it is sent.

        A key that cannot travel raises before anything is sent, as in every batch.
        """
        return self._effects.outcomes(self._core.batches.get_many(keys))

    def get_and_touch(self, key: Key, ttl: Ttl) -> T | None:
        """Return the value and give it *ttl* seconds to live from now; None for a miss.

        An item that cannot be decoded is touched too. A lease is removed by a second exchange, because it would
        last too long. An error or a cancel before that leaves it with *ttl*. An error says by ``maybe_applied`` whether
        the item may have been touched.
        """
        recipe = recipes.get_and_touch(self._effects, self._operations, key, ttl)
        return self._effects.follow(recipe, fallback=None)

    def touch(self, key: Key, ttl: Ttl) -> bool:
        """Give the item *ttl* seconds to live from now; return whether it was there.

        Consumes the win of a stale item. A lease is removed as in `get_and_touch`, and is False; errors as there.
        """
        return self._effects.follow(recipes.touch(self._effects, self._operations, key, ttl), fallback=False)

    def exists(self, key: Key) -> bool:
        """Return whether an item is there that this client can read by its client flags; its bytes are not decoded.

        False for a lease. Foreign flags: False, or DecodeError by ``on_undecodable``. Consumes the win of a stale item,
        as `get` does.
        """
        return self._effects.call(READ, self._operations.exists(key), fallback=False)

    def inspect(self, key: Key) -> Metadata | None:
        """Return what the server knows of an item without reading it, or None; spends no win, renews nothing.

        Raises InvalidKeyError for a key that travels as base64 (it holds a space or control byte, or is hashed).
        """
        return self._effects.call(READ, self._operations.inspect(key), fallback=None)

    # --- writing -----------------------------------------------------------------------------------------------------

    def set(self, key: Key, value: T, *, ttl: Ttl | Default = DEFAULT) -> StoreResult:
        """Store *value* whatever is there; return STORED.

        *ttl*: seconds or timedelta; None: never expires; left out: the client's default_ttl. A ServerError (too large,
        out of memory) leaves the key without its old value.
        """
        run = self._run
        try:
            return run(self._operations.set(key, value, ttl), deadline=None)
        except MetacacheError as error:
            if self._core.errors.forgives(WRITE, error):
                return StoreResult.FAILED
            raise

    def add(self, key: Key, value: T, *, ttl: Ttl | Default = DEFAULT) -> StoreResult:
        """Store *value* if the key is not there; return STORED or NOT_STORED. *ttl* and errors as in `set`.

        What this client cannot decode is there all the same: `get` misses it, `add` does not store.
        """
        return self._effects.call(WRITE, self._operations.add(key, value, ttl), fallback=StoreResult.FAILED)

    def replace(self, key: Key, value: T, *, ttl: Ttl | Default = DEFAULT) -> StoreResult:
        """Store *value* if the key is there; return STORED or NOT_STORED. *ttl* and errors as in `set`."""
        return self._effects.call(WRITE, self._operations.replace(key, value, ttl), fallback=StoreResult.FAILED)

    def compare_and_set(self, key: Key, value: T, cas: int, *, ttl: Ttl | Default = DEFAULT) -> StoreResult:
        """Store *value* if the item still has *cas* (of `get_item`); return STORED, EXISTS or NOT_FOUND.

        *ttl* as in `set`: it lives anew, not for what it had left.
        """
        op = self._operations.compare_and_set(key, value, cas, ttl)
        return self._effects.call(WRITE, op, fallback=StoreResult.FAILED)

    def set_many(self, items: Mapping[K, T], *, ttl: Ttl | Default = DEFAULT) -> dict[K, StoreResult]:
        """Store all values; one exchange for all. Return what each came to. *ttl* as in `set`.

        Everything is checked before the first byte is sent. Raises BatchError, with both halves, when a part failed.
        """
        return self._effects.results(self._core.batches.set_many(items, ttl))

    def set_many_outcomes(self, items: Mapping[K, T], *, ttl: Ttl | Default = DEFAULT) -> Outcomes[K, StoreResult]:
        """Store all values; return results and errors by key, and never raise for a part once it is sent.

        *ttl* as in `set`. A key, value or ttl that is refused raises before anything is sent, as in `set_many`.
        """
        return self._effects.outcomes(self._core.batches.set_many(items, ttl))

    @overload
    def append(self: Client[bytes], key: Key, value: bytes) -> StoreResult: ...
    @overload
    def append(self: Client[str], key: Key, value: str) -> StoreResult: ...
    def append(self: Client[B], key: Key, value: B) -> StoreResult:
        """Put *value* behind what is stored; return STORED or NOT_STORED. The item keeps its time to live.

        NOT_STORED: the item is absent, a lease, stale, compressed, written by another serializer (the last two:
        DecodeError by ``on_undecodable``), or it would become too large for the server. Takes two exchanges, each with
        a timeout of its own: one looks at the item (and gives the win back where it took that of a stale item), one
        appends if no other writer came in between. Else both are done again, up to 64 times within 3 seconds or so;
        then ConflictError. After an error with ``maybe_applied`` false nothing was appended. ServerError: the server
        runs without CAS (-C), or *value* alone is too large for it, which leaves the key without any. Only for values
        of bytes and of str with the built-in serializer and no compressor, else InvalidArgumentError.
        """
        recipe = recipes.grow(self._effects, self._operations, APPEND, key, value)
        return self._effects.follow(recipe, fallback=StoreResult.FAILED)

    @overload
    def prepend(self: Client[bytes], key: Key, value: bytes) -> StoreResult: ...
    @overload
    def prepend(self: Client[str], key: Key, value: str) -> StoreResult: ...
    def prepend(self: Client[B], key: Key, value: B) -> StoreResult:
        """Put *value* before what is stored; else as `append`."""
        recipe = recipes.grow(self._effects, self._operations, PREPEND, key, value)
        return self._effects.follow(recipe, fallback=StoreResult.FAILED)

    def delete(self, key: Key, *, cas: int | None = None) -> DeleteResult:
        """Delete the item; with *cas* only if it still has it. Return DELETED, NOT_FOUND or EXISTS."""
        return self._effects.call(WRITE, self._operations.delete(key, cas), fallback=DeleteResult.FAILED)

    def delete_many(self, keys: Iterable[K]) -> dict[K, DeleteResult]:
        """Delete the items; one exchange for all. Return what each came to.

        Raises BatchError, with both halves, when a part failed.
        """
        return self._effects.results(self._core.batches.delete_many(keys))

    def delete_many_outcomes(self, keys: Iterable[K]) -> Outcomes[K, DeleteResult]:
        """Delete the items; return results and errors by key, and never raise for a part once it is sent.

        A key that cannot travel raises before anything is sent, as in every batch.
        """
        return self._effects.outcomes(self._core.batches.delete_many(keys))

    def invalidate(self, key: Key, *, stale_for: int | timedelta) -> bool:
        """Mark the item stale and let it be served for *stale_for* seconds more; return whether it was there.

        The next reader wins the right to store a fresh value (`Item.won`), and no other does, though it may never store
        one. *stale_for* becomes the time to live, also of an item that had less.
        """
        return self._effects.call(WRITE, self._operations.invalidate(key, stale_for), fallback=False)

    def update(self, key: Key, fn: Callable[[T | None], T], *, ttl: Ttl | Default = DEFAULT, attempts: int = 10) -> T:
        """Store ``fn(current value)``, again if another writer stores in between; return the stored value.

        *fn* gets None when there is no value (absent, being computed, undecodable) and may be called *attempts* times.
        Each exchange has its own timeout. *ttl* as in `set`: it restarts. Raises ConflictError when every attempt lost;
        read errors always raise. An end before the store leaves the item as it was, but for the win of a stale item,
        which the read consumes.
        """
        recipe = recipes.update(self._effects, self._operations, key, fn, ttl, attempts)
        return self._effects.follow_strictly(recipe)

    # --- arithmetic --------------------------------------------------------------------------------------------------

    @overload
    def increment(
        self: Client[int], key: Key, delta: int = 1, *, initial: int, initial_ttl: Ttl | Default = DEFAULT
    ) -> int: ...
    @overload
    def increment(
        self: Client[int], key: Key, delta: int = 1, *, initial: int, ttl: Ttl | Default = DEFAULT
    ) -> int: ...
    @overload
    def increment(self: Client[int], key: Key, delta: int = 1, *, ttl: Ttl | Default = DEFAULT) -> int | None: ...
    def increment(
        self: Client[int],
        key: Key,
        delta: int = 1,
        *,
        initial: int | None = None,
        initial_ttl: Ttl | Default = DEFAULT,
        ttl: Ttl | Default = DEFAULT,
    ) -> int | None:
        """Add *delta* (0 to 2**64-1) on the server and return the sum, which wraps at 2**64; None if the key is absent.

        *initial* is stored and returned when the key is not there, to live for *initial_ttl*, else *ttl*, else the
        client's default_ttl. Only a given *ttl* renews the life of an item that is there. It costs a second exchange, a
        `touch` with a timeout of its own: after an error of that one (``maybe_applied``) the number has changed, its
        life perhaps not; the win of a stale item is consumed. Only for values of int with the built-in serializer and
        no compressor, else InvalidArgumentError, as for *initial_ttl* beside *ttl* or without *initial*; ClientError
        when the stored value is not a number from 0 to 2**64-1. With ``on_error="ignore"`` a failure returns *initial*,
        also when only the second exchange failed.
        """
        recipe = recipes.arithmetic(self._effects, self._operations, INCREMENT, key, delta, initial, initial_ttl, ttl)
        return self._effects.follow(recipe, fallback=initial)

    @overload
    def decrement(
        self: Client[int], key: Key, delta: int = 1, *, initial: int, initial_ttl: Ttl | Default = DEFAULT
    ) -> int: ...
    @overload
    def decrement(
        self: Client[int], key: Key, delta: int = 1, *, initial: int, ttl: Ttl | Default = DEFAULT
    ) -> int: ...
    @overload
    def decrement(self: Client[int], key: Key, delta: int = 1, *, ttl: Ttl | Default = DEFAULT) -> int | None: ...
    def decrement(
        self: Client[int],
        key: Key,
        delta: int = 1,
        *,
        initial: int | None = None,
        initial_ttl: Ttl | Default = DEFAULT,
        ttl: Ttl | Default = DEFAULT,
    ) -> int | None:
        """Subtract *delta* on the server and return the difference, at least 0; else as `increment`."""
        recipe = recipes.arithmetic(self._effects, self._operations, DECREMENT, key, delta, initial, initial_ttl, ttl)
        return self._effects.follow(recipe, fallback=initial)
