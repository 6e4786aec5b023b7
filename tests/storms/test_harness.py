"""The harness of the storms notices what it looks for: foreign values, lateness, leases, double writes, growth."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, final

import pytest

import storms.lag
from metacache import Connection, MetacacheError, NodeDownError, OperationTimeout, ProtocolError
from metacache.client.blocking import Client
from metacache.testing import Memcached
from storms import aio, measures, rests, stolen
from storms.canary import ForeignValue, canary, check_canary
from storms.chaos import forked
from storms.fleet import fleet
from storms.lag import FirstStep, LoopLag, SleeperLag, ThreadLag
from storms.loop_signals import LoopInterruptions, _is_in_client
from storms.measures import Limits, Progress, Result
from storms.memory import NAMES, Growth, Memory, collected, growth
from storms.proxy import CuttingProxy
from storms.raw import leases, open_connections
from storms.report import criteria, summary
from storms.rests import Rests
from storms.signals import RAISED, Interruptions
from storms.steps import Clients, Step
from storms.tally import Tally
from storms.waits import environment


def test_a_canary_belongs_to_its_key_whole() -> None:
    value = canary("key:1", 5, 7, random.Random(3))
    check_canary("key:1", value)
    check_canary("key:1", None)
    wrong = [b"", b"key:1", value[:-1] or b"x", value + b"x", b"x" + value, value.replace(b"|7|", b"|8|")]
    for each in wrong:
        with pytest.raises(ForeignValue):
            check_canary("key:1", each)
    with pytest.raises(ForeignValue):
        check_canary("key:2", value)


@final
class Known:
    """A lag of that many seconds in every operation."""

    worst = 0.0

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def mark(self) -> float:
        return 0.0

    def beyond(self, _: float, deadline: float, /) -> float:
        return time.monotonic() - deadline - self._seconds


@pytest.mark.parametrize(("lag", "late"), [(0.0, 1), (0.1, 1), (0.18, 0), (5.0, 0)])
def test_a_late_call_is_a_fault_unless_the_machine_was_late(lag: float, late: int) -> None:
    tally = Tally()
    tally.timed("get", 1.0, time.monotonic() - 0.2, Known(lag), 0.0)
    assert (tally.over, tally.late, len(tally.faults)) == (1, late, late)


MEASURED: Final = """
import json, threading, time
from storms.waits import measure

waited = measure()

def spin(results):
    mark, began, ran = waited(), time.monotonic(), time.thread_time()
    while time.monotonic() < began + 1.0:
        pass
    results.append((time.monotonic() - began, time.thread_time() - ran, waited() - mark))

def rest(results):
    mark, lock = waited(), threading.Lock()
    lock.acquire()
    began, ran = time.monotonic(), time.thread_time()
    lock.acquire(timeout=0.5)
    time.sleep(0.5)
    results.append((time.monotonic() - began, time.thread_time() - ran, waited() - mark))

