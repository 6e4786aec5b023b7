"""Measure each figure that has a goal, in one run, and print it beside the goal.

To add a goal, write a function that measures one figure and add a row to GOALS.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from statistics import median
from typing import Final

import attrs

from benchmarks import large, start
from benchmarks.cluster import OURS, THEIRS, time_get_many
from benchmarks.instructions import count, require_valgrind
from benchmarks.pairing import Times, take_times
from benchmarks.subjects import OPERATIONS, SUBJECTS, servers_of, subject
from benchmarks.tables import print_table
from metacache import accelerated

__all__ = ["GOALS", "Goal", "main"]

# What the always-on `client.statistics` may add to the instructions of a single operation.
STATISTICS: Final = 700

CONNECTION: Final = "metacache, Connection"
CLUSTER: Final = "metacache, Cluster"
PYLIBMC: Final = "pylibmc"
ROUNDS: Final = 40
KEYS_A_ROUND: Final = 1000


@attrs.frozen
class Goal:
    """A figure, its upper limit, and the function that measures it; the function returns None if it cannot."""

    name: str
    limit: float
    measure: Callable[[], float | None]


def _median_ratio(times: Times, name: str, other: str) -> float:
    return median(mine / its for mine, its in zip(times[name], times[other], strict=True))


def _by_pylibmc(operation: str) -> float | None:
    """Return the time of *operation* on a Connection divided by that of pylibmc; None if that is not installed."""
    if PYLIBMC not in [each.name for each in SUBJECTS]:
        return None
    with ExitStack() as stack:
        pair = [subject(CONNECTION), subject(PYLIBMC)]
        runs = {each.name: each.setup(servers_of(each, stack), stack)[operation] for each in pair}
        times = take_times(runs, rounds=ROUNDS, count=KEYS_A_ROUND // OPERATIONS[operation])
    return _median_ratio(times, CONNECTION, PYLIBMC)


def _by_hash_client() -> float:
    return _median_ratio(time_get_many(), OURS, THEIRS)


def _instructions(name: str, operation: str, limit: int) -> Goal:
    return Goal(
        f"instructions, {name.removeprefix('metacache, ')}: {operation}", limit, partial(count, name, operation)
    )


def _time(operation: str, limit: float) -> Goal:
    return Goal(f"time by pylibmc: {operation}", limit, partial(_by_pylibmc, operation))


# Instructions: the limits in pure Python, and with the primitives of metacache-speed.
INSTRUCTIONS: Final = (
    (CONNECTION, "get", 18_900 + STATISTICS, 10_500 + STATISTICS),
    (CONNECTION, "set", 15_900 + STATISTICS, 10_000 + STATISTICS),
    (CONNECTION, "get_many", 6_200, 3_300),
    (CONNECTION, "set_many", 6_100, 3_400),
    (CLUSTER, "get", 22_000 + STATISTICS, 13_000 + STATISTICS),
    (CLUSTER, "set", 19_000 + STATISTICS, 12_500 + STATISTICS),
    (CLUSTER, "get_many", 6_800, 3_800),
    (CLUSTER, "set_many", 6_800, 3_900),
    ("metacache, Cluster of 3", "get_many", 9_500, 4_700),
    ("metacache, Cluster of 10", "get_many", 17_000, 5_200),
    ("metacache, AsyncPool", "get, 64 tasks", 31_000, 18_000),
)
# Times by those of pylibmc, likewise.
TIMES: Final = (("get", 1.25, 1.1), ("set", 1.2, 1.1), ("get_many", 1.9, 1.3), ("set_many", 0.12, 0.1))
GOALS: Final = (
    *(
        _instructions(name, operation, compiled if accelerated else pure)
        for name, operation, pure, compiled in INSTRUCTIONS
    ),
    *(_time(operation, compiled if accelerated else pure) for operation, pure, compiled in TIMES),
    Goal("time of get_many over 5 nodes by HashClient", 0.17, _by_hash_client),
    *(Goal(f"processor time by pymemcache: {name}", 0.9, partial(large.cpu_ratio, name)) for name in large.READS),
    Goal("import of connect, ms above a bare interpreter", 60, start.import_milliseconds),
    Goal("time of dial, get and close by pymemcache", 1.2, start.dial_ratio),
)


def main() -> None:
    """Print each goal, what was measured, and whether it is met."""
    require_valgrind()
    print("With metacache-speed." if accelerated else "In pure Python.")
    print("Goals: instructions per key, and medians of ratios of times within a round\n")
    rows: list[list[str]] = []
    for goal in GOALS:
        measured = goal.measure()
        verdict = "not measured" if measured is None else "met" if measured <= goal.limit else "MISSED"
        rows.append([goal.name, _text(goal.limit), "-" if measured is None else _text(measured), verdict])
    print_table(["", "at most", "measured", ""], rows)


def _text(figure: float) -> str:
    return f"{figure:.2f}" if figure < 100 else f"{figure:,.0f}"
