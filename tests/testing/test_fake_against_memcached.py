"""A client gets the same results from a fake as from a real memcached.

Each script runs on a real memcached and on both fakes, and the results are compared. No script has expected results.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias, TypeVar, cast

import pytest

from metacache import (
    AsyncClient,
    AsyncConnection,
    AsyncTransport,
    Client,
    Item,
    MetacacheError,
    Serializer,
    Transport,
)
from metacache.serializers import BytesSerializer, IntSerializer
from metacache.testing import AsyncFakeTransport, FakeTransport, Memcached
from tests.client.rig import PATIENT, Shaped

T = TypeVar("T")

TOO_LARGE: Final = b"x" * 2_000_000
U64: Final = 2**64

Blobs: TypeAlias = AsyncClient[bytes]
Numbers: TypeAlias = AsyncClient[int]
Script: TypeAlias = Callable[[Blobs, Numbers], Awaitable[list[object]]]


async def outcome_of(asked: Awaitable[object]) -> object:
    """Return the result of *call*, or the parts of its error that do not depend on the node."""
    try:
        return await asked
    except MetacacheError as error:
        return type(error), error.message, error.operation, error.key, error.maybe_applied


def seen(item: Item[T] | None) -> object:
    """Return the attributes of an item without the CAS, which differs between servers."""
    if item is None:
        return None
    return (item.value, item.ttl, item.size, item.client_flags, item.fetched_before, item.stale, item.won, item.cas > 0)


async def storing(blobs: Blobs, _: Numbers) -> list[object]:
    return [
        await blobs.get("k"),
        await blobs.replace("k", b"1"),
        await blobs.add("k", b"2"),
        await blobs.add("k", b"3"),
        await blobs.replace("k", b"4"),
        await blobs.get("k"),
        await blobs.set("k", b""),
        await blobs.get(b"k"),
        await blobs.delete("k"),
        await blobs.delete("k"),
        await blobs.get("k", "none"),
    ]


async def items(blobs: Blobs, _: Numbers) -> list[object]:
    await blobs.set("k", b"value", ttl=1_000_000)
    await blobs.set("for ever", b"value", ttl=None)
    found = [seen(await blobs.get_item(key)) for key in ("k", "k", "for ever", "none")]
    both = await blobs.get_items(["k", "for ever", "none"])
    return [*found, {key: seen(item) for key, item in both.items()}]


async def keys_of_all_kinds(blobs: Blobs, _: Numbers) -> list[object]:
    values = {"a b": b"1", "tab\t": b"2", "é" * 60: b"3", "plain": b"4"}
    return [await blobs.set_many(values), await blobs.get_many(values), await blobs.get("a b")]


async def comparing(blobs: Blobs, _: Numbers) -> list[object]:
    await blobs.set("k", b"1")
    item = await blobs.get_item("k")
    assert item is not None
    return [
        await blobs.compare_and_set("k", b"2", item.cas),
        await blobs.compare_and_set("k", b"3", item.cas),
        await blobs.compare_and_set("none", b"3", item.cas),
        await blobs.delete("k", cas=item.cas),
        await blobs.delete("none", cas=item.cas),
        await blobs.get("k"),
        await blobs.update("k", lambda value: (value or b"") + b"+"),
        await blobs.update("new", lambda value: b"made" if value is None else b"changed"),
    ]


async def growing(blobs: Blobs, _: Numbers) -> list[object]:
    before = [await blobs.append("k", b"x"), await blobs.prepend("k", b"x")]
    await blobs.set("k", b"1", ttl=1_000)
    after = [await blobs.append("k", b"2"), await blobs.prepend("k", b"0")]
    return [*before, *after, seen(await blobs.get_item("k"))]


async def growing_what_must_not_grow(blobs: Blobs, numbers: Numbers) -> list[object]:
    await numbers.set("n", 7)
    foreign = [await blobs.append("n", b"8"), await numbers.get("n"), await outcome_of(blobs.prepend("n", TOO_LARGE))]
    await blobs.set("k", b"old", ttl=1_000)
    await blobs.invalidate("k", stale_for=30)
    stale = [await blobs.append("k", b"+"), seen(await blobs.get_item("k")), await blobs.prepend("k", b"+")]
    return [*foreign, *stale, seen(await blobs.get_item("k")), dict(blobs.undecodable)]


async def existing(blobs: Blobs, numbers: Numbers) -> list[object]:
    absent = await blobs.exists("k")
    await blobs.set("k", b"")
    await numbers.set("n", 7)
    both = [await blobs.exists("k"), await blobs.exists("n"), await numbers.exists("n")]
    await blobs.invalidate("k", stale_for=30)
    stale = [await blobs.exists("k"), seen(await blobs.get_item("k"))]
    return [absent, *both, *stale, dict(blobs.undecodable)]


async def counting(blobs: Blobs, numbers: Numbers) -> list[object]:
    absent = [await numbers.increment("n"), await numbers.decrement("n"), await numbers.increment("n", initial=7)]
    present = [await numbers.increment("n", 5, initial=7), await numbers.decrement("n", 3), await numbers.get("n")]
    floor = [await numbers.decrement("n", 100), await numbers.get("n")]
    await numbers.set("n", U64 - 1)
    wrapped = [await numbers.increment("n", 2), await numbers.get("n")]
    await numbers.set("n", -1)
    negative = [await outcome_of(numbers.increment("n")), await numbers.get("n")]
    await blobs.set("text", b"12a")
    return [*absent, *present, *floor, *wrapped, *negative, await outcome_of(numbers.increment("text"))]


async def counting_with_a_lifetime(_: Blobs, numbers: Numbers) -> list[object]:
    ttls: list[object] = []
    for call in (
        numbers.increment("n", initial=1, initial_ttl=1_000),
        numbers.increment("n", initial=1, initial_ttl=50),
        numbers.decrement("n", initial=1, ttl=3_000),
        numbers.increment("n"),
        numbers.increment("n", 100),
        numbers.decrement("n", ttl=2_000),
        numbers.increment("n", ttl=None),
    ):
        number = await call
        item = await numbers.get_item("n")
        ttls.append((number, item and item.ttl))
    return ttls


async def going_stale(blobs: Blobs, _: Numbers) -> list[object]:
    await blobs.set("k", b"old", ttl=1_000)
    before = await blobs.get_item("k")
    absent = await blobs.invalidate("none", stale_for=30)
    marked = await blobs.invalidate("k", stale_for=30)
    assert before is not None
    lost = await blobs.compare_and_set("k", b"of before", before.cas)
    readers = [await blobs.get_item("k") for _ in range(3)]
    winner = readers[0]
    assert winner is not None
    stored = await blobs.compare_and_set("k", b"new", winner.cas)
    fresh = await blobs.get_item("k")
    await blobs.invalidate("k", stale_for=30)
    plain = await blobs.get("k")
    after = await blobs.get_item("k")
    await blobs.invalidate("k", stale_for=30)
    again = await blobs.get_item("k")
    return [absent, marked, lost, *map(seen, readers), stored, seen(fresh), plain, seen(after), seen(again)]


async def touching(blobs: Blobs, _: Numbers) -> list[object]:
    await blobs.set("k", b"v", ttl=5)
    return [
        await blobs.touch("none", 5),
        await blobs.get_and_touch("none", 5),
        await blobs.touch("k", 1_000),
        seen(await blobs.get_item("k")),
        await blobs.get_and_touch("k", None),
        seen(await blobs.get_item("k")),
    ]


async def inspecting(blobs: Blobs, _: Numbers) -> list[object]:
    await blobs.set("k", b"v")
    before = await blobs.inspect("k")
    await blobs.get("k")
    after = await blobs.inspect("k")
    assert before is not None
    assert after is not None
    return [before.fetched_before, after.fetched_before, after.idle_seconds, await blobs.inspect("none")]


async def too_much(blobs: Blobs, _: Numbers) -> list[object]:
    await blobs.set("k", b"old")
    refused = await outcome_of(blobs.set("k", TOO_LARGE))
    part = await blobs.set_many_outcomes({"a": b"1", "k": TOO_LARGE, "b": b"2"})
    causes = {key: (type(error), error.message, error.operation, error.key) for key, error in part.errors.items()}
    await blobs.set("half", b"x" * 600_000)
    grown = [await blobs.append("half", b"y" * 600_000), len(await blobs.get("half", b""))]
    gone = [await outcome_of(blobs.prepend("half", TOO_LARGE)), await blobs.get("half")]
    absent = await outcome_of(blobs.add("none", TOO_LARGE))
    both = await blobs.get_many(["a", "b", "k"])
    return [refused, await blobs.get("k"), part.results, causes, both, grown, gone, absent]


async def many_keys(blobs: Blobs, _: Numbers) -> list[object]:
    values = {f"{number}": b"%d" % number for number in range(1_000)}
    return [
        await blobs.set_many(values),
        await blobs.get_many([*values, "none"]),
        await blobs.delete_many(["1", "none", "2"]),
        len((await blobs.get_many_outcomes(values)).results),
        await blobs.get_many([]),
    ]


SCRIPTS: Final[Mapping[str, Script]] = {
    script.__name__: script
    for script in (
        storing,
        items,
        keys_of_all_kinds,
        comparing,
        growing,
        growing_what_must_not_grow,
        existing,
        counting,
        counting_with_a_lifetime,
        going_stale,
        touching,
        inspecting,
        too_much,
        many_keys,
    )
}
FAKES: Final[Mapping[str, Callable[[], Transport | AsyncTransport]]] = {
    "FakeTransport": FakeTransport,
    "AsyncFakeTransport": AsyncFakeTransport,
}

_runs = itertools.count(1)


def client_of(transport: Transport | AsyncTransport, serializer: Serializer[T], prefix: str) -> AsyncClient[T]:
    if isinstance(transport, FakeTransport):
        # It has the methods of an AsyncClient but another class: that is the purpose of the adapter.
        return cast("AsyncClient[T]", Shaped(Client(transport, serializer, prefix=prefix)))
    return AsyncClient(cast("AsyncTransport", transport), serializer, prefix=prefix)  # the only other type


async def run(script: Script, transport: Transport | AsyncTransport) -> list[object]:
    prefix = f"fakes:{next(_runs)}:"
    return await script(client_of(transport, BytesSerializer(), prefix), client_of(transport, IntSerializer(), prefix))


@pytest.mark.parametrize("fake", FAKES)
@pytest.mark.parametrize("script", SCRIPTS)
async def test_a_fake_returns_the_same_results_as_a_memcached(
    shared_memcached: Memcached, script: str, fake: str
) -> None:
    async with AsyncConnection(shared_memcached.node, settings=PATIENT) as real:
        wanted = await run(SCRIPTS[script], real)
    assert await run(SCRIPTS[script], FAKES[fake]()) == wanted
