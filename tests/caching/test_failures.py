"""Servers that fail, values that cannot be stored or decoded, and factories that are too slow."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import pytest

from metacache import (
    AsyncClient,
    BatchError,
    Client,
    ClosedError,
    SerializationError,
    ServerError,
    Settings,
    Source,
    Stampede,
    TransportError,
    ValueTooLargeError,
)
from metacache.operations import requests
from metacache.serializers import IntSerializer, StrSerializer
from metacache.testing import FakeServer, FakeTransport, Memcached
from tests.caching.rig import Rig
from tests.conftest import start

Policy = Literal["raise", "miss", "ignore"]
QUICK: Final = Settings(timeout=0.2, connect_timeout=0.2, pool_size=64)
LARGE: Final = "x" * 2_000_000


class Absent(LookupError):
    """A failure of a factory."""


def counted(rig: Rig, runs: list[int], value: str = "new") -> Any:  # Any: a factory of either client
    async def make() -> str:
        runs.append(1)
        return value

    return rig.factory(make)


@pytest.mark.parametrize("failure", ["killed", "frozen"])
async def test_a_cache_that_fails_raises_without_running_the_factory(
    kind: str, memcached: Memcached, failure: str
) -> None:
    rig, runs = Rig(kind, memcached.node, QUICK), list[int]()
    end(memcached, failure)
    with pytest.raises(TransportError):
        await rig.texts().get_or_compute("k", counted(rig, runs))
    with pytest.raises(BatchError):
        await rig.texts().get_or_compute_many(["k"], many(rig, runs))
    assert not runs
    await rig.aclose()


def end(memcached: Memcached, failure: str) -> None:
    memcached.kill() if failure == "killed" else memcached.freeze()


def many(rig: Rig, runs: list[int]) -> Any:  # Any: a factory of either client
    async def make(keys: Sequence[str]) -> Mapping[str, str]:
        runs.append(len(keys))
        return dict.fromkeys(keys, "new")

    return rig.many_factory(make)


@pytest.mark.parametrize("on_error", ["miss", "ignore"])
@pytest.mark.parametrize("failure", ["killed", "frozen"])
async def test_a_cache_that_fails_is_a_computation_without_a_store(
    kind: str, memcached: Memcached, failure: str, on_error: Policy
) -> None:
    rig, runs = Rig(kind, memcached.node, QUICK), list[int]()
    client = rig.texts(on_error=on_error)
    end(memcached, failure)
    found = await client.get_or_compute_item("k", counted(rig, runs))
    assert (found.value, found.source) == ("new", Source.UNSTORED)
    assert await client.get_or_compute_many(["a", "b"], many(rig, runs)) == {"a": "new", "b": "new"}
    assert runs == [1, 2]
    assert client.statistics.computations == {Source.UNSTORED: 3}
    await rig.aclose()


async def test_without_a_cache_one_caller_of_a_process_computes(kind: str, memcached: Memcached) -> None:
    rig, runs, gate = Rig(kind, memcached.node, QUICK), list[int](), None
    client, gate = rig.texts(on_error="miss"), rig.gate()
    memcached.kill()

    async def make() -> str:
        runs.append(1)
        await gate.wait()
        return "new"

    async def make_many(keys: Sequence[str]) -> Mapping[str, str]:
        return dict.fromkeys(keys, await make())

    calls = [rig.start(lambda: client.get_or_compute("k", rig.factory(make))) for _ in range(10)]
    await asyncio.sleep(0.3)
    batch = rig.start(lambda: client.get_or_compute_many(["k"], rig.many_factory(make_many)))
    await asyncio.sleep(0.3)
    gate.open()
    assert await asyncio.gather(*calls) == ["new"] * 10
    assert await batch == {"k": "new"}
    assert len(runs) == 1
    await rig.aclose()


async def test_the_exception_of_a_factory_without_a_cache_has_no_other_cause(kind: str, memcached: Memcached) -> None:
    rig = Rig(kind, memcached.node, QUICK)
    memcached.kill()
    error = Absent("no")

    async def fail() -> str:
        raise error

    with pytest.raises(Absent) as caught:
        await rig.texts(on_error="miss").get_or_compute("k", rig.factory(fail))
    assert caught.value is error
    assert error.__context__ is None
    await rig.aclose()


@pytest.mark.parametrize("on_error", ["raise", "miss", "ignore"])
async def test_a_server_that_is_killed_while_the_factory_runs(
    kind: str, memcached: Memcached, on_error: Policy
) -> None:
    rig = Rig(kind, memcached.node, QUICK)
    client = rig.texts(on_error=on_error)

    async def make() -> str:
        memcached.kill()
        return "new"

    if on_error == "raise":
        with pytest.raises(TransportError):
            await client.get_or_compute("k", rig.factory(make))
    else:
        found = await client.get_or_compute_item("k", rig.factory(make))
        assert (found.value, found.source) == ("new", Source.UNSTORED)
        assert sum(client.errors_as_misses.values()) == 1
    await rig.aclose()


async def test_a_failing_factory_raises_its_own_exception_when_the_server_is_gone(
    kind: str, memcached: Memcached
) -> None:
    rig = Rig(kind, memcached.node, QUICK)

    async def fail() -> str:
        memcached.kill()
        raise Absent

    with pytest.raises(Absent):
        await rig.texts().get_or_compute("k", rig.factory(fail))
    await rig.aclose()


@pytest.mark.parametrize("on_error", ["raise", "miss", "ignore"])
async def test_a_value_that_is_too_large(both: Rig, key: str, on_error: Policy) -> None:
    client, runs = both.texts(on_error=on_error), list[int]()
    if on_error == "raise":
        with pytest.raises(ServerError, match="too large"):
            await client.get_or_compute(key, counted(both, runs, LARGE))
    else:
        found = await client.get_or_compute_item(key, counted(both, runs, LARGE))
        assert (len(found.value), found.source) == (len(LARGE), Source.UNSTORED)
        assert client.errors_as_misses["ServerError"] == 1
    assert both.remaining(key)[0] is None
    assert len(runs) == 1


@pytest.mark.parametrize("on_error", ["raise", "miss", "ignore"])
async def test_a_value_that_is_too_large_for_the_protocol(
    both: Rig, key: str, on_error: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "MAX_BODY", 3)  # it is gigabytes
    client, runs = both.texts(on_error=on_error), list[int]()
    ask = client.get_or_compute(key, counted(both, runs, "large"))
    ask_many = client.get_or_compute_many([key, key + "s"], sized(both))
    if on_error == "raise":
        for each in (ask, ask_many):
            with pytest.raises(ValueTooLargeError):
                await each
        assert both.remaining(key + "s")[0] is None
    else:
        assert await ask == "large"
        assert await ask_many == {key: "large", key + "s": "s"}
        assert client.errors_as_misses["ValueTooLargeError"] == 2
        assert both.remaining(key + "s")[0] == b"s"
    assert both.remaining(key)[0] is None


def sized(rig: Rig) -> Any:  # Any: a factory of either client
    async def make(keys: Sequence[str]) -> Mapping[str, str]:
        return {key: "s" if key.endswith("s") else "large" for key in keys}

    return rig.many_factory(make)


async def test_a_server_without_cas_is_refused_and_its_lease_removed(kind: str) -> None:
    with start("-C") as server:
        rig, runs = Rig(kind, server.node), list[int]()
        for on_error in ("raise", "miss"):
            client = rig.texts(on_error=on_error)
            with pytest.raises(ServerError, match="without CAS"):
                await client.get_or_compute("k", counted(rig, runs))
            assert rig.remaining("k")[0] is None
            with pytest.raises(ServerError, match="without CAS"):
                await client.get_or_compute_many(["k", "m"], many(rig, runs))
            assert rig.remaining("k")[0] is None
            assert rig.remaining("m")[0] is None
        assert not runs
        await rig.aclose()


async def test_values_of_another_serializer_are_replaced_once_by_many_readers(
    rig: Rig, texts: AsyncClient[str], key: str
) -> None:
    await rig.make(IntSerializer()).set(key, 5)
    runs: list[int] = []

    async def make() -> str:
        runs.append(1)
        await rig.sleep(0.05)
        return "new"

    found = await rig.together([lambda: texts.get_or_compute(key, rig.factory(make)) for _ in range(64)])
    assert found == ["new"] * 64
    assert len(runs) == 1
    assert rig.remaining(key)[0] == b"new"


class Stubborn:
    """A serializer that refuses a value."""

    wire_id = 16
    fingerprint = 0

    def dumps(self, value: str, /) -> bytes:
        if value == "bad":
            raise ValueError("this value is refused")
        return value.encode()

    def loads(self, data: bytes, /) -> str:
        return data.decode()


async def test_a_serializer_that_fails_gives_the_lease_back(both: Rig, key: str) -> None:
    client = both.make(Stubborn())
    runs: list[int] = []
    with pytest.raises(SerializationError):
        await client.get_or_compute(key, counted(both, runs, "bad"))
    assert both.remaining(key)[0] is None
    assert client.statistics.factory_failures == {"SerializationError": 1}
    assert await client.get_or_compute(key, counted(both, runs, "good")) == "good"


async def test_a_factory_slower_than_its_lease_is_not_stored_and_logged_once(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    now = [1_700_000_000.0]
    rig = Rig(kind, FakeServer(lambda: now[0]))
    client = rig.texts()
    elapsed = [0.0]

    async def make() -> str:
        now[0] += 3.0
        await rig.sleep(1.1)
        return "new"

    del elapsed
    for key in ("a", "b"):
        found = await client.get_or_compute_item(key, rig.factory(make), policy=Stampede(lease=2))
        assert found.source is Source.UNSTORED
        assert rig.remaining(key)[0] is None
    logged = [each for each in caplog.records if "longer than its lease" in each.message]
    assert len(logged) == 1
    assert logged[0].levelno == logging.WARNING
    assert "make" in logged[0].message or "factory" in logged[0].message


def stop(*_: object) -> Any:  # Any: a factory of any client
    raise StopIteration(5)


async def test_the_class_of_a_failure_is_that_of_the_factory(kind: str) -> None:
    """A coroutine turns a StopIteration into a RuntimeError; counts and ``stale_on`` go by what the factory raised."""
    rig = Rig(kind, FakeServer())
    client = rig.texts()
    rig.wire(b"mg busy N30 v\r\n")
    for call in (
        client.get_or_compute("k", stop),
        client.get_or_compute("busy", stop, policy=Stampede(wait=0)),
        client.get_or_compute_many(["k"], stop),
    ):
        with pytest.raises(RuntimeError) as caught:
            await call
        assert isinstance(caught.value.__cause__, StopIteration)
        assert rig.remaining("k")[0] is None
    assert client.statistics.factory_failures == {"StopIteration": 3}
    await client.set("k", "old", ttl=100)
    await client.invalidate("k", stale_for=100)
    assert await client.get_or_compute("k", stop, policy=Stampede(stale_on=(StopIteration,))) == "old"


def test_a_blocking_client_raises_the_stop_iteration_of_a_factory() -> None:
    client = Client(FakeTransport())
    for call in (client.get_or_compute, client.get_or_compute_item):
        with pytest.raises(StopIteration) as caught:
            call("k", stop)
        assert caught.value.value == 5


async def test_a_refresh_ahead_that_outlasts_the_old_value_is_not_stored(kind: str) -> None:
    """When the old value expires, another caller computes; the older result does not replace the newer one."""
    now = [1_700_000_000.0]
    rig = Rig(kind, FakeServer(lambda: now[0]))
    client = rig.texts()
    policy = Stampede(refresh_ahead=0.4, jitter=0.0, wait=0)
    await client.set("k", "old", ttl=10)
    now[0] += 7

    async def slow() -> str:
        found = await client.get_or_compute_item("k", counted(rig, [], "other"), ttl=10, policy=policy)
        assert (found.value, found.source) == ("old", Source.HIT)
        now[0] += 4  # the old value has expired; the lease of 10 seconds has not ended
        found = await client.get_or_compute_item("k", counted(rig, [], "newer"), ttl=10, policy=policy)
        assert (found.value, found.source) == ("newer", Source.COMPUTED)
        return "older"

    # A client of its own: in one client the factory of a key cannot ask for the key.
    found = await rig.texts().get_or_compute_item("k", rig.factory(slow), ttl=10, policy=policy)
    assert (found.value, found.source) == ("older", Source.UNSTORED)
    assert rig.remaining("k")[0] == b"newer"


async def test_an_old_value_that_covers_a_failure_is_logged(
    both: Rig, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    await both.texts().set(key, "old", ttl=100)
    both.wire(f"md {key} I\r\n".encode())

    async def fail() -> str:
        raise Absent("secret")

    client = both.texts()
    assert await client.get_or_compute(key, both.factory(fail)) == "old"
    assert "Absent" in caplog.text
    assert "an old value is served" in caplog.text
    assert "secret" not in caplog.text
    assert key not in caplog.text
    assert client.statistics.factory_failures == {"Absent": 1}
    assert client.statistics.computations == {Source.STALE: 1}


async def test_a_factory_that_closes_its_client(kind: str) -> None:
    server = FakeServer()
    rig = Rig(kind, server)
    client = rig.make(StrSerializer(), prefix="")
    owner = rig.texts()

    async def make() -> str:
        await rig.close_transport()
        return "new"

    with pytest.raises(ClosedError):
        await client.get_or_compute("k", rig.factory(make))
    with pytest.raises(ClosedError):
        await owner.get_or_compute("k", rig.factory(make))
    again = Rig(kind, server)
    found = await again.texts().get_or_compute_item("k", counted(again, []), policy=Stampede(wait=0.05))
    assert found.value == "new"


async def test_a_closed_client_computes_nothing(kind: str) -> None:
    rig, runs = Rig(kind, FakeServer()), list[int]()
    for on_error in ("raise", "miss", "ignore"):
        client = rig.texts(on_error=on_error)
        await client.aclose()
        with pytest.raises(ClosedError):
            await client.get_or_compute("k", counted(rig, runs))
        with pytest.raises(ClosedError):
            await client.get_or_compute_many(["k"], many(rig, runs))
    assert not runs


async def test_old_values_are_served_while_one_caller_computes_with_a_moved_clock(kind: str) -> None:
    """The life of a value: fresh, then served stale, then gone."""
    now = [1_700_000_000.0]
    rig = Rig(kind, FakeServer(lambda: now[0]))
    client, runs = rig.texts(), list[int]()
    policy = Stampede(serve_stale=60, refresh_ahead=0, jitter=0.0, wait=0)

    async def source(value: str) -> tuple[str, Source]:
        found = await client.get_or_compute_item("k", counted(rig, runs, value), ttl=100, policy=policy)
        return found.value, found.source

    assert await source("1") == ("1", Source.COMPUTED)
    now[0] += 99
    assert await source("2") == ("1", Source.HIT)
    now[0] += 2
    rig.wire(b"mg k v R61\r\n")  # another caller wins
    assert await source("2") == ("1", Source.STALE)
    now[0] += 60
    assert await source("3") == ("3", Source.COMPUTED)
    assert len(runs) == 2
