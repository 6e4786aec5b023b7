"""Results of reads: values, misses, items, batches, and metadata without a read."""

from __future__ import annotations

from typing import Final

import pytest

from metacache import AsyncClient, InvalidKeyError, InvalidTypeError, Item, StoreResult
from metacache.serializers import BytesSerializer, StrSerializer
from tests import raw_requests
from tests.client.rig import Clients, ask, lease, store

# Values that a parser could mistake for line ends or for the next reply.
VALUES: Final = (
    b"",
    b"\r\n",
    b"END\r\n",
    b"MN\r\n",
    b"VA 5\r\nhello\r\n",
    b"EN\r\n" * 100,
    bytes(range(256)),
    b"x" * 65_535,
    b"y" * 300_000,
)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{len(value)} bytes")
async def test_get_returns_what_was_set(blobs: AsyncClient[bytes], key: str, value: bytes) -> None:
    await blobs.set(key, value)
    assert await blobs.get(key) == value
    assert await blobs.get_many([key]) == {key: value}


async def test_a_miss_is_none_or_the_default(blobs: AsyncClient[bytes], key: str) -> None:
    assert await blobs.get(key) is None
    assert await blobs.get(key, None) is None
    assert await blobs.get(key, 0) == 0
    default = object()
    assert await blobs.get(key, default) is default


async def test_a_found_value_has_priority_over_the_default(blobs: AsyncClient[bytes], key: str) -> None:
    await blobs.set(key, b"")
    assert await blobs.get(key, b"default") == b""


async def test_a_str_key_and_the_same_bytes_are_one_key(blobs: AsyncClient[bytes], key: str) -> None:
    await blobs.set(f"{key}é", b"v")
    assert await blobs.get(f"{key}é".encode()) == b"v"


@pytest.mark.parametrize("more", [" b", "\r\nflush_all\r\n", "\t", "\x00", "\x7f", "é", "\u3000", "\U0001f511"])
async def test_any_key_works_in_every_read(blobs: AsyncClient[bytes], key: str, more: str) -> None:
    odd, other = key + more, key
    await blobs.set(other, b"other")
    await blobs.set(odd, b"odd")
    assert await blobs.get(odd) == b"odd"
    assert await blobs.get_many([odd, other]) == {odd: b"odd", other: b"other"}
    item = await blobs.get_item(odd)
    assert item is not None
    assert item.value == b"odd"
    assert (await blobs.get_items([other, odd]))[odd].value == b"odd"
    assert await blobs.get_and_touch(odd, 60) == b"odd"


async def test_get_item_returns_all_metadata(clients: Clients, key: str) -> None:
    texts = clients.make(StrSerializer())
    await texts.set(key, "hé", ttl=1000)
    first = await texts.get_item(key)
    assert first is not None
    assert (first.value, first.size, first.fetched_before, first.idle_seconds) == ("hé", 3, False, 0)
    assert (first.stale, first.won) == (False, False)
    assert first.cas > 0
    assert first.ttl is not None
    assert 990 < first.ttl <= 1000
    assert first.client_flags == 0b1011 << 28 | StrSerializer.wire_id
    second = await texts.get_item(key)
    assert second is not None
    assert second.fetched_before
    assert second.cas == first.cas


async def test_an_item_that_never_expires_has_no_ttl(blobs: AsyncClient[bytes], key: str) -> None:
    await blobs.set(key, b"v", ttl=None)
    item = await blobs.get_item(key)
    assert item is not None
    assert item.ttl is None
    assert await blobs.get_item(f"{key}:absent") is None


async def test_an_item_hides_its_value_from_its_repr(blobs: AsyncClient[bytes], key: str) -> None:
    await blobs.set(key, b"hunter2")
    assert "hunter2" not in repr(await blobs.get_item(key))
    assert "hunter2" not in repr(await blobs.get_many_outcomes([key]))


async def test_a_batch_omits_misses_and_keeps_the_order(blobs: AsyncClient[bytes], key: str) -> None:
    keys = [f"{key}:{number}" for number in range(300)]
    await blobs.set_many({each: each.encode() for each in keys[::2]})
    found = await blobs.get_many(keys)
    assert found == {each: each.encode() for each in keys[::2]}
    assert list(found) == keys[::2]
    assert list(await blobs.get_items(iter(keys))) == keys[::2]
    outcomes = await blobs.get_many_outcomes(keys)
    assert outcomes.results == found
    assert outcomes.errors == {}


async def test_get_items_returns_the_same_items_as_get_item(blobs: AsyncClient[bytes], key: str) -> None:
    await blobs.set(key, b"v", ttl=1000)
    one: Item[bytes] | None = await blobs.get_item(key)
    again = await blobs.get_item(key)
    items = await blobs.get_items([key])
    assert one is not None
    assert items[key] == again


