"""Compare instruction counts with committed figures. Measures nothing, and imports no other client.

A count is the number of instructions per key of one operation of one subject.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeAlias, cast

import attrs

__all__ = ["FIGURES", "TOLERANCE", "Change", "Counts", "Figures", "changes", "load", "report", "save"]

FIGURES: Final = Path(__file__).with_name("instructions.json")
TOLERANCE: Final = 0.05  # the share by which a count may rise

Counts: TypeAlias = Mapping[str, Mapping[str, int]]
"""Instructions per key, by subject and operation."""


@attrs.frozen
class Figures:
    """The committed counts, and the version of Python (``"3.11"``) that they were measured with."""

    python: str
    counts: Counts


@attrs.frozen
class Change:
    """One count beside the committed one. None: it was not measured, or there is no committed one."""

    subject: str
    operation: str
    committed: int | None
    measured: int | None

    @property
    def share(self) -> float:
        """The share by which the count rose; negative if it fell, 0.0 if one of the counts is absent."""
        if self.committed is None or self.measured is None:
            return 0.0
        return self.measured / self.committed - 1

    @property
    def fails(self) -> bool:
        """True if the count rose by more than the tolerance, or if one of the two counts is absent."""
        if self.committed is None or self.measured is None:
            return True
        return self.measured > self.committed * (1 + TOLERANCE)


def changes(committed: Counts, measured: Counts) -> list[Change]:
    """Return a change for each operation that is in *committed* or in *measured*, in that order."""
    pairs = dict.fromkeys(
        (subject, name) for counts in (committed, measured) for subject in counts for name in counts[subject]
    )
    return [
        Change(subject, name, committed.get(subject, {}).get(name), measured.get(subject, {}).get(name))
        for subject, name in pairs
    ]


def report(found: list[Change]) -> tuple[list[list[str]], str]:
    """Return the rows of a table of all changes, and a sentence that says whether the check failed and why."""
    rows = [
        [f"{each.subject}: {each.operation}", _text(each.committed), _text(each.measured), _verdict(each)]
        for each in found
    ]
    failed = [f"{each.subject}: {each.operation} ({_verdict(each)})" for each in found if each.fails]
    if not failed:
        return rows, f"No count rose by more than {TOLERANCE:.0%}."
    return rows, f"{len(failed)} of {len(found)} counts failed: {'; '.join(failed)}"


def _text(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"


def _verdict(change: Change) -> str:
    if change.committed is None:
        return "NEW: write the figures"
    if change.measured is None:
        return "GONE: write the figures"
    return f"{change.share:+.1%}" + (" ROSE" if change.fails else "")


def load(path: Path = FIGURES) -> Figures:
    """Return the committed figures."""
    # cast: `save` wrote the file.
    held = cast("dict[str, object]", json.loads(path.read_text(encoding="utf-8")))
    return Figures(python=str(held["python"]), counts=cast("Counts", held["counts"]))


def save(figures: Figures, path: Path = FIGURES) -> None:
    """Write *figures* as sorted JSON, so that a diff shows each count that changed."""
    path.write_text(json.dumps(attrs.asdict(figures), indent=2, sort_keys=True) + "\n", encoding="utf-8")
