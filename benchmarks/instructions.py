"""Count the instructions of a client per operation, with valgrind.

Counting begins when the client is connected and warm. The count is the difference between two runs with different
numbers of operations, so switching the counter on and off does not count. On a shared machine times vary by tens of per
cent, and these counts by less than one. Server and kernel are not counted.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Final

from benchmarks.subjects import OPERATIONS, SUBJECTS, Subject, servers_of
from benchmarks.subjects import subject as subject_called
from benchmarks.tables import print_table

__all__ = ["count", "count_calls", "main", "require_valgrind"]

# By number of keys per operation: the numbers of operations of the two runs.
COUNTS: Final = {1: (200, 1200), 100: (10, 60)}

# The program itself switches the counting on.
VALGRIND: Final = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--instr-atstart=no")
COUNTED: Final = "benchmarks.counted"
COLLECTED: Final = re.compile(r"Collected : (\d+)")


def main() -> None:
    """Print the table of all subjects, with the budget where there is one."""
    require_valgrind()
    print(f"Instructions per key, client only (Python {sys.version.split()[0]}, 100-byte values, batches of 100)\n")
    # Half of the processors: each client needs one for its server. A client that waits for a processor would see its
    # connection as idle and check it, which costs instructions.
    with ThreadPoolExecutor(max((os.cpu_count() or 1) // 2, 1)) as threads:
        pairs = [(subject.name, name) for subject in SUBJECTS for name in _offered(subject)]
        measured = {pair: threads.submit(count, *pair) for pair in pairs}
        counts = {pair: future.result() for pair, future in measured.items()}
    rows = [[subject.name, *(_cell(counts, subject, name) for name in OPERATIONS)] for subject in SUBJECTS]
    print_table(["", *OPERATIONS], rows)


def require_valgrind() -> None:
    """End the program with a message if valgrind is not installed."""
    if shutil.which("valgrind") is None:
        sys.exit("benchmarks: valgrind is not on PATH; install it (apt install valgrind)")


def _offered(subject: Subject) -> list[str]:
    with ExitStack() as stack:
        return list(subject.setup(servers_of(subject, stack), stack))


def count(name: str, operation: str) -> float:
    """Return the instructions of the subject called *name* per key of *operation*."""
    keys = OPERATIONS[operation]
    few, many = COUNTS[keys]
    with ExitStack() as stack:
        addresses = [str(node) for node in servers_of(subject_called(name), stack)]
        return count_calls([COUNTED, name, operation], few, many, addresses) / keys


def count_calls(program: Sequence[str], few: int, many: int, arguments: Sequence[str] = ()) -> float:
    """Return the instructions of one call in *program*: a module and its arguments, before the number of calls.

    The program switches the counting on before its calls and off after them.
    """
    # Run once without valgrind to write the .pyc files, which must not count in only one of the two runs.
    _run((), *program, str(few), *arguments)
    spent = [_collect(*program, str(times), *arguments) for times in (few, many)]
    return (spent[1] - spent[0]) / (many - few)


def _collect(*program: str) -> int:
    output = _run(VALGRIND, *program)
    found = COLLECTED.search(output)
    if found is None:
        raise RuntimeError(f"valgrind printed no count: {output[-2000:]}")
    return int(found[1])


def _run(before: tuple[str, ...], module: str, *arguments: str) -> str:
    """Run the program and return its stderr."""
    done = subprocess.run(
        [*before, sys.executable, "-m", module, *arguments],
        env={**os.environ, "PYTHONHASHSEED": "0"},  # fixes the order of sets, and so the count
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join((module, *arguments))}: exit code {done.returncode}: {done.stderr[-2000:]}")
    return done.stderr


def _cell(counts: dict[tuple[str, str], float], subject: Subject, operation: str) -> str:
    spent = counts.get((subject.name, operation))
    if spent is None:
        return "-"
    budget = _budget(counts, subject, operation)
    if budget is None:
        return f"{spent:,.0f}"
    return f"{spent:,.0f} {'of' if spent <= budget else 'OVER'} {budget:,.0f}"


def _budget(counts: dict[tuple[str, str], float], subject: Subject, operation: str) -> float | None:
    if subject.above is None:
        return subject.budget.get(operation)
    other, more = subject.above
    return counts[other, operation] + more / OPERATIONS[operation]
