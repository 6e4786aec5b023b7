"""Measure the wall-clock time of every subject against pymemcache and pylibmc, in one run."""

from __future__ import annotations

from contextlib import ExitStack
from statistics import median
from typing import Final

from benchmarks.pairing import ratio, take_times
from benchmarks.repeating import Repeat
from benchmarks.subjects import OPERATIONS, SUBJECTS, servers_of
from benchmarks.tables import print_table

__all__ = ["main"]

ROUNDS: Final = 40
KEYS_A_ROUND: Final = 1000
BESIDE: Final = tuple(each.name for each in SUBJECTS if each.name in ("pymemcache", "pylibmc"))


def main() -> None:
    """Print a table for each operation."""
    print(f"Time, and its ratio to other clients in the same round: median of {ROUNDS} rounds (quartiles)\n")
    with ExitStack() as stack:
        setups = {subject.name: subject.setup(servers_of(subject, stack), stack) for subject in SUBJECTS}
        for operation, keys in OPERATIONS.items():
            subjects = {name: runs[operation] for name, runs in setups.items() if operation in runs}
            if not subjects.keys() >= set(BESIDE):
                continue  # the other clients do not have it
            _print(operation, subjects, KEYS_A_ROUND // keys)


def _print(operation: str, subjects: dict[str, Repeat], count: int) -> None:
    times = take_times(subjects, rounds=ROUNDS, count=count)
    rows = [
        [name, f"{median(spent) * 1e6:,.1f}", *(ratio(times, name, other) for other in BESIDE)]
        for name, spent in times.items()
    ]
    print_table([operation, "us", *(f"by {other}" for other in BESIDE)], rows)
