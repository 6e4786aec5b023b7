"""Measure what a short program pays: the import, and a dial with one get and a close, against pymemcache.

The measurements of one round are compared with one another, so a busy machine disturbs the ratios little.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from statistics import median
from time import perf_counter
from typing import Final

import pymemcache

from benchmarks.pairing import Times, ratio, take_times
from benchmarks.peers import host_and_port
from benchmarks.repeating import Repeat
from benchmarks.tables import print_table
from metacache import Client, Connection, Node
from metacache.testing import Memcached

__all__ = ["dial_ratio", "import_milliseconds", "main"]

ROUNDS: Final = 25
DIALS: Final = 20  # in a round
BARE: Final = "pass"
CONNECT: Final = "from metacache import connect"
IMPORTS: Final = (
    BARE,
    CONNECT,
    "from metacache import connect_async",
    "import metacache",
    "import attrs, xxhash, typing_extensions",
    "import pymemcache",
)


def main() -> None:
    """Print the times of imports, and the ratio of dials."""
    print(f"Import, above a bare interpreter: median of {ROUNDS} rounds\n")
    times = _import_times(IMPORTS)
    rows = [[program, f"{_above_bare(times, program):.1f}"] for program in IMPORTS if program != BARE]
    print_table(["", "ms"], rows)
    print(f"\nDial, get and close: median of {ROUNDS} rounds (quartiles)\n")
    dials = _dial_times()
    print_table(
        ["", "us", "by pymemcache"],
        [[name, f"{median(spent) * 1e6:,.0f}", ratio(dials, name, "pymemcache")] for name, spent in dials.items()],
    )


def import_milliseconds(program: str = CONNECT) -> float:
    """Return how many milliseconds *program* takes above a bare interpreter."""
    return _above_bare(_import_times((BARE, program)), program)


def dial_ratio() -> float:
    """Return the time of a dial, a get and a close, divided by that of pymemcache."""
    times = _dial_times()
    return median(one / two for one, two in zip(times["metacache"], times["pymemcache"], strict=True))


def _above_bare(times: Mapping[str, Sequence[float]], program: str) -> float:
    return 1000 * median(one - bare for one, bare in zip(times[program], times[BARE], strict=True))


def _import_times(programs: Sequence[str]) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {program: [] for program in programs}
    for number in range(ROUNDS + 1):
        for program in programs:
            began = perf_counter()
            # -B would not write the compiled modules, and each run would compile them again.
            subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONDONTWRITEBYTECODE": ""})
            if number:  # the first run writes the compiled modules
                times[program].append(perf_counter() - began)
    return times


def _dial_times() -> Times:
    with ExitStack() as stack:
        node = stack.enter_context(Memcached()).node
        return take_times({"metacache": _dials(node), "pymemcache": _other_dials(node)}, rounds=ROUNDS, count=DIALS)


def _dials(node: Node) -> Repeat:
    def repeat(times: int) -> None:
        for _ in range(times):
            with Client(Connection(node), owns=True) as client:
                client.get("key")

    return repeat


def _other_dials(node: Node) -> Repeat:
    def repeat(times: int) -> None:
        for _ in range(times):
            client = pymemcache.Client(host_and_port(node), no_delay=True)
            client.get("key")
            client.close()

    return repeat
