"""Repeat one call. Measures nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle
from typing import TypeAlias, TypeVar

__all__ = ["Repeat", "repeat_each", "repeat_one", "repeat_two"]

A = TypeVar("A")
B = TypeVar("B")

Repeat: TypeAlias = Callable[[int], None]
"""Does one operation the given number of times."""

# Each client is called from a Python loop, as users do. partial() and map() would add a C call, and only to the clients
# in Python.


def repeat_one(run: Callable[[A], object], argument: A) -> Repeat:
    """Return a function that calls *run* with *argument* the given number of times."""

    def repeat(times: int) -> None:
        for _ in range(times):
            run(argument)

    return repeat


def repeat_two(run: Callable[[A, B], object], first: A, second: B) -> Repeat:
    """Return a function that calls *run* with *first* and *second* the given number of times."""

    def repeat(times: int) -> None:
        for _ in range(times):
            run(first, second)

    return repeat


def repeat_each(run: Callable[[A], object], arguments: Sequence[A]) -> Repeat:
    """Return a function that calls *run* the given number of times, each time with the next of *arguments*."""
    following = cycle(arguments)

    def repeat(times: int) -> None:
        for _ in range(times):
            run(next(following))

    return repeat
