"""Callers in one process share a computation: threads of a blocking client, tasks of an asyncio client."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import signal
import threading
import time
from types import FrameType

import pytest

from metacache import AsyncClient, BusyError, Client, Source, Stampede
from metacache.caching.flights import Flight, Flights
from metacache.client.core import Core
from metacache.testing import FakeServer, FakeTransport
from tests.caching.rig import Rig


class Absent(LookupError):
    """A failure of a factory."""


class Stop(BaseException):
    """An exception that is not an Exception."""


class HandlerError(Exception):
    """What a signal handler raises."""


def core_of(client: object) -> Core[str]:
    core: Core[str] = getattr(getattr(client, "_client", client), "_core")  # noqa: B009 - of either client
    return core


def flights_of(client: object) -> Flights[object]:
    """Return the flights of *client* in this thread or loop. A flight in a reference cycle goes with the collector."""
    gc.collect()
    loop = None if hasattr(client, "_client") else asyncio.get_running_loop()
    found: Flights[object] = core_of(client).shared.get().flights.of(loop)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]  # only counted
    return found


async def settled(client: object) -> int:
    """Return the number of flights, once the frames of ended calls are gone."""
    for _ in range(50):
        if not len(flights_of(client)):
            return 0
        await asyncio.sleep(0.01)
    return len(flights_of(client))


async def until_waiting(client: object, key: str, listeners: int) -> None:
    """Wait until *listeners* callers wait for a flight of *key*."""
    for _ in range(1000):
        loop = None if hasattr(client, "_client") else asyncio.get_running_loop()
        known = [
            ref()
            for (raw, _, _), ref in core_of(client).shared.get().flights.of(loop)._known.copy().items()
            if raw == key.encode()
        ]
        if sum(len(each._listeners) for each in known if each is not None) >= listeners:
            return
        await asyncio.sleep(0.005)
    raise AssertionError("the callers do not wait")


async def test_fifty_callers_run_one_factory(rig: Rig, texts: AsyncClient[str], key: str) -> None:
    runs, gate = list[int](), rig.gate()

    async def make() -> str:
        runs.append(1)
        await gate.wait()
        return "new"

    calls = [rig.start(lambda: texts.get_or_compute_item(key, rig.factory(make))) for _ in range(50)]
    await until_waiting(texts, key, 49)
    gate.open()
    found = await asyncio.gather(*calls)
    assert len(runs) == 1
    assert {each.value for each in found} == {"new"}
    sources = [each.source for each in found]
    assert sources.count(Source.COMPUTED) == 1
    assert sources.count(Source.WAITED) == 49
    assert await settled(texts) == 0


@pytest.mark.alone
async def test_waiters_wake_when_the_factory_ends(rig: Rig, texts: AsyncClient[str], key: str) -> None:
    gate, ended = rig.gate(), list[float]()

    async def make() -> str:
        await gate.wait()
        ended.append(time.monotonic())
        return "new"

    async def wait() -> float:
        await texts.get_or_compute(key, rig.factory(make))
        return time.monotonic()

    calls = [rig.start(wait) for _ in range(8)]
    await until_waiting(texts, key, 7)
    gate.open()
    latest = max(await asyncio.gather(*calls))
    assert latest - ended[0] < 0.5  # a waiter that only asks again each second takes longer, most of the time


async def test_all_who_joined_get_the_exception_of_the_factory(rig: Rig, texts: AsyncClient[str], key: str) -> None:
    runs, gate, error = list[int](), rig.gate(), Absent("no")

    async def fail() -> str:
        runs.append(1)
        await gate.wait()
        raise error

    calls = [rig.start(lambda: texts.get_or_compute(key, rig.factory(fail))) for _ in range(8)]
    await until_waiting(texts, key, 7)
    gate.open()
    failures = await asyncio.gather(*calls, return_exceptions=True)
    assert all(each is error for each in failures)
    assert len(runs) == 1
    assert rig.remaining(key)[0] is None
    error.__traceback__ = None
    del failures, calls
    assert await settled(texts) == 0


async def test_an_exception_that_is_no_exception_reaches_only_its_owner(
    rig: Rig, texts: AsyncClient[str], key: str
) -> None:
    runs, gate = list[int](), rig.gate()

    async def make() -> str:
        runs.append(1)
        if len(runs) == 1:
            await gate.wait()
            raise Stop
        return "new"

    async def caught() -> str:
        try:
            return await texts.get_or_compute(key, rig.factory(make))
        except Stop:
            return "stopped"

    calls = [rig.start(caught) for _ in range(8)]
    await until_waiting(texts, key, 7)
    gate.open()
    assert sorted(await asyncio.gather(*calls)) == ["new"] * 7 + ["stopped"]
    assert len(runs) == 2
    assert await settled(texts) == 0


async def test_a_cancelled_winner_leaves_the_computation_to_another_waiter(key: str) -> None:
    rig = Rig("asyncio", FakeServer())
    texts, ran = rig.texts(), list[str]()
    gate = rig.gate()

    async def first() -> str:
        ran.append("first")
        await asyncio.sleep(60)
        return "first"

    async def second() -> str:
        ran.append("second")
        await gate.wait()
        return "second"

    winner = rig.start(lambda: texts.get_or_compute(key, first))
    await until_running(ran)
    others = [rig.start(lambda: texts.get_or_compute(key, second)) for _ in range(5)]
    await until_waiting(texts, key, 5)
    winner.cancel()
    with pytest.raises(asyncio.CancelledError):
        await winner
    gate.open()
    assert await asyncio.gather(*others) == ["second"] * 5
    assert ran == ["first", "second"]
    assert await settled(texts) == 0


async def test_a_winner_that_times_out_leaves_the_computation_to_another_waiter(key: str) -> None:
    rig = Rig("asyncio", FakeServer())
    texts, ran = rig.texts(), list[str]()

    async def first() -> str:
        ran.append("first")
        await asyncio.sleep(60)
        return "first"

    async def second() -> str:
        ran.append("second")
        return "second"

    async def limited() -> str:
        async with asyncio.timeout(0.1):
            return await texts.get_or_compute(key, first)

    winner = rig.start(limited)
    await until_running(ran)
    others = [rig.start(lambda: texts.get_or_compute(key, second)) for _ in range(5)]
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await winner
    del winner  # its exception keeps the frames of the call, and these the flight
    assert await asyncio.gather(*others) == ["second"] * 5
    assert time.monotonic() - began < 5  # not after the lease
    assert ran == ["first", "second"]
    assert await settled(texts) == 0
    assert len(asyncio.all_tasks()) == 1


async def until_running(ran: list[str]) -> None:
    while not ran:
        await asyncio.sleep(0)


async def test_a_cancelled_looker_leaves_the_looking_to_another_waiter(key: str) -> None:
    rig = Rig("asyncio", FakeServer())
    texts = rig.texts()
    rig.wire(f"mg {key} N30 v\r\n".encode())

    async def never() -> str:
        raise AssertionError("it must not run")

    calls = [rig.start(lambda: texts.get_or_compute(key, never)) for _ in range(4)]
    await until_waiting(texts, key, 3)
    calls[0].cancel()
    await asyncio.sleep(0.05)
    rig.wire(f"ms {key} 5 F2952790032\r\nother\r\n".encode())
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1:] == ["other"] * 3
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.alone
async def test_one_caller_of_a_process_looks_for_all(rig: Rig, texts: AsyncClient[str], key: str) -> None:
    rig.wire(f"mg {key} N30 v\r\n".encode())

    async def never() -> str:
        raise AssertionError("it must not run")

    began = rig.transport.count
    calls = [rig.start(lambda: texts.get_or_compute(key, rig.factory(never))) for _ in range(30)]
    await until_waiting(texts, key, 29)
    await asyncio.sleep(0.3)
    asked = rig.transport.count - began - 30
    assert asked < 40  # with 30 lookers it would be hundreds
    rig.wire(f"ms {key} 5 F2952790032\r\nother\r\n".encode())
    assert await asyncio.gather(*calls) == ["other"] * 30


async def test_a_caller_that_comes_after_a_delete_does_not_join(rig: Rig, texts: AsyncClient[str], key: str) -> None:
    gate, late = rig.gate(), rig.gate()

    async def old() -> str:
        await gate.wait()
        return "old"

    async def new() -> str:
        await late.wait()
        return "new"

    first = rig.start(lambda: texts.get_or_compute_item(key, rig.factory(old)))
    while rig.wire(f"mg {key} s\r\n".encode()).startswith(b"EN"):
        await asyncio.sleep(0.005)
    await texts.delete(key)
    second = rig.start(lambda: texts.get_or_compute_item(key, rig.factory(new)))
    while rig.wire(f"mg {key} s\r\n".encode()).startswith(b"EN"):
        await asyncio.sleep(0.005)
    gate.open()
    found = await first
    assert (found.value, found.source) == ("old", Source.UNSTORED)
    late.open()
    assert (await second).value == "new"
    assert rig.remaining(key)[0] == b"new"


async def test_after_the_wait_one_caller_of_a_process_computes(rig: Rig, texts: AsyncClient[str], key: str) -> None:
    rig.wire(f"mg {key} N30 v\r\n".encode())
    runs, gate = list[int](), rig.gate()

    async def make() -> str:
        runs.append(1)
        await gate.wait()
        return "new"

    policy = Stampede(wait=0.1)
    calls = [rig.start(lambda: texts.get_or_compute(key, rig.factory(make), policy=policy)) for _ in range(10)]
    await asyncio.sleep(0.4)
    gate.open()
    assert await asyncio.gather(*calls) == ["new"] * 10
    assert len(runs) == 1


async def test_waiting_ends_with_busy_error(rig: Rig, texts: AsyncClient[str], key: str) -> None:
    gate = rig.gate()

    async def make() -> str:
        await gate.wait()
        return "new"

    policy = Stampede(wait=0.1, on_busy="raise")
    winner = rig.start(lambda: texts.get_or_compute(key, rig.factory(make)))
    while rig.wire(f"mg {key} s\r\n".encode()).startswith(b"EN"):
        await asyncio.sleep(0.005)
    began = time.monotonic()
    with pytest.raises(BusyError) as caught:
        await rig.start(lambda: texts.get_or_compute(key, rig.factory(make), policy=policy))
    assert caught.value.key == key
    assert 0.05 < time.monotonic() - began < 5
    gate.open()
    assert await winner == "new"


def test_a_signal_in_the_factory_concerns_its_thread_only() -> None:
    """The main thread computes and its handler raises; the waiting thread computes then, and gets no such error."""
    client = Client(FakeTransport(), owns=True)
    found: list[object] = []
    runs: list[str] = []

    def handler(_: int, __: FrameType | None) -> None:
        raise HandlerError("a handler")

    def make() -> bytes:
        runs.append(threading.current_thread().name)
        if len(runs) == 1:
            waiter.start()
            while not waiting():
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(5)
        return b"new"

    def waiting() -> bool:
        flights = [ref() for ref in client._core.shared.get().flights.of()._known.values()]
        return any(each is not None and each._listeners for each in flights)

    waiter = threading.Thread(target=lambda: found.append(client.get_or_compute("k", make)))
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(HandlerError):
            client.get_or_compute("k", make)
    finally:
        signal.signal(signal.SIGUSR1, before)
    waiter.join(10)
    assert found == [b"new"]
    assert len(runs) == 2
    assert client.statistics.factory_failures == {}


def test_a_forked_child_has_no_flights() -> None:
    """A thread of the parent computes; the child, where that thread does not exist, does not wait for it."""
    client = Client(FakeTransport())
    started, gate = threading.Event(), threading.Event()

    def make() -> bytes:
        started.set()
        gate.wait(10)
        return b"new"

    thread = threading.Thread(target=lambda: client.get_or_compute("k", make))
    thread.start()
    assert started.wait(10)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, b"%d" % len(client._core.shared.get().flights.of()))
        os._exit(0)
    os.close(writer)
    assert os.read(reader, 10) == b"0"
    os.close(reader)
    os.waitpid(child, 0)
    assert len(client._core.shared.get().flights.of()) == 1
    gate.set()
    thread.join(10)


def test_a_flight_ends_with_its_owner() -> None:
    flights: Flights[str] = Flights()
    flight, is_owner = flights.start((b"k", 1, "compute"))
    assert is_owner
    assert flights.start((b"k", 1, "compute")) == (flight, False)
    del flight
    assert len(flights) == 0
    assert flights.start((b"k", 1, "compute"))[1]


def test_no_python_code_runs_when_a_flight_is_freed() -> None:
    """Python ignores what a signal handler raises in the callback of a weak reference. So that is a C method."""
    flights: Flights[str] = Flights()
    flight, _ = flights.start((b"k", 1, "compute"))
    (known,) = flights._known.values()
    assert inspect.isbuiltin(known.__callback__)
    del flight
    assert known() is None
    assert flights.find((b"k", 1, "compute")) is None
    other, is_owner = flights.start((b"other", 1, "compute"))  # forgets the ended one
    assert is_owner
    assert list(flights._known) == [(b"other", 1, "compute")]
    del other


def test_a_listener_is_called_when_the_flight_has_ended_before() -> None:
    flight: Flight[str] = Flight()
    flight.finish("value")
    flight.finish("other")
    calls: list[int] = []
    flight.listen(lambda: calls.append(1))
    assert calls
    assert flight.result == "value"


def test_flights_start_once_in_many_threads() -> None:
    flights: Flights[str] = Flights()
    owned: list[Flight[str]] = []
    barrier = threading.Barrier(16)

    def race() -> None:
        for number in range(200):
            barrier.wait()
            flight, is_owner = flights.start((b"k", number, "compute"))
            if is_owner:
                owned.append(flight)

    threads = [threading.Thread(target=race) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(owned) == 200


async def test_flights_of_tasks_belong_to_their_loop() -> None:
    server = FakeServer()
    rig = Rig("asyncio", server)
    texts = rig.texts()
    gate = rig.gate()

    async def make() -> str:
        await gate.wait()
        return "new"

    call = rig.start(lambda: texts.get_or_compute("k", make))
    await asyncio.sleep(0.01)
    assert len(flights_of(texts)) == 1

    def elsewhere() -> int:
        async def count() -> int:
            return len(flights_of(texts))

        return asyncio.run(count())

    assert await asyncio.to_thread(elsewhere) == 0
    gate.open()
    assert await call == "new"
