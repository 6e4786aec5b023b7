"""A client with a compressor: what is large and shrinks is stored small, and everybody reads it."""

from __future__ import annotations

import os
from typing import Final

import pytest

from metacache import AsyncClient, SerializationError, StoreResult, Zlib
from metacache.serializers import BytesSerializer, StrSerializer
from tests.clients.rig import Clients

MIN_SIZE: Final = 100
LARGE: Final = b"metacache " * 1_000
COMPRESSED: Final = 1 << 8  # the compressor's id in the client flags


async def stored(client: AsyncClient[bytes], key: str) -> tuple[int, bool]:
    """Return how many bytes the server holds, and whether the client flags say that they are compressed."""
    item = await client.get_item(key)
    assert item is not None
    return item.size, bool(item.client_flags & 0xF << 8)


async def store_each_way(client: AsyncClient[bytes], key: str, value: bytes) -> None:
    """Store *value* by every verb, and see each store it."""
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
async def test_what_is_large_enough_and_shrinks_is_stored_compressed(
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
    """A compressor that can not."""

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
