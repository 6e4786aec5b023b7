"""Many processes with many threads share one computation; one that is killed blocks the others for a lease at most.

Runs of the factory are counted in a file, outside the cache.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from metacache import AsyncClient, AsyncPool, Client, Pool, Source, Stampede, load_serializer
from metacache.testing import Memcached
from tests.caching.rig import PATIENT

pytestmark = pytest.mark.alone

PROCESSES: Final = 16
THREADS: Final = 8
SECONDS: Final = 4.0
KEYS: Final = 5


def forked(work: Callable[[], None]) -> int:
    """Fork a child that does *work* and exits without the clean-up of the parent; return its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()  # a child must not continue the test run
    finally:
        os._exit(code)


def exit_codes(children: list[int]) -> list[int]:
    """Wait for *children*; return their exit codes."""
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]


def in_processes(server: Memcached, processes: int, threads: int, work: Callable[[Client[bytes]], None]) -> list[int]:
    """Do *work* in many threads of many processes, each with a client of its own; return the exit codes."""

    def process() -> None:
        failures: list[BaseException] = []
        client = Client(Pool(server.node, settings=PATIENT))

        def thread() -> None:
            try:
                work(client)
            except BaseException as failure:
                failures.append(failure)

        started = [threading.Thread(target=thread) for _ in range(threads)]
        for each in started:
            each.start()
        for each in started:
            each.join()
        assert not failures, failures

    return exit_codes([forked(process) for _ in range(processes)])


class Runs:
    """A file with a line for each beginning and each end of a factory, in order of time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch()

    def note(self, word: str) -> None:
        with self._path.open("ab", buffering=0) as file:
            file.write(f"{word}\n".encode())  # one write: the lines of several processes do not mix

    @property
    def words(self) -> list[str]:
        return self._path.read_text().split()

    @property
    def most_at_once(self) -> int:
        running = most = 0
        for word in self.words:
            running += 1 if word == "begin" else -1
            most = max(most, running)
        return most


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "runs")


def test_one_factory_runs_at_a_time_in_all_threads_of_all_processes(memcached: Memcached, runs: Runs) -> None:
    def make() -> bytes:
        runs.note("begin")
        time.sleep(0.1)
        runs.note("end")
        return b"value"

    def thread(client: Client[bytes]) -> None:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            assert client.get_or_compute("k", make, ttl=1) == b"value"
            time.sleep(0.02)

    assert in_processes(memcached, PROCESSES, THREADS, thread) == [0] * PROCESSES
    # A value lives until the next tick of the server's clock: one run a second. The children start one after another.
    assert 3 <= runs.words.count("begin") <= SECONDS + 3
    assert runs.most_at_once == 1


def test_only_winners_wait_while_values_are_refreshed_ahead(memcached: Memcached, runs: Runs) -> None:
    """After its first value a thread waits only for a factory that it runs itself: it gets the old value meanwhile."""
    policy = Stampede(refresh_ahead=0.4)

    def make() -> bytes:
        runs.note("begin")
        time.sleep(0.1)
        runs.note("end")
        return b"value"

    def thread(client: Client[bytes]) -> None:
        client.get_or_compute("k", make, ttl=3, policy=policy)
        end = time.monotonic() + 2 * SECONDS
        while time.monotonic() < end:
            source = client.get_or_compute_item("k", make, ttl=3, policy=policy).source
            assert source in (Source.HIT, Source.COMPUTED), source
            time.sleep(0.02)

    assert in_processes(memcached, PROCESSES, THREADS, thread) == [0] * PROCESSES
    # A value lives for 3 seconds, and is refreshed in its last 2 or its last one.
    assert 3 <= runs.words.count("begin") <= 2 * SECONDS + 3
    assert runs.most_at_once == 1


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
def test_readers_after_a_deploy_compute_at_most_once_a_process(memcached: Memcached, runs: Runs, kind: str) -> None:
    """The values that the old version of a program stored have another fingerprint."""
    old: Client[list[int]] = Client(Pool(memcached.node), load_serializer("json", list[int]), owns=True)
    new = load_serializer("json", list[str])
    with old:
        old.set_many({f"k{number}": [number] for number in range(KEYS)})

    shared: dict[int, Client[list[str]]] = {}  # the threads of one process share one client

    def note(number: int) -> list[str]:
        runs.note(f"k{number}")
        return ["new"]

    def thread(client: Client[bytes]) -> None:
        mine = shared.setdefault(os.getpid(), Client(client._transport, new))
        for number in range(KEYS):

            def make(number: int = number) -> list[str]:
                time.sleep(0.05)
                return note(number)

            assert mine.get_or_compute(f"k{number}", make) == ["new"]

    async def task(client: AsyncClient[list[str]]) -> None:
        for number in range(KEYS):

            async def make(number: int = number) -> list[str]:
                await asyncio.sleep(0.05)
                return note(number)

            assert await client.get_or_compute(f"k{number}", make) == ["new"]

    async def tasks() -> None:
        async with AsyncClient(AsyncPool(memcached.node, settings=PATIENT), new, owns=True) as client:
            await asyncio.gather(*[task(client) for _ in range(16)])

    if kind == "blocking":
        codes = in_processes(memcached, 4, 16, thread)
    else:
        codes = exit_codes([forked(lambda: asyncio.run(tasks())) for _ in range(4)])
    assert codes == [0] * 4
    assert sorted(set(runs.words)) == [f"k{number}" for number in range(KEYS)]
    assert max(runs.words.count(f"k{number}") for number in range(KEYS)) <= 4


def test_a_killed_winner_blocks_the_others_for_its_lease(memcached: Memcached, runs: Runs) -> None:
    policy = Stampede(lease=2)

    def process() -> None:
        def hang() -> bytes:
            runs.note("begin")
            time.sleep(60)
            return b"never"

        Client(Pool(memcached.node, settings=PATIENT)).get_or_compute("k", hang, policy=policy)

    winner = forked(process)
    while not runs.words:
        time.sleep(0.01)
    os.kill(winner, signal.SIGKILL)
    os.waitpid(winner, 0)

    def make() -> bytes:
        runs.note("begin")
        return b"value"

    began = time.monotonic()
    with Client(Pool(memcached.node, settings=PATIENT), owns=True) as client:
        assert client.get_or_compute("k", make, policy=policy) == b"value"
        assert client.get("k") == b"value"
    assert time.monotonic() - began < 3.5  # the lease, and the longest pause between two looks
    assert runs.words == ["begin", "begin"]
