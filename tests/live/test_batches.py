"""Batches on a real server: many keys, large values, windows that are read while others are written."""

from __future__ import annotations

from typing import Final

import pytest

from metacache import BatchError, DeleteResult, ServerError, Settings, StoreResult, connect
from metacache.testing import Memcached
from tests.conftest import start

PATIENT: Final = Settings(timeout=60.0)


def test_ten_thousand_keys_are_stored_and_read_by_one_call_each(shared_memcached: Memcached) -> None:
    items = {f"ten-{number}": b"%d:" % number + b"x" * (number % 97) for number in range(10_000)}
    with connect(shared_memcached.url, settings=PATIENT) as client:
        assert client.set_many(items) == dict.fromkeys(items, StoreResult.STORED)
        assert client.get_many(items) == items
        assert client.delete_many([*items, "ten-none"]) == {
            **dict.fromkeys(items, DeleteResult.DELETED),
            "ten-none": DeleteResult.NOT_FOUND,
        }
        assert client.get_many(items) == {}


@pytest.mark.alone
def test_half_a_gigabyte_in_one_call_does_not_deadlock() -> None:
    value = bytes(range(256)) * 391  # 100 KB that contain CR and LF
    keys = [f"large-{number}" for number in range(5_000)]
    with start("-m", "1024") as server, connect(server.url, settings=PATIENT) as client:
        assert all(client.set_many(dict.fromkeys(keys, value)).values())
        found = client.get_many(keys)
        assert list(found) == keys
        assert all(data == value for data in found.values())


@pytest.mark.parametrize("size", [16_000, 65_400, 65_536, 70_000, 131_072, 400_000])
def test_values_about_as_large_as_a_window_are_stored_and_read(shared_memcached: Memcached, size: int) -> None:
    items = {f"window-{number}": bytes([number]) * (size + number) for number in range(20)}
    with connect(shared_memcached.url, settings=PATIENT) as client:
        assert all(client.set_many(items).values())
        assert client.get_many(items) == items
        assert all(client.delete_many(items).values())


def test_a_batch_may_mix_all_kinds_of_keys(shared_memcached: Memcached) -> None:
    keys: list[str | bytes] = ["plain", "a space", "crlf\r\nflush_all", b"\x00\xff", "é" * 125, "x" * 250, " " * 186]
    items = {key: b"value of %d" % number for number, key in enumerate(keys)}
    with connect(shared_memcached.url, settings=PATIENT) as client:
        assert all(client.set_many(items).values())
        assert client.get_many(keys) == items
        assert {key: client.get(key) for key in keys} == items
        assert all(client.delete_many(keys).values())


TRAPS: Final = (b"", b"\r\n", b"END\r\n", b"MN\r\n", b"VA 5\r\n", b"EN\r\n", b"HD O1\r\n", b"\r", b"\n", b"x")


def test_values_that_look_like_protocol_are_read_back(shared_memcached: Memcached) -> None:
    items = {f"trap-{one}-{two}": a + b + a for one, a in enumerate(TRAPS) for two, b in enumerate(TRAPS)}
    with connect(shared_memcached.url, settings=PATIENT) as client:
        assert all(client.set_many(items).values())
        assert client.get_many(items) == items
        assert {key: client.get(key) for key in items} == items
        assert {key: item.value for key, item in client.get_items(items).items()} == items


# The default limit of an item is 1 MiB: header 48 bytes, CAS 8, key with its NUL 2, client flags 4, CRLF 2, value.
LARGEST: Final = 1_048_576 - 48 - 8 - len("k") - 1 - 4 - 2


def test_the_largest_value_fits_and_one_byte_more_does_not(memcached: Memcached) -> None:
    assert LARGEST == 1_048_516 - 4, "with client flags of 0 it would be 1,048,516"
    with connect(memcached.url) as client:
        assert client.set("k", b"x" * LARGEST)
        assert client.get("k") == b"x" * LARGEST
        with pytest.raises(ServerError, match="old value is gone") as raised:
            client.set("k", b"x" * (LARGEST + 1))
        assert raised.value.key == "k"
        assert client.get("k") is None, "it is gone"


def test_a_value_that_is_too_large_fails_alone_in_its_batch(memcached: Memcached) -> None:
    with connect(memcached.url, settings=PATIENT) as client:
        assert client.set("large", b"old")
        items = {"before": b"1", "large": b"x" * 1_100_000, "after": b"2"}
        with pytest.raises(BatchError) as raised:
            client.set_many(items)
        assert raised.value.results == {"before": StoreResult.STORED, "after": StoreResult.STORED}
        (error,) = raised.value.errors.values()
        assert isinstance(error, ServerError)
        assert "old value is gone" in str(error)
        assert not error.maybe_applied
        assert client.get_many(items) == {"before": b"1", "after": b"2"}


def test_a_server_without_memory_fails_only_the_values_that_do_not_fit() -> None:
    with start("-m", "8", "-M") as server, connect(server.url, settings=PATIENT) as client:
        items = {f"full-{number}": bytes([number % 256]) * 300_000 for number in range(100)}
        outcomes = client.set_many_outcomes(items)
        assert outcomes.results
        assert outcomes.errors
        assert {type(error) for error in outcomes.errors.values()} == {ServerError}
        assert len(outcomes.results) + len(outcomes.errors) == len(items)
        found = client.get_many(items)
        assert all(items[key] == value for key, value in found.items())
        assert set(found) == set(outcomes.results)
        with pytest.raises(ServerError, match="out of memory"):
            client.set("full-more", b"x" * 300_000)
        assert client.get("full-0") in (None, items["full-0"]), "the connection goes on"
