"""Measure `dumps` and `loads` of the serializers for one record of eight fields: time, and instructions by valgrind.

``python -m benchmarks.serializers NAME METHOD COUNT`` repeats one method; the section runs this program under valgrind.
"""

from __future__ import annotations

import shutil
import sys
import timeit
from collections.abc import Callable, Mapping
from typing import Final

from benchmarks import records
from benchmarks.counted import WARM_UP, switch_counting
from benchmarks.instructions import count_calls
from benchmarks.tables import print_table
from metacache import load_serializer

__all__ = ["main"]

METHODS: Final = ("dumps", "loads")
ROUNDS: Final = 600
CALLS: Final = 20  # a short round: on a shared machine a long one is always interrupted
# The numbers of calls of the two runs under valgrind.
FEW, MANY = 50, 550


# By serializer. object: each has another class.
VALUES: Final[Mapping[str, object]] = {
    "msgspec": records.struct(),
    "msgspec-json": records.struct(),
    "orjson": records.attrs_record(),
    "attrs": records.attrs_record(),
    "pydantic": records.model(),
}


def call_of(name: str, method: str) -> Callable[[], object]:
    """Return a call of *method* of the serializer *name*."""
    value = VALUES[name]
    serializer = load_serializer(name, type(value))
    data = serializer.dumps(value)
    return (lambda: serializer.dumps(value)) if method == "dumps" else (lambda: serializer.loads(data))


def main() -> None:
    """Print the table. Without valgrind it has no instructions."""
    print(f"A record of eight fields: us, the best of {ROUNDS} rounds; and instructions\n")
    rows: list[list[str]] = []
    for name, value in VALUES.items():
        times = [min(timeit.repeat(call_of(name, each), number=CALLS, repeat=ROUNDS)) / CALLS for each in METHODS]
        counts = [f"{_count(name, each):,.0f}" for each in METHODS] if shutil.which("valgrind") else ["-", "-"]
        size = len(load_serializer(name, type(value)).dumps(value))
        rows.append([name, str(size), *(f"{each * 1e6:.1f}" for each in times), *counts])
    print_table(["", "bytes", "dumps us", "loads us", "dumps instr.", "loads instr."], rows)


def _count(name: str, method: str) -> float:
    return count_calls(["benchmarks.serializers", name, method], FEW, MANY)


def repeat(name: str, method: str, count: str) -> None:
    call = call_of(name, method)
    for _ in range(WARM_UP):
        call()
    switch_counting("on")
    for _ in range(int(count)):
        call()
    switch_counting("off")


if __name__ == "__main__":
    repeat(*sys.argv[1:])
