"""A time to live beyond 30 days: memcached reads it as a time since 1970, so that is what is sent, in every verb."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Final

import pytest

from metacache import AsyncClient, Zlib
from metacache.arguments import DEFAULT
from metacache.batches import Batches
from metacache.operations import Operations
from metacache.options import Options
from metacache.policies import UndecodablePolicy
from metacache.serializers import BytesSerializer, IntSerializer
from metacache.serializers.frame import Frame
from tests.clients.rig import Clients

DAY: Final = 24 * 60 * 60
THIRTY_DAYS: Final = 30 * DAY

# Each way in which a value comes to be stored for the client's default_ttl.
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
    """See that the server lets *key* live for *wanted* seconds from now."""
    item = await client.get_item(key)
    assert item is not None, "it would have expired in 1970"
    assert item.ttl is not None
    # The server's clock ticks by the second, and lags.
    assert wanted - 10 < item.ttl <= wanted + 2


@pytest.mark.parametrize("ttl", [THIRTY_DAYS, THIRTY_DAYS + 1, timedelta(days=365)], ids=str)
@pytest.mark.parametrize("compressor", [None, Zlib(min_size=0)], ids=["plain", "compressor"])
async def test_every_store_keeps_to_a_default_ttl_beyond_thirty_days(
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


async def test_every_given_ttl_beyond_thirty_days_is_kept_to(clients: Clients, key: str) -> None:
    client, wanted = clients.blobs(), 100 * DAY
    await client.set_many({key: b"v", f"{key}:2": b"v"}, ttl=wanted)
    await check(client, f"{key}:2", wanted)
    assert await client.touch(key, wanted + DAY)
    await check(client, key, wanted + DAY)
    assert await client.get_and_touch(key, timedelta(days=50)) == b"v"
    await check(client, key, 50 * DAY)
    assert await client.invalidate(key, stale_for=60 * DAY)
    await check(client, key, 60 * DAY)


async def test_numbers_live_beyond_thirty_days(clients: Clients, key: str) -> None:
    counters, blobs = clients.make(IntSerializer(), default_ttl=100 * DAY), clients.blobs()
    assert await counters.increment(key, initial=5) == 5
    await check(blobs, key, 100 * DAY)
    assert await counters.increment(key, ttl=200 * DAY) == 6
    await check(blobs, key, 200 * DAY)
    assert await counters.decrement(f"{key}:2", initial=5, ttl=300 * DAY) == 5
    await check(blobs, f"{key}:2", 300 * DAY)


def test_a_time_since_1970_is_worked_out_anew_for_every_store() -> None:
    now = 1_800_000_000.0
    options = Options(default_ttl=31 * DAY)
    ops = Operations(Frame(BytesSerializer()), UndecodablePolicy(strict=False), options, lambda: now)

    def ends() -> set[int]:
        heads = [ops.set("key", b"v", DEFAULT).head, *Batches(ops).set_many({"key": b"v"}, DEFAULT).batch.heads]
        return {int(head.partition(b" T")[2]) for head in heads}

    assert ends() == {1_800_000_000 + 31 * DAY}
    now += 5.0
    assert ends() == {1_800_000_005 + 31 * DAY}
