"""Measure gets per second and latencies of asyncio clients with many tasks, under asyncio and uvloop.

In each round the clients run one after another for the same time. Ratios compare times of the same round.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from statistics import median, quantiles
from time import perf_counter
from typing import Final

import uvloop

from benchmarks.async_subjects import ASYNC_SUBJECTS, AUTOBATCHING, AsyncSubject, Reader
from benchmarks.pairing import Times, ratio
from benchmarks.tables import print_table
from metacache import Node
from metacache.testing import Memcached

__all__ = ["LOOPS", "TASKS", "main"]

LOOPS: Final[dict[str, Callable[[], asyncio.AbstractEventLoop]]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
TASKS: Final = (1, 8, 64, 512)
ROUNDS: Final = 10
ROUND: Final = 0.2  # seconds per client


def main(*, loops: Sequence[str] = tuple(LOOPS), tasks: Sequence[int] = TASKS) -> None:
    """Print a table for each of *loops* and each number of *tasks*."""
    print(f"Gets under an event loop: 100-byte values, {ROUNDS} rounds of {ROUND} s per client")
    print("Latencies in µs. Ratio: gets of this client / gets of the other in the same round, median (quartiles)\n")
    with ExitStack() as stack:
        nodes = {subject.name: stack.enter_context(Memcached()).node for subject in ASYNC_SUBJECTS}
        for loop in loops:
            with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
                for count in tasks:
                    latencies, times = runner.run(_measure(nodes, count))
                    _print(f"{loop}, {count} task{'s' * (count > 1)}", latencies, times)


async def _measure(nodes: dict[str, Node], tasks: int) -> tuple[dict[str, list[float]], Times]:
    """Return, by subject, all latencies, and the seconds per get of each round."""
    latencies: dict[str, list[float]] = {name: [] for name in nodes}
    times: dict[str, list[float]] = {name: [] for name in nodes}
    async with AsyncExitStack() as stack:
        readers = {each.name: await each.setup(nodes[each.name], tasks, stack) for each in ASYNC_SUBJECTS}
        for reader in readers.values():
            await _read(reader, tasks, [])  # warm up: dial connections, specialise bytecode
        names = list(readers)
        for number in range(ROUNDS):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                times[name].append(await _read(readers[name], tasks, latencies[name]))
    return latencies, times


async def _read(reader: Reader[str] | Reader[bytes], tasks: int, latencies: list[float]) -> float:
    """Run *tasks* tasks for one round, and return the seconds per get."""
    gc.collect()
    before = len(latencies)
    began = perf_counter()
    await asyncio.gather(*(reader.read_until(began + ROUND, task, tasks, latencies) for task in range(tasks)))
    return (perf_counter() - began) / (len(latencies) - before)


def _print(title: str, latencies: dict[str, list[float]], times: Times) -> None:
    best = min((each.name for each in ASYNC_SUBJECTS if each.is_pooled), key=lambda name: median(times[name]))
    rows = [_row(subject, latencies[subject.name], times, best) for subject in ASYNC_SUBJECTS]
    print_table([title, "gets/s", "p50", "p99", f"by {best} (best pooled)", f"by {AUTOBATCHING}"], rows)


def _row(subject: AsyncSubject, latencies: list[float], times: Times, best: str) -> list[str]:
    percentiles = quantiles(latencies, n=100)
    # The ratio of the times, inverted, is the ratio of the numbers of gets.
    ratios = [ratio(times, other, subject.name) for other in (best, AUTOBATCHING)]
    figures = (1 / median(times[subject.name]), percentiles[49] * 1e6, percentiles[98] * 1e6)
    return [subject.name, *(f"{figure:,.0f}" for figure in figures), *ratios]
