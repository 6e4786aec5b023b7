"""Measure wall-clock times of several subjects in rounds.

A disturbance of the machine affects all subjects of a round. So compare only times of one round, and report the median
of these ratios.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median, quantiles
from time import perf_counter
from typing import TypeAlias

__all__ = ["Times", "ratio", "take_times", "take_turns"]

Times: TypeAlias = Mapping[str, Sequence[float]]
"""Seconds per operation, by subject, one for each round."""


def take_times(subjects: Mapping[str, Callable[[int], None]], *, rounds: int, count: int) -> Times:
    """Return the times of *rounds* rounds. In a round every subject repeats its operation *count* times."""
    for repeat in subjects.values():
        _time(repeat, count)  # warm up: dial connections, specialise bytecode
    return take_turns({name: partial(_seconds, repeat, count) for name, repeat in subjects.items()}, rounds)


def take_turns(subjects: Mapping[str, Callable[[], float]], rounds: int) -> Times:
    """Return what each subject returned in each of *rounds* rounds. Each round begins with another subject."""
    times: dict[str, list[float]] = {name: [] for name in subjects}
    names = list(subjects)
    for number in range(rounds if names else 0):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            times[name].append(subjects[name]())
    return times


def _seconds(repeat: Callable[[int], None], count: int) -> float:
    return _time(repeat, count) / count


def _time(repeat: Callable[[int], None], count: int) -> float:
    gc.collect()
    began = perf_counter()
    repeat(count)
    return perf_counter() - began


def ratio(times: Times, name: str, other: str) -> str:
    """Return the median, and the quartiles, of the time of *name* divided by the time of *other*, as text."""
    ratios = [mine / its for mine, its in zip(times[name], times[other], strict=True)]
    low, _, high = quantiles(ratios, n=4)
    return f"{median(ratios):.2f} ({low:.2f}-{high:.2f})"