async def test_a_duplicate_key_is_sent_once(clients: Clients, key: str) -> None:
    blobs = clients.blobs()
    await blobs.set(key, b"v")
    clients.sent.clear()
    assert await blobs.get_many([key, key, f"{key}:absent", key]) == {key: b"v"}
    assert clients.sent == ["get_many x2"]


async def test_a_key_as_str_and_bytes_is_sent_once_and_both_get_the_value(clients: Clients, key: str) -> None:
    blobs = clients.blobs()
    await blobs.set(key, b"v")
    clients.sent.clear()
    mixed: list[str | bytes] = [key, key.encode(), f"{key}:absent".encode()]
    assert await blobs.get_many(mixed) == {key: b"v", key.encode(): b"v"}
    assert set(await blobs.get_items(mixed)) == {key, key.encode()}
    assert await blobs.get_many([key.encode()]) == {key.encode(): b"v"}
    assert clients.sent == ["get_many x2", "get_items x2", "get_many x1"]


async def test_an_empty_batch_sends_nothing(clients: Clients) -> None:
    blobs = clients.blobs()
    assert await blobs.get_many([]) == {}
    assert await blobs.get_items(()) == {}
    assert await blobs.set_many({}) == {}
    assert await blobs.delete_many(set[str]()) == {}
    assert (await blobs.get_many_outcomes(iter(list[bytes]()))).results == {}
    assert [name for name in clients.sent if not name.endswith("x0")] == []


async def test_a_single_key_instead_of_a_list_is_refused(clients: Clients) -> None:
    blobs = clients.blobs()
    for bare in ("key", b"key"):
        with pytest.raises(InvalidTypeError, match=r"get_many: keys is an iterable of keys, not one .*write \[key\]"):
            # The type checker accepts a str, because it is an iterable of str. bytes are an iterable of int.
            await blobs.get_many(bare)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
        with pytest.raises(TypeError):
            await blobs.delete_many(bare)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    assert clients.sent == []


# --- touching ---------------------------------------------------------------------------------------------------------


async def test_touch_sets_the_ttl_and_returns_whether_the_item_exists(blobs: AsyncClient[bytes], key: str) -> None:
    assert await blobs.touch(key, 100) is False
    await blobs.set(key, b"v", ttl=10)
    assert await blobs.touch(key, 1000) is True
    item = await blobs.get_item(key)
    assert item is not None
    assert item.ttl is not None
    assert item.ttl > 900
    assert await blobs.touch(key, None) is True
    item = await blobs.get_item(key)
    assert item is not None
    assert item.ttl is None


async def test_get_and_touch_returns_the_value_and_sets_the_ttl(blobs: AsyncClient[bytes], key: str) -> None:
    assert await blobs.get_and_touch(key, 100) is None
    await blobs.set(key, b"v", ttl=10)
    assert await blobs.get_and_touch(key, 1000) == b"v"
    item = await blobs.get_item(key)
    assert item is not None
    assert item.ttl is not None
    assert item.ttl > 900


# --- leases -----------------------------------------------------------------------------------------------------------


async def test_a_lease_of_another_client_is_never_a_value(clients: Clients, key: str) -> None:
    blobs = clients.blobs()
    lease(clients.node, key)
    assert await blobs.get(key) is None
    assert await blobs.get(key, b"default") == b"default"
    assert await blobs.get_item(key) is None
    assert await blobs.get_many([key]) == {}
    assert await blobs.get_items([key]) == {}
    assert await blobs.get_many([key.encode()]) == {}
    # It still exists, and another client still has the lease.
    assert await blobs.inspect(key) is not None


async def test_a_touched_lease_is_deleted(clients: Clients, key: str) -> None:
    blobs = clients.blobs()
    for touched in (blobs.touch(key, 1000), blobs.get_and_touch(key, 1000)):
        lease(clients.node, key)
        assert not await touched
        assert await blobs.inspect(key) is None


async def test_an_invalidated_lease_is_not_a_value(clients: Clients, key: str) -> None:
    blobs = clients.blobs()
    lease(clients.node, key)
    assert await blobs.invalidate(key, stale_for=60) is True
    for _ in range(2):  # the first of them wins
        assert await blobs.get_item(key) is None
        assert await blobs.exists(key) is False
    assert await blobs.inspect(key) is not None
    assert await blobs.append(key, b"v") is StoreResult.NOT_STORED
    assert await blobs.touch(key, 100) is False
    assert await blobs.inspect(key) is None


