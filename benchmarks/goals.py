"""Measure each figure that has a goal, in one run, and print it beside the goal.

To add a goal, write a function that measures one figure and add a row to GOALS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from statistics import median
from typing import Final, final

import attrs

from benchmarks import large, start
from benchmarks.async_subjects import AUTOBATCHING
from benchmarks.cluster import OURS, THEIRS, time_get_many
from benchmarks.instructions import count, require_valgrind
from benchmarks.pairing import Times, take_times
from benchmarks.peers import Lacking
from benchmarks.subjects import OPERATIONS, SUBJECTS, servers_of, subject
from benchmarks.suite.cases import Case, Kind, Verb
from benchmarks.suite.contenders import CONTENDERS, check_presence
from benchmarks.tables import print_table
from metacache import accelerated
from metacache.testing import Memcached

__all__ = ["GOALS", "Goal", "main"]

# What the always-on `client.statistics` may add to the instructions of a single operation.
STATISTICS: Final = 700

CONNECTION: Final = "metacache, Connection"
CLUSTER: Final = "metacache, Cluster"
PYLIBMC: Final = "pylibmc"
ROUNDS: Final = 40
KEYS_A_ROUND: Final = 1000
CALLS_A_ROUND: Final = 500
ROUND_OF_TASKS: Final = 10  # gets of each task


@final
@attrs.frozen
class Goal:
    """A figure, its limits in pure Python and with the primitives, and the function that measures it.

    A limit of None: there is no goal. ``at_least``: the figure must not be below the limit, else not above it. The
    function returns None if it cannot measure.
    """

    name: str
    pure: float | None
    compiled: float | None
    measure: Callable[[], float | None]
    at_least: bool = False

    @property
    def limit(self) -> float | None:
        """The limit of the code that runs."""
        return self.compiled if accelerated else self.pure

    def verdict(self, measured: float | None) -> str:
        """Say whether *measured* meets the limit."""
        if measured is None:
            return "not measured"
        if self.limit is None:
            return "no goal"
        return "met" if (measured >= self.limit if self.at_least else measured <= self.limit) else "MISSED"


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


def _by_pickle(verb: Verb) -> float | None:
    """Return the time of a get or a set of a typed object, divided by that of pymemcache with pickle."""
    return _by_contenders(Kind.TYPED, Case("", verb), "metacache[speed] + msgspec", ("pymemcache + pickle",))


def _gets_by(others: Sequence[str], tasks: int) -> float | None:
    """Return the gets of *tasks* tasks in a second, divided by those of the best of *others*."""
    times = _by_contenders(Kind.ASYNCIO, Case("", Verb.GET, tasks=tasks), "metacache[speed]", others)
    return None if times is None else 1 / times


def _by_contenders(kind: Kind, case: Case, mine: str, others: Sequence[str]) -> float | None:
    """Return the time of the contender *mine* divided by that of the fastest of *others*, in this process.

    None if one of them cannot run.
    """
    entered = [each for each in CONTENDERS[kind] if each.name in (mine, *others)]
    try:
        for each in entered:
            check_presence(each)
    except Lacking:
        return None
    with ExitStack() as stack:
        runs = {
            each.name: each.prepare(case, [stack.enter_context(Memcached()).node], "goal:", stack) for each in entered
        }
        times = take_times(runs, rounds=ROUNDS, count=max(CALLS_A_ROUND, ROUND_OF_TASKS * case.tasks))
    best = min(others, key=lambda name: median(times[name]))
    return _median_ratio(times, mine, best)


# Instructions, by subject and operation: the limits in pure Python, and with the primitives of metacache-speed.
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
# Gets by those of emcache with autobatching: the number of tasks, and the limit with the primitives.
TASKS: Final = ((64, 1.2), (512, 1.3))
ASYNC_PEERS: Final = tuple(each.name for each in CONTENDERS[Kind.ASYNCIO] if not each.is_metacache)
GOALS: Final = (
    *(
        Goal(f"instructions, {name.removeprefix('metacache, ')}: {verb}", pure, compiled, partial(count, name, verb))
        for name, verb, pure, compiled in INSTRUCTIONS
    ),
    *(Goal(f"time by pylibmc: {verb}", pure, compiled, partial(_by_pylibmc, verb)) for verb, pure, compiled in TIMES),
    Goal("time of get_many over 5 nodes by HashClient", 0.17, 0.1, _by_hash_client),
    *(
        Goal(f"time by pymemcache + pickle: {verb.value} a User", None, 0.6, partial(_by_pickle, verb))
        for verb in (Verb.GET, Verb.SET)
    ),
    *(
        Goal(
            f"gets by {AUTOBATCHING}: {tasks} tasks",
            None,
            limit,
            partial(_gets_by, (AUTOBATCHING,), tasks),
            at_least=True,
        )
        for tasks, limit in TASKS
    ),
    Goal("gets by the best peer: 1 task", None, 1.2, partial(_gets_by, ASYNC_PEERS, 1), at_least=True),
    *(Goal(f"processor time by pymemcache: {name}", 0.9, 0.9, partial(large.cpu_ratio, name)) for name in large.READS),
    Goal("import of connect, ms above a bare interpreter", 60, 60, start.import_milliseconds),
    Goal("time of dial, get and close by pymemcache", 1.2, 1.2, start.dial_ratio),
)


def main() -> None:
    """Print each goal, what was measured, and whether it is met."""
    require_valgrind()
    print("With metacache-speed." if accelerated else "In pure Python.")
    print("Goals: instructions per key, and medians of ratios of times within a round\n")
    print_table(["", "pure", "with metacache-speed", "measured", ""], [_row(goal) for goal in GOALS])


def _row(goal: Goal) -> list[str]:
    """Measure the goal, print the figure, and return its row of the table."""
    measured = goal.measure()
    figure = "-" if measured is None else _text(measured)
    print(f"  {goal.name}: {figure}", flush=True)  # the whole table takes minutes
    limits = [_limit(goal, limit) for limit in (goal.pure, goal.compiled)]
    return [goal.name, *limits, figure, goal.verdict(measured)]


def _limit(goal: Goal, limit: float | None) -> str:
    return "-" if limit is None else f"{'>=' if goal.at_least else '<='} {_text(limit)}"


def _text(figure: float) -> str:
    return f"{figure:.2f}" if figure < 100 else f"{figure:,.0f}"
