"""`Client[T]`: the verbs of one Python type over a blocking transport, a line or two each.

What a verb means is in operations, batches and recipes; how bytes move is the transport's. The asyncio twin has the
same verbs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, Generic, Protocol, Self, cast, final, overload

from typing_extensions import TypeVar, Unpack, override

from metacache import recipes
from metacache.arguments import DEFAULT, Default, Ttl
from metacache.copying import refuse_copy
from metacache.core import Core, check_transport
from metacache.operations import APPEND, DECREMENT, INCREMENT, PREPEND
from metacache.options import ClientOptions, ViewOptions, options_of
from metacache.policies import ErrorPolicy
from metacache.protocol.keys import K, Key
from metacache.protocol.windows import Replies
from metacache.readers import EN_REPLY
from metacache.results import DeleteResult, Item, Metadata, Outcomes, StoreResult
from metacache.serializers.builtin import BytesSerializer
from metacache.serializers.frame import Cause
from metacache.serializers.protocols import Serializer
from metacache.transports import CLOSED, Batch, Operation, Transport
from metacache.transports.blocking import run_batch

__all__ = ["Client"]

T = TypeVar("T", default=bytes)
D = TypeVar("D")
R = TypeVar("R")
B = TypeVar("B", bytes, str)


class _Run(Protocol):
    def __call__(self, op: Operation[R], /, *, deadline: float | None) -> R: ...


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
    servers and network in reads. Safe to share among threads if the transport is.
    """

    __reduce_ex__ = refuse_copy
    __slots__ = ("_core", "_effects", "_fetch", "_operations", "_owns", "_run", "_transport")

    _run: _Run
    _fetch: _Run
    _transport: Transport

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
        serializer: Serializer[Any] | None = None,  # Any: T, or bytes when left out; the overloads say which
        *,
        owns: bool = False,
        **options: Unpack[ClientOptions],
    ) -> None:
        check_transport(transport, "Client")
        chosen: Serializer[Any] = BytesSerializer() if serializer is None else serializer  # Any: as above
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
        # Chosen once, so that no operation asks. None of them refers to the client: a dropped one is freed at once.
        timeout, misses = core.options.timeout, core.misses
        self._run = transport.run if timeout is None else _within(transport, timeout)
        self._fetch = self._run if misses is None else _or_miss(self._run, misses)
        self._effects = _BlockingEffects(self._run)

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
        self._run = self._fetch = CLOSED.run
        self._effects = _BlockingEffects(self._run)
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
        """How many stored values were none of this client's type, by cause. Live."""
        return self._core.undecodable.counts

    @property
    def errors_as_misses(self) -> Mapping[str, int]:
        """How many errors ``on_error="miss"`` made misses of, by the name of their class. Live."""
        return self._core.errors.counts

    # --- reading -----------------------------------------------------------------------------------------------------

    @overload
    def get(self, key: Key) -> T | None: ...
    @overload
    def get(self, key: Key, default: D) -> T | D: ...
    def get(self, key: Key, default: D | None = None) -> T | D | None:
        """Return the value, or *default* for a miss.

        A value marked stale is returned as any other, and spends its win: use `get_item` to be told.
        """
        fetch = self._fetch
        return fetch(self._operations.get(key, default), deadline=None)

    def get_item(self, key: Key) -> Item[T] | None:
        """Return the value with its CAS, time to live, size and state, or None for a miss."""
        return self._fetch(self._operations.get_item(key), deadline=None)

    def get_many(self, keys: Iterable[K]) -> dict[K, T]:
        """Return the values of those keys that were found; one exchange for all.

        Raises BatchError, with both halves, when a part failed.
        """
        batch = self._core.batches.get_many(keys)
        return batch.results(self._drive(batch.batch), self._core.misses)

    def get_items(self, keys: Iterable[K]) -> dict[K, Item[T]]:
        """Return the items of those keys that were found, as `get_item` and `get_many` do."""
        batch = self._core.batches.get_items(keys)
        return batch.results(self._drive(batch.batch), self._core.misses)

    def get_many_outcomes(self, keys: Iterable[K]) -> Outcomes[K, T]:
        """Return the values found and the errors met, by key; never raises for a part once it is sent.

        A key that cannot travel raises before anything is sent, as in every batch.
        """
        batch = self._core.batches.get_many(keys)
        return batch.outcomes(self._drive(batch.batch))

    def get_and_touch(self, key: Key, ttl: Ttl) -> T | None:
        """Return the value and give it *ttl* seconds to live from now; None for a miss.

        What was there but could not be decoded is touched too. A lease is removed by a second exchange, for it would
        last too long. An error or a cancel before that leaves it with *ttl*. An error says by ``maybe_applied`` whether
        the item may have been touched.
        """
        recipe = recipes.get_and_touch(self._effects, self._operations, key, ttl)
        return _await(recipe)

    def touch(self, key: Key, ttl: Ttl) -> bool:
        """Give the item *ttl* seconds to live from now; return whether it was there.

        Consumes the win of a stale item. A lease is removed as in `get_and_touch`, and is False; errors as there.
        """
        return _await(recipes.touch(self._effects, self._operations, key, ttl))

    def exists(self, key: Key) -> bool:
        """Return whether an item is there that this client can read by its client flags; its bytes are not decoded.

        False for a lease. Foreign flags: False, or DecodeError by ``on_undecodable``. Consumes the win of a stale item,
        as `get` does.
        """
        return self._fetch(self._operations.exists(key), deadline=None)

    def inspect(self, key: Key) -> Metadata | None:
        """Return what the server knows of an item without reading it, or None; spends no win, renews nothing.

        Raises InvalidKeyError for a key that travels as base64 (it holds a space or control byte, or is hashed).
        """
        return self._fetch(self._operations.inspect(key), deadline=None)

    # --- writing -----------------------------------------------------------------------------------------------------

    def set(self, key: Key, value: T, *, ttl: Ttl | Default = DEFAULT) -> StoreResult:
        """Store *value* whatever is there; return STORED.

        *ttl*: seconds or timedelta; None: never expires; left out: the client's default_ttl. A ServerError (too large,
        out of memory) leaves the key without its old value.
        """
        run = self._run
        return run(self._operations.set(key, value, ttl), deadline=None)

    def add(self, key: Key, value: T, *, ttl: Ttl | Default = DEFAULT) -> StoreResult:
        """Store *value* if the key is not there; return STORED or NOT_STORED. *ttl* and errors as in `set`.

        What this client cannot decode is there all the same: `get` misses it, `add` does not store.
        """
        return self._run(self._operations.add(key, value, ttl), deadline=None)

    def replace(self, key: Key, value: T, *, ttl: Ttl | Default = DEFAULT) -> StoreResult:
        """Store *value* if the key is there; return STORED or NOT_STORED. *ttl* and errors as in `set`."""
        return self._run(self._operations.replace(key, value, ttl), deadline=None)

    def compare_and_set(self, key: Key, value: T, cas: int, *, ttl: Ttl | Default = DEFAULT) -> StoreResult:
        """Store *value* if the item still has *cas* (of `get_item`); return STORED, EXISTS or NOT_FOUND.

        *ttl* as in `set`: it lives anew, not for what it had left.
        """
        return self._run(self._operations.compare_and_set(key, value, cas, ttl), deadline=None)

    def set_many(self, items: Mapping[K, T], *, ttl: Ttl | Default = DEFAULT) -> dict[K, StoreResult]:
        """Store all values; one exchange for all. Return what each came to. *ttl* as in `set`.

        Everything is checked before the first byte is sent. Raises BatchError, with both halves, when a part failed.
        """
        batch = self._core.batches.set_many(items, ttl)
        return batch.results(self._drive(batch.batch))

    def set_many_outcomes(self, items: Mapping[K, T], *, ttl: Ttl | Default = DEFAULT) -> Outcomes[K, StoreResult]:
        """Store all values; return results and errors by key, and never raise for a part once it is sent.

        *ttl* as in `set`. A key, value or ttl that is refused raises before anything is sent, as in `set_many`.
        """
        batch = self._core.batches.set_many(items, ttl)
        return batch.outcomes(self._drive(batch.batch))

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
        return _await(recipes.grow(self._effects, self._operations, APPEND, key, value))

    @overload
    def prepend(self: Client[bytes], key: Key, value: bytes) -> StoreResult: ...
    @overload
    def prepend(self: Client[str], key: Key, value: str) -> StoreResult: ...
    def prepend(self: Client[B], key: Key, value: B) -> StoreResult:
        """Put *value* before what is stored; else as `append`."""
        return _await(recipes.grow(self._effects, self._operations, PREPEND, key, value))

    def delete(self, key: Key, *, cas: int | None = None) -> DeleteResult:
        """Delete the item; with *cas* only if it still has it. Return DELETED, NOT_FOUND or EXISTS."""
        return self._run(self._operations.delete(key, cas), deadline=None)

    def delete_many(self, keys: Iterable[K]) -> dict[K, DeleteResult]:
        """Delete the items; one exchange for all. Return what each came to.

        Raises BatchError, with both halves, when a part failed.
        """
        batch = self._core.batches.delete_many(keys)
        return batch.results(self._drive(batch.batch))

    def delete_many_outcomes(self, keys: Iterable[K]) -> Outcomes[K, DeleteResult]:
        """Delete the items; return results and errors by key, and never raise for a part once it is sent.

        A key that cannot travel raises before anything is sent, as in every batch.
        """
        batch = self._core.batches.delete_many(keys)
        return batch.outcomes(self._drive(batch.batch))

    def invalidate(self, key: Key, *, stale_for: int | timedelta) -> bool:
        """Mark the item stale and let it be served for *stale_for* seconds more; return whether it was there.

        The next reader wins the right to store a fresh value (`Item.won`), and no other does, though it may never store
        one. *stale_for* becomes the time to live, also of an item that had less.
        """
        return self._run(self._operations.invalidate(key, stale_for), deadline=None)

    def update(self, key: Key, fn: Callable[[T | None], T], *, ttl: Ttl | Default = DEFAULT, attempts: int = 10) -> T:
        """Store ``fn(current value)``, again if another writer stores in between; return what was stored.

        *fn* gets None when there is no value (absent, being computed, undecodable) and may be called *attempts* times.
        Each exchange has its own timeout. *ttl* as in `set`: it restarts. Raises ConflictError when every attempt lost;
        read errors always raise. An end before the store leaves the item as it was, but for the win of a stale item,
        which the read consumes.
        """
        return _await(recipes.update(self._effects, self._operations, key, fn, ttl, attempts))

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
        when the stored value is not a number from 0 to 2**64-1.
        """
        recipe = recipes.arithmetic(self._effects, self._operations, INCREMENT, key, delta, initial, initial_ttl, ttl)
        return _await(recipe)

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
        return _await(recipe)

    def _drive(self, batch: Batch) -> Replies:
        timeout = self._core.options.timeout
        return run_batch(self._transport, batch, math.inf if timeout is None else time.monotonic() + timeout)


def _within(transport: Transport, timeout: float) -> _Run:
    def run(op: Operation[R], /, *, deadline: float | None) -> R:  # noqa: ARG001 - it is set here
        return transport.run(op, deadline=time.monotonic() + timeout)

    return run


def _or_miss(run: _Run, policy: ErrorPolicy) -> _Run:
    def fetch(op: Operation[R], /, *, deadline: float | None) -> R:
        try:
            return run(op, deadline=deadline)
        except policy.misses as error:
            policy.count(error)
            return op.read(EN_REPLY)

    return fetch


@final
class _BlockingEffects:
    """The effects of a recipe that runs in one go."""

    __slots__ = ("_run",)

    def __init__(self, run: _Run) -> None:
        self._run = run

    async def run(self, op: Operation[R], /) -> R:
        return self._run(op, deadline=None)

    async def sleep(self, seconds: float, /) -> None:
        time.sleep(seconds)


def _await(recipe: Coroutine[Any, Any, R]) -> R:  # Any: what it yields and is sent, which is nothing
    """Run a recipe whose effects never suspend it."""
    try:
        recipe.send(None)
    except StopIteration as done:
        return cast("R", done.value)  # typeshed cannot know what a StopIteration carries
    raise RuntimeError("a recipe waited for something other than its effects")
