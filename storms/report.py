"""The summary of the storms: a table of their figures, and a table of the criteria. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from storms.measures import Result
from storms.memory import GROWTH, NAMES

__all__ = ["Criterion", "criteria", "summary"]


class Criterion(NamedTuple):
    """One demand on all storms together. *passed*: None if the run was too short to say."""

    name: str
    wanted: str
    measured: str
    passed: bool | None


def criteria(results: Sequence[Result], operations: int) -> list[Criterion]:
    """Return what was demanded of *results*, which were to run that many *operations*."""
    done = sum(each.tally.operations for each in results)
    counts = {
        "foreign values": sum(each.tally.foreign for each in results),
        "late operations": sum(each.tally.late for each in results),
    }
    for name in ("sockets", "slots", "tasks", "leases"):
        counts[f"leaked {name}"] = sum(each.leaks[name] for each in results)
    counts["all faults"] = sum(len(each.faults) for each in results)
    return [
        Criterion("operations", f"{operations:,}", f"{done:,}", True if done >= operations else None),
        *(Criterion(name, "0", f"{count:,}", count == 0) for name, count in counts.items()),
        *_memory(results),
    ]


def _memory(results: Sequence[Result]) -> list[Criterion]:
    grown = [each.growth for each in results if each.growth is not None]
    most: Sequence[float | None] = [max(each) for each in zip(*grown, strict=True)] or [None] * len(NAMES)
    return [_growth(name, share) for name, share in zip(NAMES, most, strict=True)]


def _growth(name: str, share: float | None) -> Criterion:
    wanted = f"grows < {GROWTH:.0%}"
    if share is None:
        return Criterion(name, wanted, "not measured", None)
    return Criterion(name, wanted, f"{share:+.2%} at most", share < GROWTH)


def summary(results: Sequence[Result], operations: int) -> str:
    """Return *results* as tables, with the events and the faults between them."""
    return "\n\n".join([_figures(results), _events(results), _criteria(criteria(results, operations))])


def _figures(results: Sequence[Result]) -> str:
    lines = [
        f"{'storm':<13}{'seconds':>8}{'operations':>13}{'foreign':>9}{'over':>7}{'late':>6}{'worst ms':>10}"
        f"{'lag ms':>8}{'sockets':>9}{'slots':>7}{'tasks':>7}{'leases':>8}{'resident':>10}{'in use':>8}{'faults':>8}"
    ]
    for each in results:
        tally = each.tally
        resident, in_use = ("-", "-") if each.growth is None else map("{:+.2%}".format, each.growth)
        lines.append(
            f"{each.name:<13}{each.seconds:>8.0f}{tally.operations:>13,}{tally.foreign:>9}{tally.over:>7}"
            f"{tally.late:>6}{tally.worst * 1000:>10.0f}{each.lag * 1000:>8.0f}{each.sockets:>9}{each.slots:>7}"
            f"{each.tasks:>7}{each.leases:>8}{resident:>10}{in_use:>8}{len(each.faults):>8}"
        )
    return "\n".join(lines)


def _events(results: Sequence[Result]) -> str:
    lines: list[str] = []
    for each in results:
        outcomes = ", ".join(f"{count:,} {name}" for name, count in each.tally.outcomes.most_common())
        lines.append(f"{each.name}: {each.events}; {outcomes}")
        lines += [f"  FAULT {text}" for text in each.faults]
    return "\n".join(lines)


def _criteria(found: Sequence[Criterion]) -> str:
    verdicts = {True: "pass", False: "FAIL", None: "too short to say"}
    lines = [f"{'criterion':<18}{'wanted':>14}{'measured':>18}  verdict"]
    lines += [f"{each.name:<18}{each.wanted:>14}{each.measured:>18}  {verdicts[each.passed]}" for each in found]
    return "\n".join(lines)
