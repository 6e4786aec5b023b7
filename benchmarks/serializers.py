"""Measure `dumps` and `loads` of the serializers for one record of eight fields: time, and instructions by valgrind.

``python -m benchmarks.serializers NAME METHOD COUNT`` repeats one method; the section runs this program under valgrind.
"""

from __future__ import annotations

import datetime
import shutil
import sys
import timeit
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import pydantic

from benchmarks.instructions import run_counted
from benchmarks.tables import print_table
from metacache import load_serializer

__all__ = ["main"]

METHODS: Final = ("dumps", "loads")
ROUNDS: Final = 600
CALLS: Final = 20  # a short round: on a shared machine a long one is always interrupted
# The numbers of calls of the two runs under valgrind.
FEW, MANY = 50, 550


class AddressStruct(msgspec.Struct):
    street: str
    zip: str


class UserStruct(msgspec.Struct):
    name: str
    age: int
    score: float
    active: bool
    joined: datetime.datetime
    tags: list[str]
    address: AddressStruct
    note: str | None = None


class AddressModel(pydantic.BaseModel):
    street: str
    zip: str


class UserModel(pydantic.BaseModel):
    name: str
    age: int
    score: float
    active: bool
    joined: datetime.datetime
    tags: list[str]
    address: AddressModel
    note: str | None = None


FIELDS: Final[dict[str, object]] = {
    "name": "Ada Lovelace",
    "age": 36,
    "score": 12.5,
    "active": True,
    "joined": datetime.datetime(2026, 5, 1, 12, 30, tzinfo=datetime.UTC),
    "tags": ["new", "gift", "member"],
    "address": {"street": "12 St James's Square", "zip": "SW1Y 4JH"},
    "note": "leave it at the door",
}

# By serializer: the class and the value. Any: each has another class.
VALUES: Final[Mapping[str, tuple[Any, Any]]] = {
    "msgspec": (UserStruct, msgspec.convert(FIELDS, UserStruct)),
    "msgspec-json": (UserStruct, msgspec.convert(FIELDS, UserStruct)),
    "pydantic": (UserModel, UserModel.model_validate(FIELDS)),
}


def call_of(name: str, method: str) -> Callable[[], object]:
    """Return a call of *method* of the serializer *name*."""
    type_, value = VALUES[name]
    serializer = load_serializer(name, type_)
    data = serializer.dumps(value)
    return (lambda: serializer.dumps(value)) if method == "dumps" else (lambda: serializer.loads(data))


def main() -> None:
    """Print the table. Without valgrind it has no instructions."""
    print(f"A record of eight fields: us, the best of {ROUNDS} rounds; and instructions\n")
    rows: list[list[str]] = []
    for name, (type_, value) in VALUES.items():
        times = [min(timeit.repeat(call_of(name, each), number=CALLS, repeat=ROUNDS)) / CALLS for each in METHODS]
        counts = [f"{_count(name, each):,.0f}" for each in METHODS] if shutil.which("valgrind") else ["-", "-"]
        size = len(load_serializer(name, type_).dumps(value))
        rows.append([name, str(size), *(f"{each * 1e6:.1f}" for each in times), *counts])
    print_table(["", "bytes", "dumps us", "loads us", "dumps instr.", "loads instr."], rows)


def _count(name: str, method: str) -> float:
    program = ("benchmarks.serializers", name, method)
    return (run_counted(*program, str(MANY)) - run_counted(*program, str(FEW))) / (MANY - FEW)


def repeat(name: str, method: str, count: str) -> None:
    call = call_of(name, method)
    for _ in range(int(count)):
        call()


if __name__ == "__main__":
    repeat(*sys.argv[1:])
