"""An invalid argument raises a typed error before a byte is sent. It names operation and key, and no value."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest

from metacache import InvalidArgumentError, InvalidKeyError, MetacacheError
from tests.client.rig import Clients

SECRET: Final = b"hunter2"


def secret(_: object) -> bytes:
    return SECRET


# Any, here and below: wrong types on purpose.
KEYS: Final[tuple[Any, ...]] = ("", b"", "k" * 251, "a b" * 63, "é" * 250, "\ud800", None, 5, ["k"], bytearray(b"k"))
TTLS: Final[tuple[Any, ...]] = (0, -1, True, 1.5, math.nan, 2**31, 10**5000, "1 q", b"5", ())
NUMBERS: Final[tuple[Any, ...]] = (-1, 2**64, 10**5000, "1", True, 1.0)

VERBS: Final[dict[str, Callable[[Any, Any], Awaitable[object]]]] = {
    "get": lambda client, key: client.get(key),
    "get_item": lambda client, key: client.get_item(key),
    "get_many": lambda client, key: client.get_many(("good", key)),
    "get_items": lambda client, key: client.get_items(("good", key)),
    "get_and_touch": lambda client, key: client.get_and_touch(key, 5),
    "touch": lambda client, key: client.touch(key, 5),
    "inspect": lambda client, key: client.inspect(key),
    "set": lambda client, key: client.set(key, SECRET),
    "add": lambda client, key: client.add(key, SECRET),
    "replace": lambda client, key: client.replace(key, SECRET),
    "compare_and_set": lambda client, key: client.compare_and_set(key, SECRET, 1),
    "append": lambda client, key: client.append(key, SECRET),
    "prepend": lambda client, key: client.prepend(key, SECRET),
    "delete": lambda client, key: client.delete(key),
    "delete_many": lambda client, key: client.delete_many(("good", key)),
    "invalidate": lambda client, key: client.invalidate(key, stale_for=5),
    "update": lambda client, key: client.update(key, secret),
}
TIMED: Final[dict[str, Callable[[Any, Any], Awaitable[object]]]] = {
    "set": lambda client, ttl: client.set("key", SECRET, ttl=ttl),
    "add": lambda client, ttl: client.add("key", SECRET, ttl=ttl),
    "replace": lambda client, ttl: client.replace("key", SECRET, ttl=ttl),
    "compare_and_set": lambda client, ttl: client.compare_and_set("key", SECRET, 1, ttl=ttl),
    "set_many": lambda client, ttl: client.set_many({"key": SECRET}, ttl=ttl),
    "update": lambda client, ttl: client.update("key", secret, ttl=ttl),
    "touch": lambda client, ttl: client.touch("key", ttl),
    "get_and_touch": lambda client, ttl: client.get_and_touch("key", ttl),
    "invalidate": lambda client, ttl: client.invalidate("key", stale_for=ttl),
}


def check(error: MetacacheError, operation: str, clients: Clients) -> None:
    assert error.operation == operation
    assert SECRET.decode() not in str(error) + repr(error)
    assert clients.sent == []


@pytest.mark.parametrize("operation", VERBS)
async def test_a_bad_key_is_refused_before_it_is_sent(clients: Clients, operation: str) -> None:
    for key in KEYS:
        with pytest.raises((InvalidKeyError, InvalidArgumentError)) as raised:
            await VERBS[operation](clients.blobs(), key)
        check(raised.value, operation, clients)
        if isinstance(key, str | bytes):
            assert raised.value.key == key


@pytest.mark.parametrize("operation", TIMED)
async def test_a_bad_ttl_is_refused_before_it_is_sent(clients: Clients, operation: str) -> None:
    for ttl in TTLS:
        with pytest.raises(InvalidArgumentError) as raised:
            await TIMED[operation](clients.blobs(), ttl)
        check(raised.value, operation, clients)
        assert raised.value.key == (None if operation == "set_many" else "key")


async def test_a_bad_cas_is_refused_before_it_is_sent(clients: Clients) -> None:
    client: Any = clients.blobs()
    for cas in (0, *NUMBERS):
        with pytest.raises(InvalidArgumentError, match="cas") as raised:
            await client.compare_and_set("key", SECRET, cas)
        check(raised.value, "compare_and_set", clients)
        with pytest.raises(InvalidArgumentError, match="cas"):
            await client.delete("key", cas=cas)
    assert clients.sent == []
