"""The summary table of the storms. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from storms.measures import Result

__all__ = ["table"]


def table(results: Sequence[Result]) -> str:
    """Return *results* as a table, with the faults and the events below it."""
    lines = [
        f"{'storm':<10}{'seconds':>8}{'operations':>13}{'foreign':>9}{'over':>7}{'late':>6}{'worst ms':>10}"
        f"{'lag ms':>8}{'sockets':>9}{'slots':>7}{'tasks':>7}{'leases':>8}{'memory':>9}{'faults':>8}"
    ]
    for each in results:
        tally = each.tally
        grown = "-" if each.growth is None else f"{each.growth:+.2%}"
        lines.append(
            f"{each.name:<10}{each.seconds:>8.0f}{tally.operations:>13,}{tally.foreign:>9}{tally.over:>7}"
            f"{tally.late:>6}{tally.worst * 1000:>10.0f}{each.lag * 1000:>8.0f}{each.sockets:>9}{each.slots:>7}"
            f"{each.tasks:>7}{each.leases:>8}{grown:>9}{len(each.faults):>8}"
        )
    lines.append(f"{'all':<10}{sum(each.seconds for each in results):>8.0f}{_operations(results):>13,}")
    lines.append("")
    for each in results:
        outcomes = ", ".join(f"{count:,} {name}" for name, count in each.tally.outcomes.most_common())
        lines.append(f"{each.name}: {each.events}; {outcomes}")
        lines += [f"  FAULT {text}" for text in each.faults]
    return "\n".join(lines)


def _operations(results: Sequence[Result]) -> int:
    return sum(each.tally.operations for each in results)
