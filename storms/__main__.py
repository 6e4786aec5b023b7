"""The command ``python -m storms``: run the given storms, or all of them, show progress, and print a table.

It fails if anything happened that must not happen. It starts itself again with the library that measures waits.

The random choices follow from the seed, which it prints. The moments at which threads run do not, so a run with the
same seed is similar, not equal.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import secrets
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeAlias

from storms import aio, blocking, cuts
from storms.fleet import has_tls
from storms.measures import Limits, Result
from storms.report import summary
from storms.waits import measure, restarted

Say: TypeAlias = Callable[[str], object]
Storm: TypeAlias = Callable[[Limits, int, Say], Result]

OPERATIONS: Final = 10_000_000
FOREVER: Final = 1e9  # seconds
AT_LEAST: Final = 150.0  # seconds of each storm: fewer would not show that its memory grows


def _asyncio_loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def _uvloop_loop() -> asyncio.AbstractEventLoop:
    import uvloop  # late: the other storms need no uvloop

    return uvloop.new_event_loop()


# A storm, and its share of the operations and of the time. Storms with TLS only where memcached has it.
STORMS: Final[dict[str, tuple[Storm, float, float]]] = {
    "threads": (partial(blocking.run, "threads"), 0.35, 0.3),
    "threads-tls": (partial(blocking.run, "threads-tls", is_tls=True), 0.05, 0.1),
    "asyncio": (partial(aio.run, "asyncio", _asyncio_loop), 0.25, 0.2),
    "uvloop": (partial(aio.run, "uvloop", _uvloop_loop), 0.24, 0.2),
    "asyncio-tls": (partial(aio.run, "asyncio-tls", _asyncio_loop, is_tls=True), 0.05, 0.05),
    "uvloop-tls": (partial(aio.run, "uvloop-tls", _uvloop_loop, is_tls=True), 0.05, 0.05),
    "cuts": (cuts.run, 0.01, 0.1),
}


def main() -> None:
    restarted(["-m", "storms", *sys.argv[1:]])
    parser = argparse.ArgumentParser(prog="python -m storms", description="Random faults under load.")
    parser.add_argument("storm", nargs="*", help=f"{', '.join(STORMS)}; by default all")
    parser.add_argument("--operations", type=int, default=OPERATIONS, help=f"in all; by default {OPERATIONS:,}")
    parser.add_argument("--minutes", type=float, default=0.0, help="end after this time; by default no limit")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="repeat the choices of a run")
    arguments = parser.parse_args()
    chosen: list[str] = arguments.storm or [name for name in STORMS if "tls" not in name or has_tls()]
    unknown = [name for name in chosen if name not in STORMS]
    if unknown:
        parser.error(f"no storm is called {', '.join(unknown)}; the storms are {', '.join(STORMS)}")
    operations: int = arguments.operations
    minutes: float = arguments.minutes
    seed: int = arguments.seed
    results = run(chosen, operations, minutes * 60 or FOREVER, seed)
    print(f"\n{summary(results, operations)}\n")
    if any(result.faults for result in results):
        print(f"FAILED. To repeat the choices: python -m storms --seed {seed}")
        sys.exit(1)
    print("PASSED")


def run(names: Sequence[str], operations: int, seconds: float, seed: int) -> list[Result]:
    """Run the storms *names* one after another; print a line from time to time."""
    for logger in ("metacache", "asyncio"):  # nodes go down, and connections are lost, all the time
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    # A signal or a cancel may come before the first step of a coroutine.
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    all_operations = sum(part for _, part, _ in map(STORMS.__getitem__, names))
    all_seconds = sum(time for _, _, time in map(STORMS.__getitem__, names))
    how = "in each thread" if measure() else "by a sleeper, because there is no C compiler"
    _say(f"seed {seed}; storms: {', '.join(names)}; the lag of the machine is measured {how}")
    results: list[Result] = []
    for name in names:
        storm, part, time = STORMS[name]
        limits = Limits(round(operations * part / all_operations), seconds * time / all_seconds, AT_LEAST)
        results.append(storm(limits, seed, _say))
        _say(f"  {name}: done, {len(results[-1].faults)} faults")
    return results


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
