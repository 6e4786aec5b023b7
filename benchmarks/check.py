"""The command ``python -m benchmarks.check [--write]``: fail if an instruction count rose by more than 5 %.

The committed counts are in ``instructions.json``. ``--write`` measures and replaces them. Counts depend on the version
of Python, so the check runs only under the one that the file names. A count that rose is measured again, up to twice:
a busy machine adds instructions, and never removes any.
"""

from __future__ import annotations

import argparse
import sys
from typing import Final

from benchmarks.comparison import Change, Counts, Figures, changes, load, report, save
from benchmarks.instructions import count, require_valgrind
from benchmarks.tables import print_table

__all__ = ["main"]

# Only clients of this package, and only the operations that have a goal or a budget.
MEASURED: Final[dict[str, tuple[str, ...]]] = {
    "metacache, Connection": ("get", "set", "get_many", "set_many", "get_or_compute", "cached"),
    "metacache, Pool": ("get", "set"),
    "metacache, Cluster": ("get", "set", "get_many", "set_many"),
    "metacache, Cluster of 3": ("get", "get_many", "set_many"),
    "metacache, Cluster of 10": ("get", "get_many", "set_many"),
    "metacache, Cluster of 3, new keys": ("get", "get_many", "set_many"),
    "metacache, Cluster of 10, new keys": ("get", "get_many", "set_many"),
    "metacache, AsyncPool": ("get, 64 tasks",),
}
ATTEMPTS: Final = 3
PYTHON: Final = f"{sys.version_info.major}.{sys.version_info.minor}"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.check", description="Compare instruction counts with the committed figures."
    )
    parser.add_argument("--write", action="store_true", help="replace the committed figures by those measured now")
    is_writing: bool = parser.parse_args().write
    require_valgrind()
    if is_writing:
        save(Figures(PYTHON, _measure_all()))
        return
    committed = load()
    if committed.python != PYTHON:
        sys.exit(f"benchmarks: the figures are of Python {committed.python}, and this is {PYTHON}; use that version")
    found = [_settled(change) for change in changes(committed.counts, _measure_all())]
    rows, sentence = report(found)
    print_table(["instructions per key", "committed", "now", "change"], rows)
    if any(change.fails for change in found):
        sys.exit(f"benchmarks: {sentence}\nIf it is intended: python -m benchmarks.check --write, and commit the file.")
    print(sentence)


def _measure_all() -> Counts:
    return {subject: {name: _count(subject, name) for name in names} for subject, names in MEASURED.items()}


def _count(subject: str, operation: str) -> int:
    measured = round(count(subject, operation))
    print(f"  {subject}, {operation}: {measured:,}", flush=True)
    return measured


def _settled(change: Change) -> Change:
    """Return *change* after further measurements, if it failed because the count rose."""
    committed, measured = change.committed, change.measured
    for _ in range(1, ATTEMPTS):
        if committed is None or measured is None or not change.fails:
            break
        measured = min(measured, _count(change.subject, change.operation))
        change = Change(change.subject, change.operation, committed, measured)
    return change


if __name__ == "__main__":
    main()
