"""Measure a stampede: runs of the factory with and without `get_or_compute`, and the delay of those who wait.

The factory takes 100 ms. Times are of the same clock in all processes (CLOCK_MONOTONIC).
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final, TypeAlias

from benchmarks.tables import print_table
from metacache import AsyncClient, AsyncPool, Client, Pool, Settings, Source, Stampede
from metacache.testing import Memcached

__all__ = ["main"]

FACTORY: Final = 0.1  # seconds
ROUNDS: Final = 30  # of each delay
WAITERS: Final = 8
PROCESSES: Final = 16
THREADS: Final = 8
SECONDS: Final = 4.0
REFRESHED_TTL: Final = 3  # seconds
REFRESHED_SECONDS: Final = 10.0
SHOWN: Final = (Source.HIT, Source.COMPUTED, Source.WAITED)
SETTINGS: Final = Settings(timeout=10.0, pool_size=64)

Read: TypeAlias = Callable[[Client[bytes], Callable[[], bytes]], object]
"""How a thread gets the value."""


def main() -> None:
    """Print all tables."""
    with Memcached() as server:
        print(f"Factory of {FACTORY:g} s: milliseconds from its end until a waiter has the value, {ROUNDS} rounds\n")
        rows = [
            _row("threads of the same process", _threads(server)),
            _row("tasks of the same process", asyncio.run(_tasks(server))),
            _row("another process", _another_process(server)),
        ]
        print_table(["waiters", "median", "longest"], rows)
        print(f"\n{PROCESSES} processes x {THREADS} threads, one key that expires each second, {SECONDS:g} s\n")
        print_table(
            ["", "runs of the factory", "at the same time"],
            [["get_or_compute", *_runs(server, _computing)], ["get and set", *_runs(server, _getting_and_setting)]],
        )
        print(
            f"\nThe same with ttl {REFRESHED_TTL}, {REFRESHED_SECONDS:g} s: each thread's calls after its first one\n"
        )
        print_table(
            [
                "refresh_ahead",
                *(f"{source.value}: calls" for source in SHOWN),
                *(f"{each.value}: longest ms" for each in SHOWN),
            ],
            [[f"{ahead:g}", *_refreshed(server, ahead)] for ahead in (0.0, 0.1, 0.4)],
        )


def _row(name: str, delays: list[float]) -> list[str]:
    return [name, f"{median(delays) * 1000:.2f}", f"{max(delays) * 1000:.2f}"]


# --- delays -----------------------------------------------------------------------------------------------------------


def _threads(server: Memcached) -> list[float]:
    delays: list[float] = []
    ended: list[float] = []
    with Client(Pool(server.node, settings=SETTINGS), owns=True) as client:

        def make() -> bytes:
            time.sleep(FACTORY)
            ended.append(time.monotonic())
            return b"value"

        def wait(key: str) -> None:
            client.get_or_compute(key, make)
            delays.append(time.monotonic() - ended[-1])

        for number in range(ROUNDS):
            _join([threading.Thread(target=wait, args=(f"threads:{number}",)) for _ in range(WAITERS)])
    return delays


def _join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


async def _tasks(server: Memcached) -> list[float]:
    delays: list[float] = []
    ended: list[float] = []
    async with AsyncClient(AsyncPool(server.node, settings=SETTINGS), owns=True) as client:

        async def make() -> bytes:
            await asyncio.sleep(FACTORY)
            ended.append(time.monotonic())
            return b"value"

        async def wait(key: str) -> None:
            await client.get_or_compute(key, make)
            delays.append(time.monotonic() - ended[-1])

        for number in range(ROUNDS):
            await asyncio.gather(*[wait(f"tasks:{number}") for _ in range(WAITERS)])
    return delays


def _another_process(server: Memcached) -> list[float]:
    """Return the delays of the parent, while a child computes."""
    delays: list[float] = []
    with TemporaryDirectory() as directory, Client(Pool(server.node, settings=SETTINGS), owns=True) as client:
        for number in range(ROUNDS):
            path = Path(directory, str(number))
            child = _forked(partial(_compute_and_note, server, path, number))
            while not path.exists():
                time.sleep(0.001)
            client.get_or_compute(f"processes:{number}", _never)
            arrived = time.monotonic()
            os.waitpid(child, 0)
            delays.append(arrived - float(path.read_text()))
    return delays


def _compute_and_note(server: Memcached, path: Path, number: int) -> None:
    def make() -> bytes:
        path.touch()
        time.sleep(FACTORY)
        path.write_text(repr(time.monotonic()))
        return b"value"

    Client(Pool(server.node, settings=SETTINGS)).get_or_compute(f"processes:{number}", make)


def _never() -> bytes:
    raise AssertionError("the child computes")


def _forked(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
    finally:
        os._exit(0)


# --- runs -------------------------------------------------------------------------------------------------------------


def _computing(client: Client[bytes], make: Callable[[], bytes]) -> object:
    return client.get_or_compute("stampede", make, ttl=1)


def _getting_and_setting(client: Client[bytes], make: Callable[[], bytes]) -> object:
    value = client.get("stampede")
    if value is None:
        client.set("stampede", make(), ttl=1)
    return value


def _runs(server: Memcached, read: Read) -> list[str]:
    """Return how often the factory ran, and how often at the same time."""
    with TemporaryDirectory() as directory:
        path = Path(directory, "runs")
        path.touch()
        for child in [_forked(partial(_process, server, path, read)) for _ in range(PROCESSES)]:
            os.waitpid(child, 0)
        words = path.read_text().split()
    running = most = 0
    for word in words:
        running += 1 if word == "begin" else -1
        most = max(most, running)
    return [str(words.count("begin")), str(most)]


def _process(server: Memcached, path: Path, read: Read) -> None:
    client = Client(Pool(server.node, settings=SETTINGS))
    end = time.monotonic() + SECONDS

    def note(word: bytes) -> None:
        with path.open("ab", buffering=0) as file:
            file.write(word)

    def make() -> bytes:
        note(b"begin\n")
        time.sleep(FACTORY)
        note(b"end\n")
        return b"value"

    def thread() -> None:
        while time.monotonic() < end:
            read(client, make)
            time.sleep(0.02)

    _join([threading.Thread(target=thread) for _ in range(THREADS)])


# --- refresh ahead ----------------------------------------------------------------------------------------------------


def _refreshed(server: Memcached, ahead: float) -> list[str]:
    """Return the number of calls and the longest call by source, while values are refreshed *ahead* of their end."""
    with TemporaryDirectory() as directory:
        path = Path(directory, "calls")
        path.touch()
        for child in [_forked(partial(_refreshing_process, server, path, ahead)) for _ in range(PROCESSES)]:
            os.waitpid(child, 0)
        calls = [line.split() for line in path.read_text().splitlines()]
    times = {source: [float(seconds) for name, seconds in calls if name == source.value] for source in SHOWN}
    assert sum(map(len, times.values())) == len(calls), "a call had another source"
    return [
        *(str(len(each)) for each in times.values()),
        *(f"{max(each, default=0.0) * 1000:.1f}" for each in times.values()),
    ]


def _refreshing_process(server: Memcached, path: Path, ahead: float) -> None:
    client = Client(Pool(server.node, settings=SETTINGS))
    end = time.monotonic() + REFRESHED_SECONDS
    policy = Stampede(refresh_ahead=ahead)
    lines: list[str] = []

    def make() -> bytes:
        time.sleep(FACTORY)
        return b"value"

    def call() -> None:
        began = time.monotonic()
        found = client.get_or_compute_item(f"ahead:{ahead}", make, ttl=REFRESHED_TTL, policy=policy)
        lines.append(f"{found.source.value} {time.monotonic() - began}\n")

    def thread() -> None:
        client.get_or_compute(f"ahead:{ahead}", make, ttl=REFRESHED_TTL, policy=policy)  # the cold start
        while time.monotonic() < end:
            call()
            time.sleep(0.02)

    _join([threading.Thread(target=thread) for _ in range(THREADS)])
    with path.open("ab", buffering=0) as file:
        file.write("".join(lines).encode())