async def test_an_empty_value_is_not_a_lease(clients: Clients, key: str) -> None:
    blobs = clients.blobs()
    await blobs.set(key, b"")
    assert await blobs.touch(key, 100)
    assert await blobs.get_and_touch(key, 100) == b""
    store(clients.node, key, b"")  # with client flags 0, like a lease
    assert await blobs.get(key) == b""
    assert await blobs.touch(key, 100)
    assert await blobs.get(key) == b""


# --- metadata ---------------------------------------------------------------------------------------------------------


async def test_inspect_returns_metadata_without_a_read(blobs: AsyncClient[bytes], key: str) -> None:
    assert await blobs.inspect(key) is None
    await blobs.set(key, b"x" * 100)
    for _ in range(2):
        metadata = await blobs.inspect(key)
        assert metadata is not None
        assert not metadata.fetched_before
    item = await blobs.get_item(key)
    assert item is not None
    assert not item.fetched_before
    metadata = await blobs.inspect(key)
    assert metadata is not None
    assert metadata.fetched_before
    assert (metadata.cas, metadata.idle_seconds) == (item.cas, 0)
    assert metadata.slab_class > 0
    assert metadata.item_size > 100 + len(key)


async def test_inspect_does_not_consume_the_win_flag(blobs: AsyncClient[bytes], key: str) -> None:
    await blobs.set(key, b"v")
    await blobs.invalidate(key, stale_for=60)
    assert await blobs.inspect(key) is not None
    item = await blobs.get_item(key)
    assert item is not None
    assert item.won


@pytest.mark.parametrize("more", [" b", "\n", "\x00", "x" * 251])
async def test_inspect_refuses_keys_that_need_base64(clients: Clients, key: str, more: str) -> None:
    hashing = clients.make(BytesSerializer(), long_keys="hash")
    with pytest.raises(InvalidKeyError, match=r"inspect .*: inspect does not support a key with a space") as raised:
        await hashing.inspect(key + more)
    assert raised.value.key == key + more
    assert clients.sent == []


# --- stale items ------------------------------------------------------------------------------------------------------


async def test_an_invalidated_item_is_stale_and_one_reader_wins(blobs: AsyncClient[bytes], key: str) -> None:
    assert await blobs.invalidate(key, stale_for=60) is False
    await blobs.set(key, b"old", ttl=5000)
    assert await blobs.invalidate(key, stale_for=60) is True
    states: list[tuple[bytes, bool, bool]] = []
    for _ in range(2):
        item = await blobs.get_item(key)
        assert item is not None
        assert item.ttl is not None
        assert item.ttl <= 60
        states.append((item.value, item.stale, item.won))
    assert states == [(b"old", True, True), (b"old", True, False)]
    assert await blobs.get(key) == b"old"
    await blobs.set(key, b"new")
    item = await blobs.get_item(key)
    assert item is not None
    assert (item.value, item.stale, item.won) == (b"new", False, False)


async def test_a_plain_read_of_a_stale_item_consumes_the_win_flag(blobs: AsyncClient[bytes], key: str) -> None:
    await blobs.set(key, b"v")
    await blobs.invalidate(key, stale_for=60)
    assert await blobs.get_many([key]) == {key: b"v"}
    item = await blobs.get_item(key)
    assert item is not None
    assert (item.stale, item.won) == (True, False)


async def test_a_stale_empty_value_is_a_value(clients: Clients, key: str) -> None:
    blobs = clients.blobs()
    await blobs.set(key, b"")
    await blobs.invalidate(key, stale_for=60)
    item = await blobs.get_item(key)
    assert item is not None
    assert (item.value, item.won) == (b"", True)
    assert await blobs.get(key) == b""


async def test_the_winner_stores_with_the_cas_that_it_read(blobs: AsyncClient[bytes], key: str) -> None:
    await blobs.set(key, b"old")
    before = await blobs.get_item(key)
    await blobs.invalidate(key, stale_for=60)
    won = await blobs.get_item(key)
    assert before is not None
    assert won is not None
    assert not await blobs.compare_and_set(key, b"late", before.cas)
    assert await blobs.compare_and_set(key, b"new", won.cas)
    assert await blobs.get(key) == b"new"


async def test_values_of_other_clients_with_flags_0_are_readable(clients: Clients, key: str) -> None:
    store(clients.node, key, b"42")
    assert await clients.blobs().get(key) == b"42"
    assert await clients.make(StrSerializer()).get_many([key]) == {key: "42"}
    tokens, _ = ask(clients.node, raw_requests.meta_get(key.encode(), {"return_client_flags": True}))
    assert tokens[1] == b"f0"
