"""Many processes with many threads share one computation; one that is killed blocks the others for a lease at most.

Runs of the factory are counted in a file, outside the cache.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from metacache import Client, Pool, Stampede
from metacache.testing import Memcached
from tests.caching.rig import PATIENT

pytestmark = pytest.mark.alone

PROCESSES: Final = 16
THREADS: Final = 8
SECONDS: Final = 4.0


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

    def process() -> None:
        failures: list[BaseException] = []
        client = Client(Pool(memcached.node, settings=PATIENT))
        end = time.monotonic() + SECONDS

        def thread() -> None:
            try:
                while time.monotonic() < end:
                    assert client.get_or_compute("k", make, ttl=1) == b"value"
                    time.sleep(0.02)
            except BaseException as failure:
                failures.append(failure)

        threads = [threading.Thread(target=thread) for _ in range(THREADS)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert not failures, failures

    children = [forked(process) for _ in range(PROCESSES)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    assert codes == [0] * PROCESSES
    # A value lives until the next tick of the server's clock: one run a second. The children start one after another.
    assert 3 <= runs.words.count("begin") <= SECONDS + 3
    assert runs.most_at_once == 1


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
