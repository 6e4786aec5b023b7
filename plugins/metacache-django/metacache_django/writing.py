"""What each write of the backend means, in one text for threads and for event loops.

The functions are coroutines. They await only the verbs of a client: an `AsyncClient`, or a `Client` inside of
`BlockingVerbs`, which never suspends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import Final, Protocol, final

from metacache import (
    BatchError,
    Client,
    DeleteResult,
    MetacacheError,
    Outcomes,
    PoolTimeout,
    ProtocolError,
    ServerError,
    StoreResult,
    TransportError,
    ValueTooLargeError,
)

__all__ = ["EXPIRED", "BlockingVerbs", "Verbs", "add", "set_many", "set_one", "touch"]

EXPIRED: Final = 0
"""The TTL of a value that expires immediately. None never expires."""


class Verbs(Protocol):
    """The verbs of a client that the writes need. `AsyncClient` has them."""

    def set(self, key: str, value: bytes, /, *, ttl: int | None) -> Awaitable[StoreResult]:
        """Do as `Client.set`."""
        ...

    def set_many_outcomes(
        self, items: Mapping[str, bytes], /, *, ttl: int | None
    ) -> Awaitable[Outcomes[str, StoreResult]]:
        """Do as `Client.set_many_outcomes`."""
        ...

    def delete_many_outcomes(self, keys: Iterable[str], /) -> Awaitable[Outcomes[str, DeleteResult]]:
        """Do as `Client.delete_many_outcomes`."""
        ...

    def add(self, key: str, value: bytes, /, *, ttl: int | None) -> Awaitable[StoreResult]:
        """Do as `Client.add`."""
        ...

    def exists(self, key: str, /) -> Awaitable[bool]:
        """Do as `Client.exists`."""
        ...

    def touch(self, key: str, ttl: int | None, /) -> Awaitable[bool]:
        """Do as `Client.touch`."""
        ...

    def delete(self, key: str, /) -> Awaitable[DeleteResult]:
        """Do as `Client.delete`."""
        ...

    def delete_many(self, keys: Iterable[str], /) -> Awaitable[Mapping[str, DeleteResult]]:
        """Do as `Client.delete_many`."""
        ...


@final
class BlockingVerbs:
    """Gives a `Client` the form of `Verbs`."""

    __slots__ = ("_client",)

    def __init__(self, client: Client[bytes]) -> None:
        self._client = client

    async def set(self, key: str, value: bytes, *, ttl: int | None) -> StoreResult:
        """Do as `Client.set`."""
        return self._client.set(key, value, ttl=ttl)

    async def add(self, key: str, value: bytes, *, ttl: int | None) -> StoreResult:
        """Do as `Client.add`."""
        return self._client.add(key, value, ttl=ttl)

    async def exists(self, key: str) -> bool:
        """Do as `Client.exists`."""
        return self._client.exists(key)

    async def touch(self, key: str, ttl: int | None) -> bool:
        """Do as `Client.touch`."""
        return self._client.touch(key, ttl)

    async def delete(self, key: str) -> DeleteResult:
        """Do as `Client.delete`."""
        return self._client.delete(key)

    async def set_many_outcomes(self, items: Mapping[str, bytes], *, ttl: int | None) -> Outcomes[str, StoreResult]:
        """Do as `Client.set_many_outcomes`."""
        return self._client.set_many_outcomes(items, ttl=ttl)

    async def delete_many(self, keys: Iterable[str]) -> Mapping[str, DeleteResult]:
        """Do as `Client.delete_many`."""
        return self._client.delete_many(keys)

    async def delete_many_outcomes(self, keys: Iterable[str]) -> Outcomes[str, DeleteResult]:
        """Do as `Client.delete_many_outcomes`."""
        return self._client.delete_many_outcomes(keys)


# The server refused the value: it is too large, or the server has no memory for it.
_REFUSED: Final = (ServerError, ValueTooLargeError)
# The errors that on_error="ignore" suppresses.
_FAILURES: Final = (TransportError, PoolTimeout, ServerError, ProtocolError)


async def set_one(verbs: Verbs, key: str, sealed: bytes, ttl: int | None) -> bool:
    """Store *sealed*; return whether it was stored. A store that fails, or raises, leaves no old value if possible."""
    if ttl == EXPIRED:
        await verbs.delete(key)
        return True
    try:
        stored = await verbs.set(key, sealed, ttl=ttl)
    except MetacacheError:
        await _forget(verbs, [key])
        raise
    if not stored:
        await _forget(verbs, [key])
    return bool(stored)


async def add(verbs: Verbs, key: str, sealed: bytes, ttl: int | None) -> bool:
    """Store *sealed* if the key does not exist; return whether it was stored."""
    if ttl == EXPIRED:
        return not await verbs.exists(key)
    return bool(await verbs.add(key, sealed, ttl=ttl))


async def touch(verbs: Verbs, key: str, ttl: int | None) -> bool:
    """Set the TTL of the item; return whether there was one."""
    if ttl == EXPIRED:
        return bool(await verbs.delete(key))
    return await verbs.touch(key, ttl)


async def set_many(verbs: Verbs, sealed: Mapping[str, bytes], ttl: int | None, *, ignores: bool) -> list[str]:
    """Store the values; return the keys that failed, which keep no old value if possible.

    *ignores*: do not raise when a server is down. Raises BatchError if a server is down, after it stored the others.
    """
    if ttl == EXPIRED:
        await verbs.delete_many(sealed)
        return []
    try:
        outcomes = await verbs.set_many_outcomes(sealed, ttl=ttl)
    except ValueTooLargeError:  # nothing was sent
        return await _set_each(verbs, sealed, ttl)
    failed = [key for key in sealed if not outcomes.results.get(key)]
    if failed:
        await _forget(verbs, failed)
    tolerated = _FAILURES if ignores else _REFUSED
    if not all(isinstance(error, tolerated) for error in outcomes.errors.values()):
        raise BatchError(results=outcomes.results, errors=outcomes.errors, operation="set_many")
    return failed


async def _set_each(verbs: Verbs, sealed: Mapping[str, bytes], ttl: int | None) -> list[str]:
    """Store the values one by one; return the keys that failed. One of them is too large for ``max_value_size``."""
    failed: list[str] = []
    for key, data in sealed.items():
        try:
            stored = await set_one(verbs, key, data, ttl)
        except _REFUSED:
            stored = False
        if not stored:
            failed.append(key)
    return failed


async def _forget(verbs: Verbs, keys: Collection[str]) -> None:
    """Delete the old values of *keys*, whose store failed. The error of the store counts, not one of the delete."""
    with suppress(MetacacheError):
        await verbs.delete_many_outcomes(keys)
