"""The words and figures that tables and charts share. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.suite.cases import Group
from benchmarks.suite.results import Figure

__all__ = ["ranked", "shown", "text_of"]


def shown(group: Group, microseconds: float) -> float:
    """Return the figure that a reader sees: microseconds, or thousands in a second."""
    return 1000 / microseconds if group.per_second else microseconds


def text_of(figure: float) -> str:
    """Return *figure* with three digits that count."""
    if figure >= 100:
        return f"{figure:,.0f}"
    return f"{figure:.1f}" if figure >= 10 else f"{figure:.2f}"


def ranked(figures: Mapping[str, Figure]) -> Sequence[tuple[str, Figure]]:
    """Return the contenders that have times, the fastest first."""
    return sorted(((name, each) for name, each in figures.items() if each.times), key=lambda pair: pair[1].median)
