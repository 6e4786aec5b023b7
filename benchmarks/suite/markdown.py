"""The results as Markdown: a table for each group, and what they were measured with. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from benchmarks.suite.cases import GROUPS, Case, Group
from benchmarks.suite.results import Figure, Results
from benchmarks.suite.wording import shown, text_of

__all__ = ["chapter", "replace_between", "warning"]

NOTHING: Final = "-"
QUIET: Final = 0.05  # the share of the processors that other programs may use


def replace_between(page: str, begin: str, end: str, text: str) -> str:
    """Return *page* with *text* between the lines *begin* and *end*."""
    before, found, rest = page.partition(f"{begin}\n")
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"the page has no lines {begin} and {end}")
    return f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}"


def chapter(results: Results, pictures: Mapping[str, str]) -> str:
    """Return everything that the page shows of *results*. ``pictures``: the lines of each group's chart, by group."""
    parts = _conditions(results)
    for name, group in GROUPS.items():
        cases = [case for case in group.cases if f"{name}: {case.title}" in results.figures]
        if not cases:
            continue
        figures = {case.title: results.figures[f"{name}: {case.title}"] for case in cases}
        parts += [f"## {group.title}", f"{group.note} In {group.unit}.", pictures[name]]
        # Two cases side by side: a wider table does not fit on a page.
        parts += [_table(group, cases[at : at + 2], figures) for at in range(0, len(cases), 2)]
        parts += _reasons(figures)
    return "\n\n".join(parts) + "\n"


def warning(results: Results) -> str:
    """Return a sentence that says that the times are not reliable; no text if they are."""
    busiest = max(results.busy.values(), default=0.0)
    if busiest <= QUIET:
        return ""
    return (
        f"**Other programs used up to {busiest:.0%} of the processors during the measurement, so these times are not "
        "reliable.**"
    )


def _conditions(results: Results) -> list[str]:
    """Return paragraphs that say when and with what the figures were measured."""
    days = sorted(set(results.days.values()))
    rounds = sorted({len(each.times) for figures in results.figures.values() for each in figures.values()} - {0})
    machine = ", ".join(results.machine.values())
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    measured = f"Measured on {_range(days)}, in {_range([str(each) for each in rounds])} rounds."
    parts = [f"{measured} Machine: {machine}.", f"Versions: {versions}.", warning(results)]
    return [part for part in parts if part]


def _range(values: Sequence[str]) -> str:
    return values[0] if len(values) == 1 else f"{values[0]} to {values[-1]}"


def _table(group: Group, cases: Sequence[Case], figures: Mapping[str, Mapping[str, Figure]]) -> str:
    header = ["client"]
    for case in cases:
        header += [case.title, "half of the rounds", *(["instructions"] * case.is_counted)]
    rows = [
        [name, *(cell for case in cases for cell in _cells(group, case, figures[case.title][name]))]
        for name in figures[cases[0].title]
    ]
    rule = ["---", *(["--:"] * (len(header) - 1))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def _cells(group: Group, case: Case, figure: Figure) -> Iterable[str]:
    if not figure.times:
        return [NOTHING, NOTHING, *([NOTHING] * case.is_counted)]
    low, high = sorted(shown(group, each) for each in figure.quartiles)
    counted = NOTHING if figure.instructions is None else f"{figure.instructions:,}"
    return [
        text_of(shown(group, figure.median)),
        f"{text_of(low)} to {text_of(high)}",
        *([counted] * case.is_counted),
    ]


def _reasons(figures: Mapping[str, Mapping[str, Figure]]) -> list[str]:
    """Return a list of why figures are missing; no list if none is."""
    found: dict[tuple[str, str], list[str]] = {}
    for title, by_name in figures.items():
        for name, figure in by_name.items():
            if figure.reason is not None:
                found.setdefault((name, figure.reason), []).append(title)
    lines = [f"- {name} {reason} ({', '.join(titles)})" for (name, reason), titles in found.items()]
    return ["\n".join(["No figures:", "", *lines])] if lines else []
