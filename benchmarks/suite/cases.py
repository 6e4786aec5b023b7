"""What is measured: a table of cases in groups. To add a case, add a row. Measures nothing."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final, final

import attrs

__all__ = ["CASES", "GROUPS", "Case", "Group", "Kind", "Verb"]


@final
class Verb(Enum):
    """What a client does."""

    GET = "get"
    SET = "set"
    MISS = "miss"
    GET_MANY = "get_many"
    SET_MANY = "set_many"

    @property
    def is_batch(self) -> bool:
        """Whether one call is for several keys."""
        return self in (Verb.GET_MANY, Verb.SET_MANY)


@final
class Kind(Enum):
    """Which contenders do the work."""

    BLOCKING = "blocking"
    TYPED = "typed"
    ASYNCIO = "asyncio"


@final
@attrs.frozen
class Case:
    """One kind of work.

    ``title`` is unique within a group. ``keys``: of one call. ``is_counted``: its instructions are counted too.
    ``loop``: the event loop of asyncio contenders.
    """

    title: str
    verb: Verb
    size: int = 100
    keys: int = 1
    nodes: int = 1
    is_unix: bool = False
    threads: int = 1
    tasks: int = 1
    loop: str = "asyncio"
    is_counted: bool = False


@final
@attrs.frozen
class Group:
    """Cases that one table and one chart show.

    ``per_second``: the figures are shown as operations per second, else as microseconds per operation.
    """

    title: str
    kind: Kind
    cases: tuple[Case, ...]
    note: str
    per_second: bool = False

    @property
    def unit(self) -> str:
        """The unit of the figures, and which way is better."""
        return "thousand gets per second, higher is better" if self.per_second else "µs per key, lower is better"


SIZES: Final = {"100 B": 100, "10 KB": 10_000, "1 MB": 1_000_000}
BATCHES: Final = (100, 1_000)
THREADS: Final = (1, 8, 64)
TASKS: Final = (1, 8, 64, 512)
NODES: Final = (3, 10, 30)


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count > 1)}"


GROUPS: Final[Mapping[str, Group]] = {
    "single": Group(
        "One value in a call",
        Kind.BLOCKING,
        (
            *(
                Case(f"{verb.value} {name}", verb, size, is_counted=size == 100)
                for name, size in SIZES.items()
                for verb in (Verb.GET, Verb.SET)
            ),
            Case("get of a missing key", Verb.MISS),
        ),
        "One thread, one connection, TCP over loopback.",
    ),
    "unix": Group(
        "Unix socket",
        Kind.BLOCKING,
        (Case("get 100 B", Verb.GET, is_unix=True), Case("set 100 B", Verb.SET, is_unix=True)),
        "The same calls over a unix socket.",
    ),
    "batches": Group(
        "Many values in a call",
        Kind.BLOCKING,
        tuple(
            Case(f"{verb.value} of {keys:,}", verb, keys=keys, is_counted=keys == 100)
            for keys in BATCHES
            for verb in (Verb.GET_MANY, Verb.SET_MANY)
        ),
        "Values of 100 bytes. The figures are for one key.",
    ),
    "typed": Group(
        "Objects",
        Kind.TYPED,
        tuple(Case(f"{verb.value} a User", verb, is_counted=True) for verb in (Verb.GET, Verb.SET)),
        "A `User` of eight fields, two of them nested, from the object in Python to the server and back.",
    ),
    "routing": Group(
        "Many servers",
        Kind.BLOCKING,
        tuple(
            Case(f"get_many over {count} nodes", Verb.GET_MANY, keys=100, nodes=count, is_counted=count <= 10)
            for count in NODES
        ),
        "`get_many` of 100 values of 100 bytes, which are spread over the servers. The figures are for one key.",
    ),
    "threads": Group(
        "Threads",
        Kind.BLOCKING,
        tuple(Case(_plural(count, "thread"), Verb.GET, threads=count) for count in THREADS),
        "Gets of 100 bytes by all threads together, with as many connections as threads.",
        per_second=True,
    ),
    "tasks": Group(
        "Tasks",
        Kind.ASYNCIO,
        tuple(
            Case(
                f"{loop}, {_plural(count, 'task')}",
                Verb.GET,
                tasks=count,
                loop=loop,
                is_counted=count == 64 and loop == "asyncio",
            )
            for loop in ("asyncio", "uvloop")
            for count in TASKS
        ),
        "Gets of 100 bytes by all tasks of one event loop together. Each client has its best number of connections.",
        per_second=True,
    ),
}

CASES: Final[Mapping[str, tuple[Group, Case]]] = {
    f"{name}: {case.title}": (group, case) for name, group in GROUPS.items() for case in group.cases
}
"""Each case with its group, by the name that the results have it under."""
