"""A client with a compressor stores a large value that shrinks compressed, and every client reads it."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import pytest

from metacache import (
    AsyncClient,
    Compressor,
    MetacacheError,
    SerializationError,
    StoreResult,
    ValueTooLargeError,
    Zlib,
)
from metacache.serializers import BytesSerializer, StrSerializer
from tests.client.rig import Clients

MIN_SIZE: Final = 100
LARGE: Final = b"metacache " * 1_000
COMPRESSED: Final = 1 << 8  # the compressor id in the client flags


async def stored(client: AsyncClient[bytes], key: str) -> tuple[int, bool]:
    """Return the size of the stored value, and whether the client flags say that it is compressed."""
    item = await client.get_item(key)
    assert item is not None
    return item.size, bool(item.client_flags & 0xF << 8)


async def store_each_way(client: AsyncClient[bytes], key: str, value: bytes) -> None:
    """Store *value* with every method, and check each result."""
    assert await client.set(key, b"", ttl=1000)
    item = await client.get_item(key)
    assert item is not None
    assert await client.compare_and_set(f"{key}", value, item.cas) is StoreResult.STORED
    assert await client.add(f"{key}:add", value)
    assert await client.set(f"{key}:replace", b"")
    assert await client.replace(f"{key}:replace", value)
    assert await client.set(f"{key}:set", value)
    assert await client.set(f"{key} set".encode(), value, ttl=1000)
    assert all((await client.set_many({f"{key}:many": value, f"{key} many": value})).values())
    assert await client.update(f"{key}:update", lambda _: value) == value


WAYS: Final = ("", ":add", ":replace", ":set", " set", ":many", " many", ":update")


@pytest.mark.parametrize(
    ("value", "is_compressed"),
    [
        (LARGE, True),
        (b"a" * MIN_SIZE, True),
        (b"a" * (MIN_SIZE - 1), False),
        (os.urandom(2_000), False),
        (b"", False),
    ],
    ids=["large", "just large enough", "too small", "random", "empty"],
)
async def test_a_large_value_that_shrinks_is_stored_compressed(
    clients: Clients, key: str, value: bytes, *, is_compressed: bool
) -> None:
    packing = clients.blobs(compressor=Zlib(min_size=MIN_SIZE))
    await store_each_way(packing, key, value)
    for way in WAYS:
        size, said = await stored(packing, key + way)
        assert said == is_compressed
        assert size < len(value) if is_compressed else size == len(value)
        assert await packing.get(key + way) == value
    keys = [key + way for way in WAYS]
    assert await packing.get_many(keys) == dict.fromkeys(keys, value)
    assert {each: item.value for each, item in (await packing.get_items(keys)).items()} == dict.fromkeys(keys, value)
    assert await packing.get_and_touch(key, 1000) == value


async def test_clients_with_and_without_a_compressor_read_one_another(clients: Clients, key: str) -> None:
    packing, plain = clients.make(StrSerializer(), compressor=Zlib()), clients.make(StrSerializer())
    text = LARGE.decode()
    await packing.set(f"{key}:1", text)
    await plain.set(f"{key}:2", text)
    keys = [f"{key}:1", f"{key}:2"]
    for reader in (packing, plain):
        assert await reader.get_many(keys) == dict.fromkeys(keys, text)
        assert [await reader.get(each) for each in keys] == [text, text]
        assert not any(reader.undecodable.values())


class Broken:
    """A compressor that always fails."""

    compressor_id = 15
    min_size = MIN_SIZE

    def compress(self, data: bytes, /) -> bytes:
        raise RuntimeError(data)

    def decompress(self, data: bytes, /) -> bytes:
        raise RuntimeError(data)


async def test_a_compressor_that_fails_is_an_error_before_anything_is_sent(clients: Clients, key: str) -> None:
    broken = clients.make(BytesSerializer(), compressor=Broken())
    for operation, call in {
        "set": broken.set(key, LARGE),
        "add": broken.add(key, LARGE),
        "set_many": broken.set_many({f"{key}:small": b"", key: LARGE}),
    }.items():
        with pytest.raises(SerializationError, match=r"the compressor failed \(RuntimeError\)") as raised:
            await call
        assert (raised.value.operation, raised.value.key) == (operation, key)
        assert "metacache metacache" not in str(raised.value)
    assert clients.sent == []
    assert await broken.set(key, b"small")
    assert await broken.get(key) == b"small"


def limited(data: bytes) -> bytes:
    if len(data) > 500:
        raise ValueError(data)
    return data


def given_back(change: Callable[[bytes], Any]) -> Compressor:
    """Return a compressor that stores a prefix, and whose decompression returns *change* of the whole."""

    class Changing:
        compressor_id = 15
        min_size = 100

        def __init__(self) -> None:
            self._whole = b""

        def compress(self, data: bytes, /) -> bytes:
            self._whole = data
            return data[:50]

        def decompress(self, _: bytes, /) -> bytes:
            returned: bytes = change(self._whole)
            return returned

    return Changing()


# What decompression returns for 10,000 bytes, and the error of the store.
UNFAITHFUL: Final[Mapping[str, tuple[Compressor, type[MetacacheError]]]] = {
    "Zlib with a limit": (Zlib(min_size=100, max_decompressed_size=9_999), ValueTooLargeError),
    "refuses": (given_back(limited), ValueTooLargeError),
    "stops early": (given_back(lambda data: data[:9_999]), ValueTooLargeError),
    "gives nothing back": (given_back(lambda _: b""), ValueTooLargeError),
    "adds a byte": (given_back(lambda data: data + b"!"), SerializationError),
    "changes a byte": (given_back(lambda data: data[:-1] + b"!"), SerializationError),
    "gives a bytearray": (given_back(bytearray), SerializationError),
    "gives text": (given_back(bytes.decode), SerializationError),
    "gives None": (given_back(lambda _: None), SerializationError),
}
STORES: Final[Mapping[str, Callable[[AsyncClient[bytes], str, bytes], Awaitable[object]]]] = {
    "set": lambda client, key, value: client.set(key, value),
    "add": lambda client, key, value: client.add(key, value, ttl=5),
    "replace": lambda client, key, value: client.replace(key, value),
    "compare_and_set": lambda client, key, value: client.compare_and_set(key, value, 1),
    "set_many": lambda client, key, value: client.set_many({f"{key}:small": b"", key: value}),
}


@pytest.mark.parametrize("name", UNFAITHFUL)
@pytest.mark.parametrize("on_error", ["raise", "ignore"])
async def test_a_value_that_would_not_decompress_is_refused_before_anything_is_sent(
    clients: Clients, key: str, name: str, on_error: Any
) -> None:
    compressor, kind = UNFAITHFUL[name]
    client = clients.make(BytesSerializer(), compressor=compressor, on_error=on_error)
    for verb, call in STORES.items():
        with pytest.raises(kind) as raised:
            await call(client, key, LARGE)
        assert (type(raised.value), raised.value.operation, raised.value.key) == (kind, verb, key)
        assert "metacache metacache" not in str(raised.value)
    assert clients.sent == []
    with pytest.raises(kind):
        await client.update(key, lambda _: LARGE)
    assert clients.sent == ["update"], "it has only read"


@pytest.mark.parametrize("size", [9_998, 9_999, 10_000, 10_001])
async def test_the_limit_of_zlib_is_the_largest_value_that_it_stores(clients: Clients, key: str, size: int) -> None:
    client = clients.blobs(compressor=Zlib(min_size=100, max_decompressed_size=10_000))
    value = b"a" * size
    if size <= 10_000:
        assert await client.set(key, value)
        assert await client.get(key) == value
        return
    with pytest.raises(ValueTooLargeError, match="max_decompressed_size"):
        await client.set(key, value)


async def test_a_value_that_does_not_shrink_is_stored_uncompressed_beyond_the_limit(clients: Clients, key: str) -> None:
    client = clients.blobs(compressor=Zlib(min_size=100, max_decompressed_size=1_000))
    value = os.urandom(2_000)
    assert await client.set(key, value)
    assert await client.get(key) == value


async def test_a_client_with_a_smaller_limit_misses_a_larger_value(clients: Clients, key: str) -> None:
    large, small = (clients.blobs(compressor=Zlib(max_decompressed_size=limit)) for limit in (100_000, 5_000))
    assert await large.set(key, LARGE)
    assert await large.get(key) == LARGE
    assert await small.get(key) is None
    assert small.undecodable["decompress"] == 1


async def test_a_compressor_that_does_not_return_bytes_is_an_error(clients: Clients, key: str) -> None:
    class Texts:
        compressor_id = 15
        min_size = 100

        def compress(self, data: bytes, /) -> bytes:
            made: Any = data[:50].decode()
            shown: bytes = made
            return shown

        def decompress(self, data: bytes, /) -> bytes:
            return data

    with pytest.raises(SerializationError, match="the compressor returned str, not bytes"):
        await clients.blobs(compressor=Texts()).set(key, LARGE)
    assert clients.sent == []
