"""The file of figures, `benchmarks/results.json`. Measures nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final, cast, final

import attrs

__all__ = ["RESULTS", "Figure", "Results", "load", "save"]

RESULTS: Final = Path(__file__).parents[1] / "results.json"
LIST: Final = re.compile(r"\[[^][{}]*\]")  # of numbers


@final
@attrs.frozen
class Figure:
    """What one contender did in one case.

    ``times``: microseconds for one key, one of each round. ``instructions``: for one key, if they were counted.
    ``reason``: why there are no times, as the end of a sentence about the contender.
    """

    times: tuple[float, ...] = ()
    instructions: int | None = None
    reason: str | None = None

    @property
    def median(self) -> float:
        """The median of the times."""
        return median(self.times)

    @property
    def is_uncounted(self) -> bool:
        """Whether it did the work, and its instructions are not counted."""
        return self.reason is None and self.instructions is None

    @property
    def quartiles(self) -> tuple[float, float]:
        """The lower and the upper quartile of the times: half of the rounds lie between them."""
        if len(self.times) == 1:
            return self.times[0], self.times[0]
        low, _, high = quantiles(self.times, n=4, method="inclusive")
        return low, high


@final
@attrs.frozen
class Results:
    """The figures by case and contender, and what they were measured with.

    ``machine``: what a reader must know about it. ``versions``: of each package. Both are the same for all figures.
    ``days``: when each case was measured. ``busy``: the share of the processors that other programs used at that time.
    """

    machine: Mapping[str, str]
    versions: Mapping[str, str]
    figures: Mapping[str, Mapping[str, Figure]] = attrs.Factory(dict[str, Mapping[str, Figure]])
    days: Mapping[str, str] = attrs.Factory(dict[str, str])
    busy: Mapping[str, float] = attrs.Factory(dict[str, float])

    def fits(self, other: Results) -> bool:
        """Return whether figures of *other* may stand in one table with these."""
        return (self.machine, self.versions) == (other.machine, other.versions)

    def with_case(
        self, case: str, figures: Mapping[str, Figure], *, day: str, busy: float, keeps_counts: bool = False
    ) -> Results:
        """Return these results with new *figures* for *case*. ``keeps_counts``: the old counts of instructions stay."""
        old = {name: each.instructions for name, each in self.figures.get(case, {}).items()} if keeps_counts else {}
        kept = {
            name: attrs.evolve(each, instructions=each.instructions or old.get(name)) for name, each in figures.items()
        }
        return attrs.evolve(
            self,
            figures={**self.figures, case: kept},
            days={**self.days, case: day},
            busy={**self.busy, case: round(busy, 2)},
        )

    def with_count(self, case: str, contender: str, instructions: int) -> Results:
        """Return these results with a count of instructions. The case was measured before."""
        found = self.figures[case]
        counted = attrs.evolve(found[contender], instructions=instructions)
        return attrs.evolve(self, figures={**self.figures, case: {**found, contender: counted}})


def load(path: Path = RESULTS) -> Results | None:
    """Return the results of the file; None if there is no file."""
    if not path.exists():
        return None
    # cast: `save` wrote the file. Any: the fields of the two classes above.
    held = cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8")))
    figures = {
        case: {name: _figure(**each) for name, each in by_name.items()} for case, by_name in held.pop("figures").items()
    }
    return Results(**held, figures=figures)


def _figure(times: Sequence[float] = (), instructions: int | None = None, reason: str | None = None) -> Figure:
    return Figure(tuple(times), instructions, reason)


def save(results: Results, path: Path = RESULTS) -> None:
    """Write *results*. A program that ends meanwhile leaves the old file or the new one."""
    held = attrs.asdict(results, filter=lambda _, value: value is not None and value != ())
    text = LIST.sub(lambda found: " ".join(found[0].split()), json.dumps(held, indent=1))
    written = path.with_suffix(".tmp")
    written.write_text(text + "\n", encoding="utf-8")
    written.replace(path)
