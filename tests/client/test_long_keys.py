"""`long_keys="hash"`: a key that is too long is sent as its SHA-256. Results and errors have the original key."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from typing import Final

import pytest

from metacache import (
    AsyncClient,
    BatchError,
    DeleteResult,
    InvalidKeyError,
    ServerError,
    StoreResult,
)
from metacache.protocol.keys import Key
from metacache.serializers import BytesSerializer, IntSerializer
from tests import raw_requests
from tests.client.rig import Clients, ask

HD: Final = b"HD"
TOO_LARGE: Final = b"x" * 1_048_577


@pytest.fixture
def hashing(clients: Clients) -> AsyncClient[bytes]:
    return clients.blobs(long_keys="hash")


def long(key: str, end: str = "") -> str:
    """Return a key of about 500 bytes that differs from others only at its end."""
    return "k" * 500 + key + end


def is_there(clients: Clients, token: bytes, *, base64: bool) -> bool:
    """Return whether the server has an item with exactly this key."""
    tokens, _ = ask(clients.node, raw_requests.meta_get(token, {"base64": True} if base64 else {}))
    return tokens[0] == HD


def hashed(raw: bytes) -> bytes:
    """Return the bytes that are documented to be sent instead of the key *raw*."""
    return b64encode(b"\0h" + sha256(raw).digest())


@pytest.mark.parametrize("kind", ["str", "bytes", "prefixed"])
async def test_a_long_key_is_sent_as_the_hash_of_prefix_and_key(clients: Clients, key: str, kind: str) -> None:
    given: Key = long(key).encode() if kind == "bytes" else long(key)
    prefix = "prefix:" if kind == "prefixed" else ""
    await clients.blobs(long_keys="hash", prefix=prefix).set(given, b"v")
    assert is_there(clients, hashed((prefix + long(key)).encode()), base64=True)


async def test_every_method_takes_a_long_key(clients: Clients, hashing: AsyncClient[bytes], key: str) -> None:
    name = long(key)
    assert await hashing.get(name, b"none") == b"none"
    assert await hashing.add(name, b"1")
    assert await hashing.replace(name, b"2", ttl=1000)
    item = await hashing.get_item(name)
    assert item is not None
    assert await hashing.compare_and_set(name, b"3", item.cas)
    assert await hashing.append(name, b"4")
    assert await hashing.prepend(name, b"2")
    assert await hashing.touch(name, 1000)
    assert await hashing.get_and_touch(name, 1000) == b"234"
    assert await hashing.update(name, lambda found: (found or b"") + b"5") == b"2345"
    assert await hashing.get(name) == b"2345"
    assert await hashing.invalidate(name, stale_for=60)
    item = await hashing.get_item(name)
    assert item is not None
    assert (item.value, item.stale) == (b"2345", True)
    assert await hashing.delete(name) is DeleteResult.DELETED
    counters = clients.make(IntSerializer(), long_keys="hash")
    assert await counters.increment(name, initial=5) == 5
    assert await counters.decrement(name) == 4


async def test_a_batch_may_mix_long_and_short_keys(clients: Clients, hashing: AsyncClient[bytes], key: str) -> None:
    items = {each: each.encode()[-20:] for each in (key, f"{key} odd", long(key, "1"), f"{key}é", long(key, "2"))}
    assert await hashing.set_many(items) == dict.fromkeys(items, StoreResult.STORED)
    assert await hashing.get_many([*items, long(key, "3")]) == items
    assert {each: item.value for each, item in (await hashing.get_items(items)).items()} == items
    # The same keys as bytes are the same items.
    assert await hashing.get_many([long(key, "2").encode()]) == {long(key, "2").encode(): items[long(key, "2")]}
    assert await hashing.delete_many([*items, long(key, "3")]) == {
        **dict.fromkeys(items, DeleteResult.DELETED),
        long(key, "3"): DeleteResult.NOT_FOUND,
    }
    assert clients.sent == ["set_many x5", "get_many x6", "get_items x5", "get_many x1", "delete_many x6"]


async def test_a_key_of_the_maximal_length_is_not_hashed(clients: Clients, key: str) -> None:
    hashing, plain = clients.blobs(long_keys="hash"), clients.blobs()
    for length, filler in ((250, "x"), (186, " ")):
        fits = key + filler * (length - len(key))
        await hashing.set(fits, b"fits")
        assert await plain.get(fits) == b"fits", "a client that does not hash has the same key"
        await hashing.set(fits + filler, b"does not")
        assert is_there(clients, hashed((fits + filler).encode()), base64=True)
        with pytest.raises(InvalidKeyError, match=f"{length + 1} bytes with the prefix, the limit is {length}"):
            await plain.get(fits + filler)
        assert await hashing.get(fits) == b"fits"


async def test_a_key_that_looks_like_a_hash_is_hashed_too(clients: Clients, key: str) -> None:
    hashing = clients.blobs(long_keys="hash")
    await hashing.set(long(key), b"v")
    forged = b"\0h" + sha256(long(key).encode()).digest()
    assert await hashing.get(forged) is None
    await hashing.set(forged, b"forged")
    assert await hashing.get_many([forged, long(key).encode()]) == {forged: b"forged", long(key).encode(): b"v"}


async def test_an_error_names_the_original_long_key(clients: Clients, key: str) -> None:
    hashing = clients.make(BytesSerializer(), long_keys="hash")
    with pytest.raises(ServerError) as raised:
        await hashing.set(long(key), TOO_LARGE)
    assert raised.value.key == long(key)
    assert len(str(raised.value)) < 300, "and does not write all of it out"
    with pytest.raises(BatchError) as batch:
        await hashing.set_many({key: b"v", long(key): TOO_LARGE})
    assert batch.value.results == {key: StoreResult.STORED}
    assert batch.value.errors[long(key)].key == long(key)
