"""A stored value that cannot be decoded is a miss by default and an error in a strict client. Both count it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec
import pytest

from metacache import AsyncClient, BatchError, DecodeError, Serializer, Zlib, load_serializer
from metacache.serializers.frame import Cause
from tests.client.rig import Clients, store


class User(msgspec.Struct, frozen=True):
    name: str
    age: int


USERS: Final[Serializer[User]] = load_serializer("msgspec", User)
ZOE: Final = User("Zoë", 31)
GOOD: Final = USERS.dumps(ZOE)
MAGIC: Final = 0b1011 << 28
FLAGS: Final = MAGIC | USERS.fingerprint << 12 | USERS.wire_id

# Values that another program stored, and why they cannot be decoded to a User.
STORED: Final[Mapping[Cause, tuple[int, bytes]]] = {
    "foreign_flags": (32, GOOD),
    "wire_id": (FLAGS ^ 1, GOOD),
    "fingerprint": (FLAGS ^ 1 << 12, GOOD),
    "compressor": (FLAGS | 9 << 8, GOOD),
    "decompress": (FLAGS | 1 << 8, GOOD),
    "decode": (FLAGS, GOOD[:-1]),
}
CAUSES: Final = tuple(STORED)

Call = Callable[[AsyncClient[User], str], Awaitable[object]]
READS: Final[Mapping[str, Call]] = {
    "get": lambda client, key: client.get(key),
    "get_item": lambda client, key: client.get_item(key),
    "get_and_touch": lambda client, key: client.get_and_touch(key, 1000),
    "update": lambda client, key: client.update(key, lambda _: ZOE),
}


def counted(cause: Cause, count: int) -> Mapping[str, int]:
    """Return the counts of a client that read *count* values of *cause* and no others."""
    return {each: count if each == cause else 0 for each in CAUSES}


def spoil(clients: Clients, key: str, cause: Cause) -> None:
    """Store a value that is undecodable for *cause*."""
    flags, data = STORED[cause]
    store(clients.node, key, data, client_flags=flags)


@pytest.mark.parametrize("cause", CAUSES)
async def test_an_undecodable_value_is_a_miss_and_counted_by_cause(clients: Clients, key: str, cause: Cause) -> None:
    users = clients.make(USERS)
    await users.set(f"{key}:good", ZOE)
    spoil(clients, key, cause)
    assert await users.get(key) is None
    assert await users.get(key, "unknown") == "unknown"
    assert await users.get_item(key) is None
    assert await users.get_and_touch(key, 1000) is None
    assert users.undecodable == counted(cause, 4)
    both = [key, f"{key}:good"]
    assert await users.get_many(both) == {f"{key}:good": ZOE}
    assert (await users.get_items(both)).keys() == {f"{key}:good"}
    outcomes = await users.get_many_outcomes(both)
    assert (outcomes.results, outcomes.errors) == ({f"{key}:good": ZOE}, {})
    assert users.undecodable == counted(cause, 7)


@pytest.mark.parametrize("cause", CAUSES)
async def test_an_undecodable_item_exists(clients: Clients, key: str, cause: Cause) -> None:
    users = clients.make(USERS, on_undecodable="raise")
    spoil(clients, key, cause)
    assert await users.inspect(key) is not None
    assert await users.touch(key, 1000)
    assert not await users.add(key, ZOE)
    assert users.undecodable == counted(cause, 0), "none of these decodes"
    lenient = clients.make(USERS)
    assert await lenient.update(key, lambda found: ZOE if found is None else User("unknown", 0)) == ZOE
    assert await users.get(key) == ZOE


@pytest.mark.parametrize("cause", CAUSES)
async def test_a_strict_client_raises_and_counts_and_stores_nothing(clients: Clients, key: str, cause: Cause) -> None:
    # A DecodeError is not an error of the network, so on_error="miss" does not suppress it.
    strict = clients.make(USERS, on_undecodable="raise", on_error="miss")
    spoil(clients, key, cause)
    for count, (operation, read) in enumerate(READS.items(), 1):
        with pytest.raises(DecodeError, match="the stored value cannot be decoded") as raised:
            await read(strict, key)
        assert (raised.value.operation, raised.value.key) == (operation, key)
        assert strict.undecodable == counted(cause, count)
    assert strict.errors_as_misses == {}
    assert await clients.make(USERS).get(key) is None, "what was there still is"


@pytest.mark.parametrize("cause", CAUSES)
async def test_a_strict_batch_fails_only_for_the_undecodable_key(clients: Clients, key: str, cause: Cause) -> None:
    strict = clients.make(USERS, on_undecodable="raise")
    good = [f"{key}:{number}" for number in range(3)]
    await strict.set_many(dict.fromkeys(good, ZOE))
    spoil(clients, key, cause)
    keys = [good[0], key, *good[1:]]
    for read in (strict.get_many, strict.get_items):
        with pytest.raises(BatchError, match="1 of 4 keys failed: 1 DecodeError") as raised:
            await read(keys)
        assert raised.value.results.keys() == set(good)
        (error,) = raised.value.errors.values()
        assert isinstance(error, DecodeError)
        assert (error.operation, error.key) == (read.__name__, key)
    outcomes = await strict.get_many_outcomes(keys)
    assert outcomes.results == dict.fromkeys(good, ZOE)
    assert {key: type(error) for key, error in outcomes.errors.items()} == {key: DecodeError}
    assert strict.undecodable == counted(cause, 3)


async def test_a_value_that_decompresses_beyond_the_limit_is_undecodable(clients: Clients, key: str) -> None:
    texts = load_serializer("msgspec", str)
    large = "x" * 10_000
    await clients.make(texts, compressor=Zlib()).set(key, large)
    narrow = clients.make(texts, compressor=Zlib(max_decompressed_size=9_000))
    assert await narrow.get(key) is None
    assert narrow.undecodable == counted("decompress", 1)
    wide = clients.make(texts, compressor=Zlib(max_decompressed_size=11_000))
    assert await wide.get(key) == large
