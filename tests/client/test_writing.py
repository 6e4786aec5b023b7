"""Results of writes: all results of each method, alone and in batches."""

from __future__ import annotations

import os
from datetime import timedelta

import msgspec
import pytest

from metacache import (
    AsyncClient,
    BatchError,
    DeleteResult,
    InvalidArgumentError,
    InvalidTypeError,
    SerializationError,
    ServerError,
    StoreResult,
    ValueTooLargeError,
    Zlib,
    load_serializer,
)
from metacache.serializers import BytesSerializer, StrSerializer
from tests.client.rig import Clients, lease

STORED, NOT_STORED = StoreResult.STORED, StoreResult.NOT_STORED

# With default options, a server stores a little less than 1 MiB for a key of about 16 bytes.
LARGEST = 1_048_000


class User(msgspec.Struct, frozen=True):
    name: str
    age: int


# --- one value --------------------------------------------------------------------------------------------------------


async def test_set_stores_with_and_without_an_existing_item(blobs: AsyncClient[bytes], key: str) -> None:
    assert await blobs.set(key, b"one") is STORED
    assert await blobs.set(key, b"two")
    assert await blobs.get(key) == b"two"


async def test_set_takes_keys_of_bytes_and_keys_in_base64(blobs: AsyncClient[bytes], key: str) -> None:
    for odd in (key.encode(), f"{key} \x00", f"{key} ".encode() + b"\xff", "é" * 90):
        assert await blobs.set(odd, repr(odd).encode()) is STORED
        assert await blobs.get(odd) == repr(odd).encode()


async def test_add_stores_only_an_absent_key(blobs: AsyncClient[bytes], key: str) -> None:
    assert await blobs.add(key, b"one") is STORED
    assert await blobs.add(key, b"two") is NOT_STORED
    assert await blobs.get(key) == b"one"


async def test_replace_stores_only_an_existing_key(blobs: AsyncClient[bytes], key: str) -> None:
    assert await blobs.replace(key, b"one") is NOT_STORED
    assert await blobs.get(key) is None
    await blobs.set(key, b"one")
    assert await blobs.replace(key, b"two") is STORED
    assert await blobs.get(key) == b"two"


async def test_compare_and_set_has_three_results(blobs: AsyncClient[bytes], key: str) -> None:
    assert await blobs.compare_and_set(key, b"v", 1) is StoreResult.NOT_FOUND
    await blobs.set(key, b"one")
    item = await blobs.get_item(key)
    assert item is not None
    assert await blobs.compare_and_set(key, b"two", item.cas) is STORED
    assert await blobs.compare_and_set(key, b"three", item.cas) is StoreResult.EXISTS
    assert not StoreResult.EXISTS
    assert await blobs.get(key) == b"two"


async def test_a_typed_value_comes_back_equal(clients: Clients, key: str) -> None:
    users = clients.make(load_serializer("msgspec", User))
    await users.set(key, User("Zoë", 31))
    assert await users.get(key) == User("Zoë", 31)
    item = await users.get_item(key)
    assert item is not None
    assert item.value == User("Zoë", 31)
    assert await users.get_many([key]) == {key: User("Zoë", 31)}


async def test_append_and_prepend_extend_bytes(blobs: AsyncClient[bytes], key: str) -> None:
    assert await blobs.append(key, b"c") is NOT_STORED
    assert await blobs.prepend(key, b"a") is NOT_STORED
    await blobs.set(key, b"b", ttl=1000)
    assert await blobs.append(key, b"c") is STORED
    assert await blobs.prepend(key, b"a") is STORED
    item = await blobs.get_item(key)
    assert item is not None
    assert item.value == b"abc"
    assert item.ttl is not None, "it keeps its time to live"


async def test_append_and_prepend_extend_text(texts: AsyncClient[str], key: str) -> None:
    await texts.set(f"{key} é", "b")
    await texts.append(f"{key} é", "ü")
    await texts.prepend(f"{key} é", "ä")
    assert await texts.get(f"{key} é") == "äbü"


async def test_append_needs_the_built_in_serializer_and_no_compressor(clients: Clients, key: str) -> None:
    packing = clients.make(BytesSerializer(), compressor=Zlib())
    foreign = clients.make(load_serializer("msgspec", str))
    message = "needs the built-in serializer of bytes or str, and no compressor"
    with pytest.raises(InvalidArgumentError, match=f"append '{key}': append {message}"):
        await packing.append(key, b"v")
    with pytest.raises(InvalidArgumentError, match=f"prepend '{key}': prepend {message}"):
        await foreign.prepend(key, "v")
    assert clients.sent == []


async def test_a_value_too_large_for_the_server_deletes_the_old_one(blobs: AsyncClient[bytes], key: str) -> None:
    await blobs.set(key, b"old")
    assert await blobs.set(key, b"x" * LARGEST) is STORED
    with pytest.raises(ServerError, match="too large") as raised:
        await blobs.set(key, b"x" * 1_048_577)
    assert (raised.value.operation, raised.value.key) == ("set", key)
    assert await blobs.get(key) is None
    assert await blobs.set(key, b"new") is STORED


