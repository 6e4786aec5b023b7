"""A TTL beyond 30 days is sent as a time since 1970, as memcached requires, by every method."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, Final

import pytest

from metacache import AsyncClient, InvalidArgumentError, InvalidTypeError, Zlib
from metacache.operations.arguments import DEFAULT
from metacache.operations.batches import Batches
from metacache.operations.options import Options
from metacache.operations.policies import UndecodablePolicy
from metacache.operations.readers import Reader
from metacache.operations.requests import Operations
from metacache.operations.statistics import Counts
from metacache.serializers import BytesSerializer, IntSerializer
from metacache.serializers.frame import Frame
from tests.client.rig import Clients

DAY: Final = 24 * 60 * 60
THIRTY_DAYS: Final = 30 * DAY

# All methods that store with the client's default_ttl.
Call = Callable[[AsyncClient[bytes], str], Awaitable[object]]
STORES: Final[Mapping[str, Call]] = {
    "set": lambda client, key: client.set(key, b"v"),
    "set of a key in base64": lambda client, key: client.set(key, b"v"),
    "set of a large value": lambda client, key: client.set(key, b"v" * 2_000),
    "add": lambda client, key: client.add(key, b"v"),
    "update": lambda client, key: client.update(key, lambda _: b"v"),
    "set_many": lambda client, key: client.set_many({key: b"v", f"{key}:other": b"v" * 2_000}),
    "set_many of bytes": lambda client, key: client.set_many({key.encode(): b"v"}),
    "set_many in base64": lambda client, key: client.set_many({key: b"v", f"{key} other": b"v"}),
    "set_many_outcomes": lambda client, key: client.set_many_outcomes({key: b"v"}),
}


async def check(client: AsyncClient[bytes], key: str, wanted: int) -> None:
    """Check that the TTL of *key* is *wanted* seconds."""
    item = await client.get_item(key)
    assert item is not None, "it would have expired in 1970"
    assert item.ttl is not None
    # The server's clock counts whole seconds and may be late.
    assert wanted - 10 < item.ttl <= wanted + 2


@pytest.mark.parametrize("ttl", [THIRTY_DAYS, THIRTY_DAYS + 1, timedelta(days=365)], ids=str)
@pytest.mark.parametrize("compressor", [None, Zlib(min_size=0)], ids=["plain", "compressor"])
async def test_every_store_uses_a_default_ttl_beyond_thirty_days(
    clients: Clients, key: str, ttl: int | timedelta, compressor: Zlib | None
) -> None:
    client = clients.blobs(default_ttl=ttl, compressor=compressor)
    wanted = int(ttl.total_seconds()) if isinstance(ttl, timedelta) else ttl
    for number, (name, store) in enumerate(STORES.items()):
        own = f"{key} {number}" if "base64" in name else f"{key}:{number}"
        await store(client, own)
        await check(client, own, wanted)
    await client.replace(f"{key}:0", b"w")
    await check(client, f"{key}:0", wanted)
    item = await client.get_item(f"{key}:0")
    assert item is not None
    await client.compare_and_set(f"{key}:0", b"x", item.cas)
    await check(client, f"{key}:0", wanted)


async def test_every_method_uses_a_ttl_beyond_thirty_days(clients: Clients, key: str) -> None:
    client, wanted = clients.blobs(), 100 * DAY
    await client.set_many({key: b"v", f"{key}:2": b"v"}, ttl=wanted)
    await check(client, f"{key}:2", wanted)
    assert await client.touch(key, wanted + DAY)
    await check(client, key, wanted + DAY)
    assert await client.get_and_touch(key, timedelta(days=50)) == b"v"
    await check(client, key, 50 * DAY)
    assert await client.invalidate(key, stale_for=60 * DAY)
    await check(client, key, 60 * DAY)


async def test_arithmetic_uses_a_ttl_beyond_thirty_days(clients: Clients, key: str) -> None:
    counters, blobs = clients.make(IntSerializer(), default_ttl=100 * DAY), clients.blobs()
    assert await counters.increment(key, initial=5) == 5
    await check(blobs, key, 100 * DAY)
    assert await counters.increment(key, ttl=200 * DAY) == 6
    await check(blobs, key, 200 * DAY)
    assert await counters.decrement(f"{key}:2", initial=5, ttl=300 * DAY) == 5
    await check(blobs, f"{key}:2", 300 * DAY)


def test_the_time_since_1970_is_computed_for_every_store() -> None:
    now = 1_800_000_000.0
    options = Options(default_ttl=31 * DAY)
    ops = Operations(Reader(Frame(BytesSerializer()), UndecodablePolicy(strict=False), Counts()), options, lambda: now)

    def ends() -> set[int]:
        heads = [ops.set("key", b"v", DEFAULT).head, *Batches(ops).set_many({"key": b"v"}, DEFAULT).batch.heads]
        return {int(head.partition(b" T")[2]) for head in heads}

    assert ends() == {1_800_000_000 + 31 * DAY}
    now += 5.0
    assert ends() == {1_800_000_005 + 31 * DAY}


# All methods with a ttl argument.
GIVEN: Final[Mapping[str, Callable[[AsyncClient[bytes], Any], Awaitable[object]]]] = {  # Any: wrong types too
    "set": lambda client, ttl: client.set("key", b"v", ttl=ttl),
    "add": lambda client, ttl: client.add("key", b"v", ttl=ttl),
    "set_many": lambda client, ttl: client.set_many({"key": b"v"}, ttl=ttl),
    "update": lambda client, ttl: client.update("key", lambda _: b"v", ttl=ttl),
    "touch": lambda client, ttl: client.touch("key", ttl),
    "get_and_touch": lambda client, ttl: client.get_and_touch("key", ttl),
    "invalidate": lambda client, ttl: client.invalidate("key", stale_for=ttl),
}


@pytest.mark.parametrize("way", GIVEN)
@pytest.mark.parametrize("scale", [1, 1_000, 1_000_000_000], ids=["s", "ms", "ns"])
@pytest.mark.parametrize("ahead", [-60, 0, 60, 100 * DAY])
async def test_a_timestamp_as_a_ttl_is_refused_with_the_reason(
    clients: Clients, way: str, scale: int, ahead: int
) -> None:
    with pytest.raises(InvalidArgumentError, match=r"(ttl|stale_for) is seconds from now, not a timestamp"):
        await GIVEN[way](clients.blobs(), (int(time.time()) + ahead) * scale)
    assert clients.sent == []


@pytest.mark.parametrize("way", GIVEN)
async def test_a_float_and_a_too_long_timedelta_are_refused_with_the_reason(clients: Clients, way: str) -> None:
    with pytest.raises(InvalidTypeError, match="an int of seconds from now, a timedelta or None, not float"):
        await GIVEN[way](clients.blobs(), time.time() + 60)
    with pytest.raises(InvalidArgumentError, match="ends after 2038-01-19, the last day that memcached supports"):
        await GIVEN[way](clients.blobs(), timedelta(days=30_000))


@pytest.mark.parametrize("scale", [1, 1_000, 1_000_000_000], ids=["s", "ms", "ns"])
def test_a_timestamp_as_default_ttl_is_refused(clients: Clients, scale: int) -> None:
    with pytest.raises(InvalidArgumentError, match="default_ttl is seconds from now, not a timestamp"):
        clients.blobs(default_ttl=(int(time.time()) - DAY) * scale)
