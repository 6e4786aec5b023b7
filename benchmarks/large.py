"""Measure the processor time of reads of large values against pymemcache, in rounds of one run.

Processor time and not elapsed time: it is the copies that cost, and the server works at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from statistics import median
from time import process_time
from typing import Final

import attrs
import pymemcache

from benchmarks.peers import TIMEOUT, host_and_port
from benchmarks.tables import print_table
from metacache import Client, Connection, Settings
from metacache.testing import Memcached

__all__ = ["READS", "Read", "cpu_ratio", "main"]

ROUNDS: Final = 15
OPTIONS: Final = ("-I", "64m", "-m", "1024")


@attrs.frozen
class Read:
    """A read of *count* values of *size* bytes, done *times* times in a round."""

    count: int
    size: int
    times: int


READS: Final[Mapping[str, Read]] = {
    "get 100 KB": Read(1, 100_000, 200),
    "get 1 MB": Read(1, 1_000_000, 50),
    "get_many 5,000 x 100 KB": Read(5000, 100_000, 1),
}


def main() -> None:
    """Print the ratio for each read."""
    print(f"Processor time, and its ratio to pymemcache in the same round: median of {ROUNDS} rounds\n")
    rows: list[list[str]] = []
    for name in READS:
        mine, other = _seconds(READS[name])
        rows.append([name, f"{median(mine) * 1e6:,.0f}", f"{median(other) * 1e6:,.0f}", f"{_ratio(mine, other):.2f}"])
    print_table(["", "metacache, us", "pymemcache, us", "ratio"], rows)


def cpu_ratio(name: str) -> float:
    """Return the processor time of metacache for the read called *name*, divided by that of pymemcache."""
    return _ratio(*_seconds(READS[name]))


def _ratio(mine: list[float], other: list[float]) -> float:
    return median(one / two for one, two in zip(mine, other, strict=True))


def _seconds(read: Read) -> tuple[list[float], list[float]]:
    """Return the processor times of one read with metacache and with pymemcache, one for each round."""
    keys = [f"large:{number}" for number in range(read.count)]
    with ExitStack() as stack:
        nodes = [stack.enter_context(Memcached(OPTIONS)).node for _ in range(2)]
        client = Client(Connection(nodes[0], settings=Settings(timeout=TIMEOUT)), owns=True)
        stack.callback(client.close)
        other = pymemcache.Client(host_and_port(nodes[1]), no_delay=True, default_noreply=False)
        stack.callback(other.close)
        for key in keys:
            client.set(key, bytes(read.size))
            other.set(key, bytes(read.size))
        uses: tuple[Callable[[], object], Callable[[], object]] = (
            (lambda: client.get(keys[0]), lambda: other.get(keys[0]))
            if read.count == 1
            else (lambda: client.get_many(keys), lambda: other.get_many(keys))
        )
        times: tuple[list[float], list[float]] = ([], [])
        for number in range(ROUNDS + 1):
            for which in (0, 1) if number % 2 else (1, 0):
                times[which].append(_time(uses[which], read.times))
    return times[0][1:], times[1][1:]  # without the first round, which dials


def _time(use: Callable[[], object], times: int) -> float:
    began = process_time()
    for _ in range(times):
        use()
    return (process_time() - began) / times
