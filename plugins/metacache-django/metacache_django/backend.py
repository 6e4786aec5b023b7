"""`MetaCache`: Django's cache methods, blocking and asyncio, each a few lines.

`sharing` has the clients, `writing` the meaning of the writes, `sealing` the format of the values. This module checks
keys and timeouts by Django's rules, and reads the secret keys from Django's settings.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from typing import Any, Final, TypeVar, final

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.cache.backends.base import (
    DEFAULT_TIMEOUT,
    MEMCACHE_MAX_KEY_LENGTH,
    BaseCache,
    InvalidCacheKey,
    memcache_key_warnings,
)
from django.core.exceptions import SynchronousOnlyOperation
from typing_extensions import override

from metacache import AsyncCluster, ClientError, MetacacheError, Node
from metacache.transports.blocking.driver import drive
from metacache_django import writing
from metacache_django.options import Location
from metacache_django.sealing import Sealer, Unreadable
from metacache_django.sharing import shared
from metacache_django.writing import EXPIRED, BlockingVerbs

__all__ = ["MetaCache"]

R = TypeVar("R")

logger: Final = logging.getLogger("metacache_django")


class MetaCache(BaseCache):
    """A cache backend that stores signed pickles in memcached, and ints as numbers that the server can count with.

    The methods are those of every backend of Django. All have an asyncio twin that uses no thread,
    unless a value queries the database when it is pickled. Objects with the
    same LOCATION and OPTIONS share connections, and `close` keeps these open.

    Raises ImproperlyConfigured that names the invalid part of LOCATION or OPTIONS. A method raises InvalidCacheKey, and
    errors of metacache: when a server is down, OPTIONS["on_error"] decides.
    """

    # Any in this class: Django types keys, values and defaults as Any.

    def __init__(self, server: Location, params: dict[str, Any]) -> None:
        super().__init__(params)
        self._shared = shared(server, params.get("OPTIONS") or {})

    @override
    def __repr__(self) -> str:
        return f"<MetaCache on {self._shared.configured.name}>"

    # --- keys and timeouts -------------------------------------------------------------------------------------------

    @override
    def get_backend_timeout(self, timeout: float | None = DEFAULT_TIMEOUT) -> int | None:
        """Return *timeout* as whole seconds, rounded up. None: never; 0: the value expires immediately."""
        chosen = self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout
        return None if chosen is None else max(EXPIRED, math.ceil(chosen))

    @override
    def validate_key(self, key: str) -> None:
        """Raise InvalidCacheKey if *key* is not a key by Django's rules, or too long for memcached in UTF-8."""
        if len(key) <= MEMCACHE_MAX_KEY_LENGTH and key.isascii() and key.isprintable() and " " not in key and key:
            return
        for warning in memcache_key_warnings(key):
            raise InvalidCacheKey(warning)
        _check_bytes(key)

    # --- reading -----------------------------------------------------------------------------------------------------

    @override
    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        """Return the value, or *default* on a miss. A stored None is a value."""
        made = self.make_and_validate_key(key, version)
        return _value(made, self._shared.blocking.values.get(made), default)

    @override
    async def aget(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        """Return the value, or *default* on a miss. A stored None is a value."""
        made = self.make_and_validate_key(key, version)
        sealed = await self._shared.aio.values.get(made)
        return await _in_loop(partial(_value, made, sealed, default))

    @override
    def get_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        """Return the values that were found, by key, in one exchange with each server."""
        originals = {self.make_and_validate_key(key, version): key for key in keys}
        return _values(originals, self._shared.blocking.values.get_many(originals))

    @override
    async def aget_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        """Return the values that were found, by key, in one exchange with each server."""
        originals = {self.make_and_validate_key(key, version): key for key in keys}
        found = await self._shared.aio.values.get_many(originals)
        return await _in_loop(partial(_values, originals, found))

    # --- writing -----------------------------------------------------------------------------------------------------

    @property
    def _verbs(self) -> BlockingVerbs:
        return BlockingVerbs(self._shared.blocking.values)

    @override
    def set(self, key: Any, value: Any, timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None) -> None:
        """Store the value. If that fails, the old value is deleted."""
        made = self.make_and_validate_key(key, version)
        sealed = _sealer().seal(made, value)
        drive(writing.set_one(self._verbs, made, sealed, self.get_backend_timeout(timeout)))

    @override
    async def aset(
        self, key: Any, value: Any, timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None
    ) -> None:
        """Store the value. If that fails, the old value is deleted."""
        made = self.make_and_validate_key(key, version)
        sealed = await _in_loop(partial(_sealer().seal, made, value))
        await writing.set_one(self._shared.aio.values, made, sealed, self.get_backend_timeout(timeout))

    @override
    def add(self, key: Any, value: Any, timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Store the value if the key does not exist; return whether it was stored."""
        made = self.make_and_validate_key(key, version)
        sealed = _sealer().seal(made, value)
        return drive(writing.add(self._verbs, made, sealed, self.get_backend_timeout(timeout)))

    @override
    async def aadd(
        self, key: Any, value: Any, timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        """Store the value if the key does not exist; return whether it was stored."""
        made = self.make_and_validate_key(key, version)
        sealed = await _in_loop(partial(_sealer().seal, made, value))
        return await writing.add(self._shared.aio.values, made, sealed, self.get_backend_timeout(timeout))

    @override
    def touch(self, key: Any, timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Give the value a new timeout; return whether there was one."""
        made = self.make_and_validate_key(key, version)
        return drive(writing.touch(self._verbs, made, self.get_backend_timeout(timeout)))

    @override
    async def atouch(self, key: Any, timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Give the value a new timeout; return whether there was one."""
        made = self.make_and_validate_key(key, version)
        return await writing.touch(self._shared.aio.values, made, self.get_backend_timeout(timeout))

    @override
    def delete(self, key: Any, version: int | None = None) -> bool:
        """Delete the value; return whether there was one."""
        return bool(self._shared.blocking.values.delete(self.make_and_validate_key(key, version)))

    @override
    async def adelete(self, key: Any, version: int | None = None) -> bool:
        """Delete the value; return whether there was one."""
        return bool(await self._shared.aio.values.delete(self.make_and_validate_key(key, version)))

    @override
    def set_many(
        self, data: Mapping[Any, Any], timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None
    ) -> list[Any]:
        """Store the values in one exchange with each server; return the keys that failed, which keep no old value."""
        originals, sealed = self._sealed(data, version)
        ttl, ignores = self.get_backend_timeout(timeout), self._shared.ignores_errors
        failed = drive(writing.set_many(self._verbs, sealed, ttl, ignores=ignores))
        return [originals[made] for made in failed]

    @override
    async def aset_many(
        self, data: Mapping[Any, Any], timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None
    ) -> list[Any]:
        """Store the values in one exchange with each server; return the keys that failed, which keep no old value."""
        originals, sealed = await _in_loop(partial(self._sealed, data, version))
        ttl, ignores = self.get_backend_timeout(timeout), self._shared.ignores_errors
        failed = await writing.set_many(self._shared.aio.values, sealed, ttl, ignores=ignores)
        return [originals[made] for made in failed]

    def _sealed(self, data: Mapping[Any, Any], version: int | None) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Return the keys of *data* and the sealed values, both by the key that is stored."""
        originals = {self.make_and_validate_key(key, version): key for key in data}
        seal = _sealer().seal
        return originals, {made: seal(made, data[key]) for made, key in originals.items()}

    @override
    def delete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        """Delete the values in one exchange with each server."""
        self._shared.blocking.values.delete_many([self.make_and_validate_key(key, version) for key in keys])

    @override
    async def adelete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        """Delete the values in one exchange with each server."""
        await self._shared.aio.values.delete_many([self.make_and_validate_key(key, version) for key in keys])

    # --- counting ----------------------------------------------------------------------------------------------------

    @override
    def incr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """Add *delta* on the server; return the sum. The difference of a negative *delta* is at least 0.

        Raises ValueError if the key does not exist, TypeError if the value is not an int from 0 to 2**64-1.
        """
        made = self.make_and_validate_key(key, version)
        numbers = self._shared.blocking.numbers
        with _counting(key):
            return _found(numbers.decrement(made, -delta) if delta < 0 else numbers.increment(made, delta), key)

    @override
    async def aincr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """Add *delta* on the server; return the sum. Errors are as in `incr`."""
        made = self.make_and_validate_key(key, version)
        numbers = self._shared.aio.numbers
        with _counting(key):
            counted = numbers.decrement(made, -delta) if delta < 0 else numbers.increment(made, delta)
            return _found(await counted, key)

    # --- the whole cache ---------------------------------------------------------------------------------------------

    @override
    def clear(self) -> None:
        """Remove all values of all servers, also those of other programs."""
        self._check(self._shared.blocking.cluster.flush_all())

    @override
    async def aclear(self) -> None:
        """Remove all values of all servers, also those of other programs."""
        cluster: AsyncCluster
        async with self._shared.configured.open_async() as cluster:
            self._check(await cluster.flush_all())

    def _check(self, flushed: Mapping[Node, bool | MetacacheError]) -> None:
        for result in flushed.values():
            if isinstance(result, MetacacheError) and not self._shared.ignores_errors:
                raise result

    @override
    def close(self, **kwargs: Any) -> None:
        """Do nothing. Django calls this after each request, and the connections are for the next one."""

    @override
    async def aclose(self, **kwargs: Any) -> None:
        """Do nothing, as `close`."""


def _check_bytes(key: str) -> None:
    """Raise InvalidCacheKey if memcached cannot take *key* in UTF-8, though it is short enough in characters."""
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise InvalidCacheKey(f"Cache key holds a lone surrogate, which UTF-8 cannot encode: {key!r}") from None
    if size > MEMCACHE_MAX_KEY_LENGTH:
        raise InvalidCacheKey(
            f"Cache key will cause errors if used with memcached: {key!r} "
            f"({size} bytes in UTF-8, more than {MEMCACHE_MAX_KEY_LENGTH})"
        )
    if not key:
        raise InvalidCacheKey("Cache key is empty")


# --- values ----------------------------------------------------------------------------------------------------------


async def _in_loop(call: Callable[[], R]) -> R:
    """Return ``call()``. If it queries the database, which Django refuses in an event loop, a thread calls it again.

    A QuerySet that was not evaluated yet queries the database when it is pickled.
    """
    try:
        return call()
    except SynchronousOnlyOperation:
        return await sync_to_async(call)()


@lru_cache(maxsize=8, typed=True)
def _sealer_of(secret: str | bytes, fallbacks: tuple[str | bytes, ...]) -> Sealer:
    return Sealer(secret, fallbacks)


def _sealer() -> Sealer:
    """Return the sealer of the current settings. They are read in each call, because tests change them."""
    return _sealer_of(settings.SECRET_KEY, tuple(settings.SECRET_KEY_FALLBACKS))


def _value(made: str, sealed: bytes | None, default: Any) -> Any:  # Any: as in the class
    if sealed is None:
        return default
    value = _sealer().unseal(made, sealed)
    if isinstance(value, Unreadable):
        _report(value)
        return default
    return value


def _values(originals: Mapping[str, Any], found: Mapping[str, bytes]) -> dict[Any, Any]:  # Any: as in the class
    unseal = _sealer().unseal
    values = {made: unseal(made, sealed) for made, sealed in found.items()}
    for value in values.values():
        if isinstance(value, Unreadable):
            _report(value)
    return {originals[made]: value for made, value in values.items() if not isinstance(value, Unreadable)}


_reported: Final[set[Unreadable]] = set()


def _report(why: Unreadable) -> None:
    """Log *why* once in a process. No key and no value is logged."""
    if why not in _reported:
        _reported.add(why)
        logger.warning("unreadable value, which is a miss: %s", why.value)


# --- counting --------------------------------------------------------------------------------------------------------


@final
class _counting:  # noqa: N801 - reads as a phrase: with _counting(key)
    """Raise TypeError for the ClientError of a server that was to count with a value that is not a number."""

    def __init__(self, key: object) -> None:
        self._key = key

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object, /) -> None:
        if isinstance(error, ClientError):
            raise TypeError(
                f"the value of {self._key!r} is not an int from 0 to 2**64-1, so the server cannot count with it"
            ) from error


def _found(number: int | None, key: object) -> int:
    if number is None:
        raise ValueError(f"Key '{key}' not found")
    return number
