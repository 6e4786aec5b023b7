"""Wall-clock times of several subjects, in turn, in one run: what disturbs one round disturbs all subjects in it.

So only ratios within a round are compared, and their median told.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from statistics import median, quantiles
from time import perf_counter
from typing import TypeAlias

__all__ = ["Times", "ratio", "take_times"]

Times: TypeAlias = Mapping[str, Sequence[float]]
"""Seconds an operation, by subject, round by round."""


def take_times(subjects: Mapping[str, Callable[[int], None]], *, rounds: int, count: int) -> Times:
    """Return the times of *rounds* rounds, in each of which every subject repeats its operation *count* times.

    They take turns to begin.
    """
    times: dict[str, list[float]] = {name: [] for name in subjects}
    names = list(subjects)
    for repeat in subjects.values():
        _time(repeat, count)  # connections are dialled, bytecode is specialised
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            times[name].append(_time(subjects[name], count) / count)
    return times


def _time(repeat: Callable[[int], None], count: int) -> float:
    gc.collect()
    began = perf_counter()
    repeat(count)
    return perf_counter() - began


def ratio(times: Times, name: str, other: str) -> str:
    """Return, as text, the median of *name*'s time by *other*'s in the same round, and the middle half of these."""
    ratios = [mine / its for mine, its in zip(times[name], times[other], strict=True)]
    low, _, high = quantiles(ratios, n=4)
    return f"{median(ratios):.2f} ({low:.2f}-{high:.2f})"