spun, rested = [], []
for work, results, count in ((spin, spun, 3), (rest, rested, 1)):
    threads = [threading.Thread(target=work, args=(results,)) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print(json.dumps([spun, rested]))
"""


def test_a_thread_knows_how_long_it_waited_for_the_machine() -> None:
    has_compiler = "LD_PRELOAD" in environment()
    if not has_compiler:
        pytest.skip("there is no C compiler")
    ran = subprocess.run(
        [sys.executable, "-c", MEASURED], check=True, capture_output=True, env=environment(), timeout=50.0
    )
    spun, rested = json.loads(ran.stdout)
    for wall, processor, waited in spun:
        assert wall - processor - waited == pytest.approx(0.0, abs=0.1)
        assert waited > wall / 3, "three threads share one interpreter"
    # A wait for a lock or for time is not a wait for the machine, but the machine may be late at its end.
    [(wall, processor, waited)] = rested
    assert wall - processor - waited == pytest.approx(1.0, abs=0.1)


STALLED: Final = """
import json, os, time
from storms.lag import ThreadLag
from storms.waits import watch

stalled = watch()
assert watch()(0.0) == stalled(0.0)
lag = ThreadLag(lambda: 0.0)
lag.start()
time.sleep(0.1)
began = time.monotonic()
print("ready", flush=True)
input()  # until the process was stopped and continued
found = [stalled(began), stalled(began), stalled(time.monotonic()), lag.beyond(0.0, began) - (time.monotonic() - began)]
reader, writer = os.pipe()
if not os.fork():
    began = time.monotonic()
    time.sleep(0.1)
    os.write(writer, json.dumps([stalled(began)]).encode())
    os._exit(0)
print(json.dumps([*found, *json.loads(os.read(reader, 100))]))
"""


def test_a_stall_of_the_whole_machine_is_lag_and_a_child_has_none() -> None:
    if "LD_PRELOAD" not in environment():
        pytest.skip("there is no C compiler")
    pause = 0.3
    with subprocess.Popen(
        [sys.executable, "-c", STALLED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(pause)
        process.send_signal(signal.SIGCONT)
        time.sleep(0.1)
        process.stdin.write(b"\n")
        process.stdin.flush()
        stalled, again, later, beyond, child = json.loads(process.stdout.readline())
    assert stalled == again == pytest.approx(pause, abs=0.1)
    assert beyond == pytest.approx(-pause, abs=0.1)
    assert later == pytest.approx(0.0, abs=0.05)
    assert child == pytest.approx(0.0, abs=0.05)


def steal(stat: Path, seconds: float) -> None:
    """Let *stat* say that the host has stolen so much time since the machine started."""
    stat.write_text(f"cpu  1 2 3 4 5 6 7 {seconds / stolen.TICK:.0f} 0 0\ncpu0 0 0 0 0 0 0 0 0 0 0\n")


@pytest.mark.parametrize(("before", "after"), [(0.0, 0.0), (0.2, 0.0), (0.0, 0.2), (0.1, 0.3)])
def test_time_that_the_host_stole_after_the_deadline_is_lag(
    before: float, after: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = tmp_path / "stat"
    steal(stat, 5.0)
    monkeypatch.setattr(stolen, "STAT", stat)
    monkeypatch.setattr(stolen, "INTERVAL", 0.001)
    lag = ThreadLag(lambda: 0.0)
    lag.start()
    try:
        steal(stat, 5.0 + before)
        time.sleep(0.1)
        deadline = time.monotonic()
        steal(stat, 5.0 + before + after)
        time.sleep(0.3)
        beyond = lag.beyond(lag.mark(), deadline)
        assert beyond == pytest.approx(time.monotonic() - deadline - after, abs=0.05)
    finally:
        lag.stop()


@pytest.mark.parametrize("stat", [None, "", "cpu  1 2 3 4\n"], ids=["missing", "empty", "old"])
def test_a_machine_that_does_not_count_stolen_time_has_none(
    stat: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "stat"
    if stat is not None:
        path.write_text(stat)
    monkeypatch.setattr(stolen, "STAT", path)
    lag = ThreadLag(lambda: 0.0)
    assert lag.beyond(lag.mark(), time.monotonic() - 1.0) == pytest.approx(1.0, abs=0.3)  # not started
    lag.start()
    assert lag.beyond(lag.mark(), time.monotonic() - 1.0) == pytest.approx(1.0, abs=0.3)
    lag.stop()


def threads_called(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


def test_a_lag_that_is_stopped_has_no_thread_that_opens_descriptors() -> None:
    lag = ThreadLag(lambda: 0.0)
    lag.stop()  # not started: nothing happens
    lag = ThreadLag(lambda: 0.0)
    lag.start()
    assert threads_called("stolen")
    lag.stop()
    assert not threads_called("stolen")


def test_the_work_of_a_child_leaves_no_thread_in_the_process_that_tries_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storms.lag, "measure", lambda: lambda: 0.0)
    with fleet(is_tls=False) as servers:
        aio._in_child(servers, seed=1)
    assert not threads_called("stolen")


def test_a_sleeper_sees_that_a_thread_keeps_the_interpreter() -> None:
    lag = SleeperLag()
    lag.start()
    time.sleep(0.02)
    began = time.monotonic()
    sum(range(20_000_000))  # one call of C, which releases nothing
    seconds = time.monotonic() - began
    beyond = lag.beyond(lag.mark(), began)
    lag.stop()
    assert beyond < seconds / 2


def count(seconds: float) -> None:
    """Keep the interpreter busy for about that long."""
    sum(range(round(seconds * 10**8)))


@pytest.mark.parametrize("block", [time.sleep, count], ids=["sleep", "count"])
def test_the_lag_of_a_loop_is_what_makes_its_tasks_late(block: Callable[[float], object]) -> None:
    async def scenario() -> float:
        lag = LoopLag()
        measuring = asyncio.create_task(lag.measure())
        await asyncio.sleep(0.05)
        began = time.monotonic()
        block(0.2)
        late = time.monotonic() - began
        beyond = lag.beyond(lag.mark(), began)
        await asyncio.sleep(0.01)
        lag.stop()
        await measuring
        assert lag.worst > late / 2
        return beyond / late

    assert asyncio.run(scenario()) < 0.5


@pytest.mark.parametrize("block", [time.sleep, count], ids=["sleep", "count"])
def test_the_lag_before_a_call_reads_the_clock_is_known(block: Callable[[float], object]) -> None:
    """A thread that sleeps is like one that has no processor."""
    lost: list[float] = []

    async def call() -> str:
        began, ran = time.monotonic(), time.thread_time()
        block(0.2)
        lost.append(time.monotonic() - began - (time.thread_time() - ran))
        await asyncio.sleep(0.01)
        block(0.2)
        return "result"

    async def scenario() -> FirstStep:
        first = FirstStep(call())
        assert await first == "result"
        return first

    assert asyncio.run(scenario()).lost == pytest.approx(lost[0], abs=0.1)
    assert block is count or lost[0] > 0.15


@pytest.mark.parametrize(("before", "after", "late"), [(0.2, 0.0, 0), (0.0, 1.0, 1), (0.2, 1.0, 1)])
def test_only_the_lag_before_a_call_reads_the_clock_moves_its_deadline(before: float, after: float, late: int) -> None:
    async def call(clients: Clients) -> None:
        time.sleep(before)
        await asyncio.sleep(clients.timeout + after)

    async def scenario() -> Tally:
        tally, lag = Tally(), LoopLag()
        measuring = asyncio.create_task(lag.measure())
        await asyncio.sleep(0.01)
        await aio._step(Step("get", 1, call, repr), Clients(None, None, 0.1, aio._factory), tally, lag)
        lag.stop()
        await measuring
        return tally

    assert asyncio.run(scenario()).late == late


def test_a_call_with_a_measured_first_step_can_be_cancelled() -> None:
    async def scenario() -> None:
        task = asyncio.ensure_future(_awaited(FirstStep(asyncio.sleep(10.0))))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def _awaited(call: FirstStep) -> object:
        return await call

    asyncio.run(scenario())


def test_errors_of_failing_nodes_are_expected_and_others_are_faults() -> None:
    tally = Tally()
    tally.failed("get", NodeDownError("down"))
    tally.failed("get", OperationTimeout("late"))
    assert tally.faults == []
    tally.failed("get", ProtocolError("broken"))
    assert len(tally.faults) == 1


def test_a_lease_that_stayed_behind_is_seen(shared_memcached: Memcached) -> None:
    key, other = "harness:lease", "harness:value"
    with socket.create_connection(("127.0.0.1", shared_memcached.port)) as connection:
        before = open_connections(shared_memcached)
        connection.sendall(b"mg %b v N30\r\nms %b 0\r\n\r\n" % (key.encode(), other.encode()))
        connection.recv(1000)
        time.sleep(0.05)
        assert leases(shared_memcached, [key, other, "harness:none"]) == [key]
        connection.sendall(b"md %b\r\n" % key.encode())
        connection.recv(1000)
    assert before >= 1


def test_the_proxy_cuts_and_counts_the_requests(memcached: Memcached) -> None:
    with CuttingProxy(memcached.port, random.Random(1)) as proxy:
        for number in range(20):
            with socket.create_connection(("127.0.0.1", proxy.port)) as connection:
                connection.sendall(b"ms twice 2 ME\r\nab\r\nma once:%d N0\r\n" % number)
                try:
                    while connection.recv(1000):
                        connection.sendall(b"mn\r\n" * 200)
                except OSError:
                    pass
        assert proxy.connections == 20
        assert proxy.seen[b"ms", b"twice"] == 20
        assert proxy.seen[b"ma", b"once:3"] == 1


def test_growth_compares_the_end_with_the_time_after_the_warm_up() -> None:
    assert growth([Memory(1, 1)] * 19) is None
    assert growth([Memory(50, 5)] * 20 + [Memory(100, 10)] * 80) == Growth(0.0, 0.0)
    assert growth([Memory(100, 10)] * 80 + [Memory(102, 11)] * 20) == pytest.approx(Growth(0.02, 0.1))
    assert growth([Memory(100, 10)] * 91 + [Memory(102, 11)] * 9) == Growth(0.0, 0.0)
    assert len(Growth(0.0099, 0.009).excesses) == 0
    assert len(Growth(0.0101, 0.011).excesses) == 2


LEAKING: Final = """
import json
from storms.memory import memory

memory()
before, kept = memory(), [bytes(100) for _ in range(100_000)]
after, kept = memory(), None
print(json.dumps([before, after, memory()]))
"""


def test_a_leak_of_a_hundred_bytes_for_each_operation_is_seen() -> None:
    ran = subprocess.run([sys.executable, "-c", LEAKING], check=True, capture_output=True, env=environment())
    before, leaked, freed = (Memory(*each) for each in json.loads(ran.stdout))
    for number in range(2):
        assert leaked[number] - before[number] > 9_000_000
        assert abs(freed[number] - before[number]) < 200_000


def test_the_memory_is_measured_while_all_workers_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    running, seen, over = [0, 0], list[int](), threading.Event()

    def measure() -> Memory:
        seen.append(sum(running))
        return Memory(1, 1)

    monkeypatch.setattr(rests, "memory", measure)
    resting = Rests(2)

    def work(number: int) -> None:
        while not over.is_set():
            resting.take(number)
            running[number] = 1
            time.sleep(0.001)
            running[number] = 0

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    found = [resting.measured() for _ in range(5)]
    over.set()
    for thread in threads:
        thread.join()
    assert found == [Memory(1, 1)] * 5
    assert seen == [0] * 5


def test_tasks_rest_too_and_one_that_does_not_prevents_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rests, "PATIENCE", 0.05)

    async def scenario(workers: int) -> tuple[Memory | None, int]:
        resting, settled = Rests(workers), list[int]()

        async def work() -> None:
            while not resting.is_due:
                await asyncio.sleep(0.001)
            await resting.take_async(0)

        working = asyncio.create_task(work())
        found = await resting.measured_async(lambda: settled.append(1))
        await working
        return found, len(settled)

    found, settled = asyncio.run(scenario(1))
    assert found is not None
    assert settled == 1
    assert asyncio.run(scenario(2)) == (None, 0)


def test_a_criterion_that_is_not_met_fails_the_run() -> None:
    calm, late = Result(name="calm", seconds=1.0, tally=Tally(operations=10)), Tally(operations=10, late=1)
    assert not [each for each in criteria([calm], 10) if each.passed is False]
    assert [each.name for each in criteria([calm], 11) if each.passed is None] == ["operations", *NAMES]
    leaking = Result(name="leaks", seconds=1.0, tally=late, sockets=1, growth=Growth(0.02, 0.02))
    failed = ["late operations", "leaked sockets", "all faults", *NAMES]
    assert [each.name for each in criteria([calm, leaking], 20) if each.passed is False] == failed
    assert "FAIL" in summary([calm, leaking], 20)
    assert "FAIL" not in summary([calm], 20)


def test_a_child_that_fails_is_reported() -> None:
    assert forked(lambda: None) == ""
    assert "exited with 1" in forked(lambda: 1 // 0)


# A signal while Python makes a socket leaves it to the garbage collector, which warns.
@pytest.mark.filterwarnings("ignore:.*unclosed", "ignore:Exception ignored in")
def test_exceptions_of_signals_that_are_replaced_or_swallowed_are_faults(shared_memcached: Memcached) -> None:
    with Connection(shared_memcached.node) as connection:
        client = Client(connection)

        swallowed: list[Exception] = []

        def honest() -> None:
            client.get("harness:signals")

        def swallowing_once() -> BaseException | None:
            try:
                honest()
            except (TimeoutError, OSError, MetacacheError) as error:
                if swallowed:
                    raise
                swallowed.append(error)
                return error
            return None

        for step, is_faulty in ((honest, False), (swallowing_once, True)):
            interruptions = Interruptions(random.Random(2))
            with interruptions.installed():
                for _ in range(10):
                    interruptions.round(step)
            assert bool(interruptions.faults) is is_faulty
            del interruptions
    swallowed.clear()
    collected()


def test_exceptions_of_signals_in_a_loop_that_are_swallowed_or_doubled_are_faults() -> None:
    kept, lost, twice = (kind("a signal") for kind in RAISED[:3])

    async def scenario() -> LoopInterruptions:
        loop = asyncio.get_running_loop()
        interruptions = LoopInterruptions(random.Random(1))
        with interruptions.installed(loop):
            interruptions._expected = [kept, lost, twice]
            interruptions.arrived(kept)
            for _ in range(2):
                loop.call_exception_handler({"message": "from a callback", "exception": twice})
        assert (interruptions.calls, interruptions.callbacks) == (1, 1)
        interruptions.finish([lost])
        interruptions.finish(interruptions.expected)
        return interruptions

    faults = asyncio.run(scenario()).faults
    assert len(faults) == 2
    assert type(twice).__name__ in faults[0]
    assert "twice" in faults[0]
    assert type(lost).__name__ in faults[1]
    assert "swallowed" in faults[1]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_storm_ends_although_its_memory_cannot_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "SAMPLE", 0.0)
    tally = Tally()
    progress = Progress("storm", Limits(10, 30.0), [tally], print, lambda: Memory(*map(int, "no numbers")))
    progress.start()
    progress._thread.join(10.0)
    assert progress.is_over
    assert "not watched" in tally.faults[0]


CALLS: Final = """
import sys

def room():
    return sys._getframe()

def get_buffer():
    return room()
"""


def test_signals_do_not_raise_where_uvloop_replaces_exceptions() -> None:
    names: dict[str, Any] = {"__name__": "metacache.transports"}  # Any: the functions of CALLS
    exec(CALLS, names)
    assert _is_in_client(names["room"]())
    assert not _is_in_client(names["get_buffer"]())


def test_a_task_that_never_ends_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aio, "PATIENT", 0.05)

    async def inner(event: asyncio.Event) -> None:
        await event.wait()

    async def scenario() -> list[str]:
        progress = Progress("storm", Limits(0, 0.0), [], print)
        progress.is_over = True
        workers = [asyncio.create_task(inner(asyncio.Event())), asyncio.create_task(asyncio.sleep(0))]
        return await aio._hanging(workers, progress)

    [fault] = asyncio.run(scenario())
    assert "inner" in fault
    assert "Event.wait" in fault