async def test_a_value_of_the_wrong_type_is_refused_before_it_is_sent(clients: Clients, key: str) -> None:
    blobs = clients.blobs()
    for verb in (blobs.set, blobs.add, blobs.replace, blobs.append):
        with pytest.raises(SerializationError) as raised:
            await verb(key, "text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # a wrong type on purpose
        assert (raised.value.operation, raised.value.key) == (verb.__name__, key)
    with pytest.raises(SerializationError):
        await blobs.set(key, bytearray(b"v"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # a wrong type on purpose
    assert clients.sent == []


class Vast:
    """A serializer whose bytes are too large for the protocol. They are never read, so they take no memory."""

    wire_id = 96
    fingerprint = 0

    def dumps(self, value: str, /) -> bytes:
        return bytes(2**31) if value == "vast" else b""

    def loads(self, data: bytes, /) -> str:
        return str(len(data))


async def test_a_value_too_large_for_the_protocol_is_refused_before_it_is_sent(clients: Clients, key: str) -> None:
    vast = clients.make(Vast())
    packing = clients.make(Vast(), compressor=Zlib(min_size=2**32))
    calls = {
        "set": (vast.set(key, "vast"), vast.set(key, "vast", ttl=5), packing.set(key, "vast")),
        "add": (vast.add(key.encode(), "vast"),),
        "set_many": (
            vast.set_many({f"{key}:small": "", key: "vast"}),
            vast.set_many({f"{key}:small": "", key: "vast"}, ttl=5),
            packing.set_many({f"{key}:small": "", key: "vast"}),
        ),
    }
    for name, attempts in calls.items():
        for attempt in attempts:
            with pytest.raises(ValueTooLargeError, match="2147483648 bytes") as raised:
                await attempt
            assert raised.value.operation == name
            assert raised.value.key in (key, key.encode())
    assert clients.sent == []


# --- deleting ---------------------------------------------------------------------------------------------------------


async def test_delete_has_three_results(blobs: AsyncClient[bytes], key: str) -> None:
    assert await blobs.delete(key) is DeleteResult.NOT_FOUND
    assert await blobs.delete(key, cas=1) is DeleteResult.NOT_FOUND
    await blobs.set(key, b"v")
    item = await blobs.get_item(key)
    assert item is not None
    assert await blobs.delete(key, cas=item.cas + 1) is DeleteResult.EXISTS
    assert await blobs.get(key) == b"v"
    deleted = await blobs.delete(key, cas=item.cas)
    assert deleted is DeleteResult.DELETED
    assert deleted
    assert not DeleteResult.EXISTS
    assert await blobs.get(key) is None


async def test_delete_many_returns_the_result_of_each_key(blobs: AsyncClient[bytes], key: str) -> None:
    await blobs.set_many({f"{key}:1": b"", f"{key} 2": b""})
    keys = [f"{key}:1", f"{key} 2", f"{key}:3", f"{key}:1"]
    assert await blobs.delete_many(keys) == {
        f"{key}:1": DeleteResult.DELETED,
        f"{key} 2": DeleteResult.DELETED,
        f"{key}:3": DeleteResult.NOT_FOUND,
    }
    outcomes = await blobs.delete_many_outcomes(keys[:1])
    assert outcomes.results == {f"{key}:1": DeleteResult.NOT_FOUND}
    assert outcomes.errors == {}


# --- many values ------------------------------------------------------------------------------------------------------


async def test_set_many_stores_all_in_one_batch(clients: Clients, key: str) -> None:
    blobs = clients.blobs()
    items = {f"{key}:{number}": os.urandom(number * 7 % 3000) for number in range(500)}
    assert await blobs.set_many(items) == dict.fromkeys(items, STORED)
    assert await blobs.get_many(items) == items
    assert clients.sent == ["set_many x500", "get_many x500"]


async def test_set_many_takes_keys_of_every_kind(blobs: AsyncClient[bytes], key: str) -> None:
    items: dict[str, bytes] = {f"{key} 1": b"1", f"{key}\x00": b"", f"{key}:3": b"3" * 2000}
    assert await blobs.set_many(items, ttl=1000) == dict.fromkeys(items, STORED)
    assert await blobs.get_many(items) == items
    other = {each.encode(): value for each, value in items.items()}
    assert (await blobs.set_many_outcomes(other)).results == dict.fromkeys(other, STORED)
    assert await blobs.get_many(other) == other


async def test_set_many_refuses_the_same_key_as_str_and_bytes(clients: Clients, key: str) -> None:
    twins: dict[str | bytes, bytes] = {key: b"1", key.encode(): b"2"}
    with pytest.raises(InvalidArgumentError, match="set_many: two keys are the same key"):
        # pyright solves K to str or to bytes, not to both.
        await clients.blobs().set_many(twins)
    assert clients.sent == []


async def test_set_many_takes_a_mapping(clients: Clients) -> None:
    with pytest.raises(InvalidTypeError, match="set_many: items is a mapping of keys to values, not list"):
        await clients.blobs().set_many([("k", b"v")])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # a wrong type on purpose
    assert clients.sent == []


async def test_a_whole_batch_is_checked_before_its_first_byte(clients: Clients, key: str) -> None:
    blobs = clients.blobs()
    with pytest.raises(SerializationError) as refused:
        await blobs.set_many({f"{key}:1": b"v", f"{key}:2": "text"})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]  # a wrong type on purpose
    assert (refused.value.operation, refused.value.key) == ("set_many", f"{key}:2")
    for keys in ([key, "k" * 251], [key.encode(), b""], [key, ""], [key, "\ud800"]):
        with pytest.raises(ValueError, match="_many") as invalid:
            await blobs.delete_many(keys)
        assert getattr(invalid.value, "key", None) == keys[1]
    assert clients.sent == []


async def test_a_batch_error_names_each_key_that_failed(blobs: AsyncClient[bytes], key: str) -> None:
    items = {f"{key}:1": b"1", f"{key}:large": b"x" * 1_048_577, f"{key}:3": b"3"}
    await blobs.set(f"{key}:large", b"old")
    with pytest.raises(BatchError, match="1 of 3 keys failed: 1 ServerError at 127") as raised:
        await blobs.set_many(items)
    assert raised.value.results == {f"{key}:1": STORED, f"{key}:3": STORED}
    assert raised.value.operation == "set_many"
    error = raised.value.errors[f"{key}:large"]
    assert isinstance(error, ServerError)
    assert (error.operation, error.key) == ("set_many", f"{key}:large")
    outcomes = await blobs.set_many_outcomes(items)
    assert set(outcomes.results) == {f"{key}:1", f"{key}:3"}
    assert set(outcomes.errors) == {f"{key}:large"}
    assert await blobs.get_many(items) == {f"{key}:1": b"1", f"{key}:3": b"3"}


# --- leases -----------------------------------------------------------------------------------------------------------


async def test_a_lease_is_an_item_for_stores(clients: Clients, key: str) -> None:
    blobs = clients.blobs()
    lease(clients.node, key)
    assert await blobs.add(key, b"v") is NOT_STORED
    assert await blobs.set(key, b"v") is STORED
    assert await blobs.get(key) == b"v"


# --- TTL --------------------------------------------------------------------------------------------------------------


async def ttl_of(client: AsyncClient[bytes], key: str) -> int | None:
    item = await client.get_item(key)
    assert item is not None
    return item.ttl


async def test_every_store_takes_a_ttl(blobs: AsyncClient[bytes], key: str) -> None:
    async def check() -> None:
        left = await ttl_of(blobs, key)
        assert left is not None
        assert 490 < left <= 500
        await blobs.touch(key, None)

    await blobs.set(key, b"v", ttl=500)
    await check()
    await blobs.replace(key, b"v", ttl=timedelta(seconds=499, microseconds=1))
    await check()
    item = await blobs.get_item(key)
    assert item is not None
    await blobs.compare_and_set(key, b"v", item.cas, ttl=500)
    await check()
    await blobs.set_many({key: b"v"}, ttl=500)
    await check()
    await blobs.update(key, lambda _: b"v", ttl=500)
    await check()
    await blobs.delete(key)
    await blobs.add(key, b"v", ttl=500)
    await check()


async def test_a_write_without_ttl_uses_the_default_ttl(clients: Clients, key: str) -> None:
    defaulting = clients.make(BytesSerializer(), default_ttl=timedelta(minutes=10))
    await defaulting.set(key, b"v")
    await defaulting.set_many({f"{key}:2": b"v"})
    for each in (key, f"{key}:2"):
        left = await ttl_of(defaulting, each)
        assert left is not None
        assert 590 < left <= 600
    await defaulting.set(key, b"v", ttl=None)
    assert await ttl_of(defaulting, key) is None
    await defaulting.with_options(default_ttl=None).set(f"{key}:2", b"v")
    assert await ttl_of(defaulting, f"{key}:2") is None


@pytest.mark.parametrize("days", [29, 30, 31, 365, 1000])
async def test_ttls_around_thirty_days_are_exact(blobs: AsyncClient[bytes], key: str, days: int) -> None:
    wanted = days * 24 * 60 * 60
    about = pytest.approx(wanted, abs=10)  # the server's clock ticks once a second, and late on a busy machine
    for ttl in (wanted, timedelta(days=days)):
        await blobs.set(key, b"v", ttl=ttl)
        assert await ttl_of(blobs, key) == about
        assert await blobs.touch(key, ttl)
        assert await ttl_of(blobs, key) == about


async def test_a_fraction_of_a_second_is_rounded_up(clients: Clients, key: str) -> None:
    texts = clients.make(StrSerializer())
    await texts.set(key, "v", ttl=timedelta(microseconds=1))
    item = await texts.get_item(key)
    assert item is None or item.ttl in (0, 1), "not never"
