"""`get_or_compute_many`: one call of the factory for what was won, then a wait for the rest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest

from metacache import BatchError, BusyError, DecodeError, InvalidTypeError, ServerError, Source, Stampede
from tests.caching.rig import Rig
from tests.caching.test_single_flight import settled, until_waiting


class Absent(LookupError):
    """A failure of a factory."""


class Stop(BaseException):
    """An exception that is not an Exception."""


def keys_of(key: str, names: str) -> list[str]:
    return [f"{key}{name}" for name in names]


def recorder(rig: Rig, calls: list[list[str]], *, leaves_out: str = "") -> Callable[[Any], Any]:  # Any: as in Rig
    async def make(keys: Sequence[str]) -> Mapping[str, str]:
        calls.append(list(keys))
        return {key: f"new {key[-1]}" for key in keys if key[-1] not in leaves_out}

    return rig.many_factory(make)


def failing(rig: Rig, error: BaseException) -> Callable[[Any], Any]:  # Any: as in Rig
    async def make(_: object) -> Mapping[str, str]:
        raise error

    return rig.many_factory(make)


async def test_one_call_computes_what_is_missing(both: Rig, key: str) -> None:
    client, calls = both.texts(), list[list[str]]()
    a, b, c, d = keys = keys_of(key, "abcd")
    await client.set(b, "old b", ttl=100)
    found = await client.get_or_compute_many(keys, recorder(both, calls), ttl=100)
    assert found == {a: "new a", b: "old b", c: "new c", d: "new d"}
    assert calls == [[a, c, d]]
    assert await client.get_or_compute_many(keys, recorder(both, calls)) == found
    assert len(calls) == 1
    assert [both.remaining(each)[0] for each in keys] == [b"new a", b"old b", b"new c", b"new d"]
    assert both.remaining(a)[2] in range(94, 101)


async def test_keys_that_the_factory_leaves_out_have_no_lease_any_more(both: Rig, key: str) -> None:
    client, calls = both.texts(), list[list[str]]()
    a, b = keys = keys_of(key, "ab")
    assert await client.get_or_compute_many(keys, recorder(both, calls, leaves_out="b")) == {a: "new a"}
    assert both.remaining(b)[0] is None
    assert await client.get_or_compute_many([], recorder(both, calls)) == {}
    assert calls == [keys]


async def test_equal_keys_are_computed_once(both: Rig, key: str) -> None:
    client: Any = both.texts()  # Any: keys of two types
    calls: list[list[str]] = []

    async def make(keys: Sequence[str | bytes]) -> Mapping[str | bytes, str]:
        calls.append([str(each) for each in keys])
        return dict.fromkeys(keys, "new")

    found = await client.get_or_compute_many([key, key.encode(), key], both.many_factory(make))
    assert found == {key: "new", key.encode(): "new"}
    assert calls == [[key]]


async def test_each_row_of_the_table_in_one_call(both: Rig, key: str) -> None:
    """A hit, a stale value, an old one to be computed again, an undecodable one, a miss."""
    client, calls = both.texts(), list[list[str]]()
    hit, stale, old, foreign, miss = keys = keys_of(key, "hsofm")
    for each in (hit, stale, old):
        await client.set(each, "old", ttl=3600)
    for request in (f"md {stale} I", f"mg {stale} v", f"md {old} I", f"ms {foreign} 1 F12345\r\nx"):
        assert both.wire(request.encode() + b"\r\n")[:2] in (b"HD", b"VA")
    found = await client.get_or_compute_many(keys, recorder(both, calls), ttl=100)
    assert found == {hit: "old", stale: "old", old: "new o", foreign: "new f", miss: "new m"}
    assert calls == [[old, miss], [foreign]]
    assert [both.remaining(each)[1] for each in keys] == ["", "XZ", "", "", ""]


async def test_a_failure_gives_all_leases_back(both: Rig, key: str) -> None:
    client = both.texts()
    old, miss = keys = keys_of(key, "om")
    await client.set(old, "old", ttl=3600)
    both.wire(f"md {old} I\r\n".encode())
    for error in (Absent("no"), Stop()):
        with pytest.raises(type(error)) as caught:
            await client.get_or_compute_many(keys, failing(both, error))
        assert caught.value is error
        assert both.remaining(miss)[0] is None
        reply = both.wire(f"md {old} I\r\nmg {old} v t\r\n".encode())
        assert b"old" in reply
        left = int(reply.split()[3][1:])
        assert left in range(3590, 3601)
        both.wire(f"md {old} I\r\n".encode())


async def test_old_values_cover_a_failure_if_there_is_one_for_each_key(both: Rig, key: str) -> None:
    client = both.texts()
    keys = keys_of(key, "ab")
    for each, ttl in zip(keys, (3600, None), strict=True):
        await client.set(each, f"old {each[-1]}", ttl=ttl)
        both.wire(f"md {each} I\r\n".encode())
    found = await client.get_or_compute_many(keys, failing(both, Absent("no")))
    assert found == {keys[0]: "old a", keys[1]: "old b"}
    assert [both.remaining(each)[1] for each in keys] == ["XW", "XW"]
    assert both.remaining(keys[0])[2] in range(3590, 3601)
    assert both.remaining(keys[1])[2] == -1


async def test_the_life_of_old_values_is_short_while_the_factory_runs(both: Rig, key: str) -> None:
    client, lives = both.texts(), list[int]()
    keys = keys_of(key, "ab")
    for each in keys:
        await client.set(each, "old", ttl=None)
        both.wire(f"md {each} I\r\n".encode())

    async def make(found: Sequence[str]) -> Mapping[str, str]:
        lives.extend(both.remaining(each)[2] for each in found)
        return dict.fromkeys(found, "new")

    await client.get_or_compute_many(keys, both.many_factory(make), policy=Stampede(lease=20))
    assert lives
    assert all(15 <= life <= 20 for life in lives)


async def test_a_result_that_is_no_mapping_is_refused(both: Rig, key: str) -> None:
    async def make(keys: Sequence[str]) -> Any:  # Any: a wrong type
        return list(keys)

    with pytest.raises(InvalidTypeError, match="returns a mapping"):
        await both.texts().get_or_compute_many([key], both.many_factory(make))
    assert both.remaining(key)[0] is None


async def test_should_cache_decides_for_each_value(both: Rig, key: str) -> None:
    a, b = keys = keys_of(key, "ab")
    client = both.texts()
    found = await client.get_or_compute_many(keys, recorder(both, []), should_cache=lambda value: value == "new a")
    assert found == {a: "new a", b: "new b"}
    assert [both.remaining(each)[0] for each in keys] == [b"new a", None]
    counts = client.statistics.computations
    assert (counts[Source.COMPUTED], counts[Source.UNSTORED]) == (1, 1)


async def test_values_that_change_meanwhile_are_not_replaced(both: Rig, key: str) -> None:
    a, b, _ = keys = keys_of(key, "abc")

    async def make(found: Sequence[str]) -> Mapping[str, str]:
        both.wire(f"md {a}\r\nms {b} 5 F2952790032\r\nother\r\n".encode())
        return dict.fromkeys(found, "new")

    assert await both.texts().get_or_compute_many(keys, both.many_factory(make)) == dict.fromkeys(keys, "new")
    assert [both.remaining(each)[0] for each in keys] == [None, b"other", b"new"]


async def test_a_call_waits_for_keys_that_others_compute(both: Rig, key: str) -> None:
    a, b = keys = keys_of(key, "ab")
    both.wire(f"mg {b} N30 v\r\n".encode())
    calls: list[list[str]] = []

    def hook(number: int, _: str) -> None:
        if number == 4:
            both.wire(f"ms {b} 5 F2952790032\r\nother\r\n".encode())

    both.transport.hook = hook
    found = await both.texts().get_or_compute_many(keys, recorder(both, calls))
    assert found == {a: "new a", b: "other"}
    assert calls == [[a]]


async def test_calls_of_one_process_share_their_keys(rig: Rig, key: str) -> None:
    client, calls, gate = rig.texts(), list[list[str]](), rig.gate()
    a, b, c = keys_of(key, "abc")

    async def make(keys: Sequence[str]) -> Mapping[str, str]:
        calls.append(list(keys))
        await gate.wait()
        return {each: f"new {each[-1]}" for each in keys}

    one = rig.start(lambda: client.get_or_compute_many([a, b], rig.many_factory(make)))
    while not calls:
        await asyncio.sleep(0.002)
    other = rig.start(lambda: client.get_or_compute_many([b, c], rig.many_factory(make)))
    single = rig.start(lambda: client.get_or_compute(a, rig.factory(never)))
    while len(calls) < 2:
        await asyncio.sleep(0.002)
    gate.open()
    assert await one == {a: "new a", b: "new b"}
    assert await other == {b: "new b", c: "new c"}
    assert await single == "new a"
    assert calls == [[a, b], [c]]


async def never() -> str:
    raise AssertionError("the factory of this test must not run")


async def test_after_the_wait_the_keys_are_computed_or_refused(both: Rig, key: str) -> None:
    a, b = keys = keys_of(key, "ab")
    client, calls = both.texts(), list[list[str]]()
    both.wire(f"mg {b} N30 v\r\n".encode())
    with pytest.raises(BusyError) as caught:
        await client.get_or_compute_many(keys, recorder(both, calls), policy=Stampede(wait=0.05, on_busy="raise"))
    assert caught.value.key == b
    assert both.remaining(b)[1] == "Z"
    with pytest.raises(Absent):
        await client.get_or_compute_many(keys, failing(both, Absent("no")), policy=Stampede(wait=0))
    assert both.remaining(b)[1] == "Z"  # the lease of another caller is not given back
    found = await client.get_or_compute_many(keys, recorder(both, calls), policy=Stampede(wait=0))
    assert found == {a: "new a", b: "new b"}
    assert calls == [[a], [b]]
    assert both.remaining(b)[0] == b"new b"


async def test_a_strict_client_leaves_undecodable_values_and_gives_leases_back(both: Rig, key: str) -> None:
    _, foreign, stale = keys = keys_of(key, "mfs")
    both.wire(f"ms {foreign} 1 F12345\r\nx\r\nms {stale} 1 F12345 T100\r\nx\r\nmd {stale} I\r\n".encode())
    with pytest.raises(DecodeError):
        await both.texts(on_undecodable="raise").get_or_compute_many(keys, recorder(both, []))
    assert [both.remaining(each)[:2] for each in keys] == [(None, ""), (b"x", ""), (b"x", "XW")]


async def test_a_part_that_fails_raises_and_gives_leases_back(both: Rig, key: str) -> None:
    large, small = keys = keys_of(key, "ls")

    async def make(found: Sequence[str]) -> Mapping[str, str]:
        return {each: "x" * 2_000_000 if each == large else "new" for each in found}

    with pytest.raises(BatchError) as caught:
        await both.texts().get_or_compute_many(keys, both.many_factory(make))
    assert set(caught.value.errors) == {large}
    assert caught.value.results[small] == "new"
    assert [both.remaining(each)[0] for each in keys] == [None, b"new"]


async def test_early_recomputation_of_many_keys(both: Rig, key: str) -> None:
    client, calls = both.texts(), list[list[str]]()
    keys = keys_of(key, "ab")
    for each in keys:
        await client.set(each, "old", ttl=30)
    policy = Stampede(refresh_ahead=timedelta(seconds=40), jitter=0.0)
    found = await client.get_or_compute_many(keys, recorder(both, calls), ttl=100, policy=policy)
    assert found == {keys[0]: "new a", keys[1]: "new b"}


@pytest.mark.alone
async def test_one_caller_of_a_process_looks_for_all(rig: Rig, key: str) -> None:
    """Calls for many keys and calls for one key share the looking."""
    texts, keys = rig.texts(), keys_of(key, "abc")
    for each in keys:
        rig.wire(f"mg {each} N30 v\r\n".encode())
    began = rig.transport.count
    calls = [rig.start(lambda: texts.get_or_compute_many(keys, rig.many_factory(never_many))) for _ in range(20)]
    single = [rig.start(lambda: texts.get_or_compute(keys[0], rig.factory(never))) for _ in range(10)]
    await until_waiting(texts, keys[0], 29)
    await asyncio.sleep(0.3)
    asked = rig.transport.count - began - 30
    assert asked < 40  # with 30 lookers it would be hundreds
    for each in keys:
        rig.wire(f"ms {each} 5 F2952790032\r\nother\r\n".encode())
    assert await asyncio.gather(*calls) == [dict.fromkeys(keys, "other")] * 20
    assert await asyncio.gather(*single) == ["other"] * 10
    assert await settled(texts) == 0


async def never_many(_: object) -> Mapping[str, str]:
    raise AssertionError("the factory of this test must not run")


async def test_a_key_whose_winner_gives_up_is_computed_while_another_is_waited_for(both: Rig, key: str) -> None:
    """The call waits for the first busy key; after a second it asks for all, and wins the other."""
    a, b = keys = keys_of(key, "ab")
    calls: list[list[str]] = []
    for each in keys:
        both.wire(f"mg {each} N30 v\r\n".encode())

    async def make(found: Sequence[str]) -> Mapping[str, str]:
        calls.append(list(found))
        both.wire(f"ms {a} 5 F2952790032\r\nother\r\n".encode())
        return dict.fromkeys(found, "new")

    policy = Stampede(wait=8)
    call = both.start(lambda: both.texts().get_or_compute_many(keys, both.many_factory(make), policy=policy))
    await asyncio.sleep(0.05)
    both.wire(f"md {b}\r\n".encode())
    assert await call == {a: "other", b: "new"}
    assert calls == [[b]]


async def test_a_looker_that_wins_computes(both: Rig, key: str) -> None:
    """The lease of another caller ends while this one looks."""
    a, b = keys = keys_of(key, "ab")
    calls: list[list[str]] = []
    both.wire(f"mg {a} N30 v\r\n".encode())
    both.transport.hook = lambda number, _: both.wire(f"md {a}\r\n".encode()) if number == 4 else None
    began = time.monotonic()
    assert await both.texts().get_or_compute_many(keys, recorder(both, calls)) == {a: "new a", b: "new b"}
    assert time.monotonic() - began < 5  # a win that is lost blocks the key for a lease
    assert calls == [[b], [a]]
    assert [both.remaining(each)[:2] for each in keys] == [(b"new a", ""), (b"new b", "")]


async def test_a_cache_that_fails_while_a_call_waits(both: Rig, key: str) -> None:
    a, b = keys = keys_of(key, "ab")
    calls: list[list[str]] = []
    both.wire(f"mg {a} N30 v\r\n".encode())

    def hook(number: int, head: str) -> None:
        if number >= 3 and not head.startswith("md"):
            raise ServerError("the server is out of order")

    both.transport.hook = hook
    found = await both.texts(on_error="miss").get_or_compute_many(keys, recorder(both, calls))
    assert found == {a: "new a", b: "new b"}
    assert calls == [[b], [a]]
    with pytest.raises(BatchError):
        await both.texts().get_or_compute_many(keys, recorder(both, calls))
