"""The command ``python -m storms``: run the given storms, or all of them, show progress, and print a table.

It fails if anything happened that must not happen. The random choices follow from the seed, which it prints; the
moments at which threads run do not, so a run with the same seed is similar, not equal.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import secrets
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from storms import aio, blocking, cuts
from storms.measures import Limits, Result
from storms.report import table

Say: TypeAlias = Callable[[str], object]
Storm: TypeAlias = Callable[[Limits, int, Say], Result]

OPERATIONS: Final = 10_000_000
FOREVER: Final = 1e9  # seconds


def _on_asyncio(limits: Limits, seed: int, say: Say) -> Result:
    return aio.run("asyncio", asyncio.new_event_loop, limits, seed, say)


def _on_uvloop(limits: Limits, seed: int, say: Say) -> Result:
    import uvloop  # late: the other storms need no uvloop

    return aio.run("uvloop", uvloop.new_event_loop, limits, seed, say)


# A storm, and its share of the operations and of the time.
STORMS: Final[dict[str, tuple[Storm, float, float]]] = {
    "threads": (blocking.run, 0.4, 0.35),
    "asyncio": (_on_asyncio, 0.3, 0.25),
    "uvloop": (_on_uvloop, 0.29, 0.25),
    "cuts": (cuts.run, 0.01, 0.15),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m storms", description="Random faults under load.")
    parser.add_argument("storm", nargs="*", help=f"{', '.join(STORMS)}; by default all")
    parser.add_argument("--operations", type=int, default=OPERATIONS, help=f"in all; by default {OPERATIONS:,}")
    parser.add_argument("--minutes", type=float, default=0.0, help="end after this time; by default no limit")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="repeat the choices of a run")
    arguments = parser.parse_args()
    chosen: list[str] = arguments.storm or list(STORMS)
    unknown = [name for name in chosen if name not in STORMS]
    if unknown:
        parser.error(f"no storm is called {', '.join(unknown)}; the storms are {', '.join(STORMS)}")
    operations: int = arguments.operations
    minutes: float = arguments.minutes
    seed: int = arguments.seed
    results = run(chosen, operations, minutes * 60 or FOREVER, seed)
    print(table(results))
    if any(result.faults for result in results):
        print(f"\nThere were faults. To repeat the choices: python -m storms --seed {seed}")
        sys.exit(1)


def run(names: Sequence[str], operations: int, seconds: float, seed: int) -> list[Result]:
    """Run the storms *names* one after another; print a line from time to time."""
    for logger in ("metacache", "asyncio"):  # nodes go down, and connections are lost, all the time
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    # A signal or a cancel may come before the first step of a coroutine.
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    all_operations = sum(part for _, part, _ in map(STORMS.__getitem__, names))
    all_seconds = sum(time for _, _, time in map(STORMS.__getitem__, names))
    print(f"seed {seed}; storms: {', '.join(names)}", flush=True)
    results: list[Result] = []
    for name in names:
        storm, part, time = STORMS[name]
        limits = Limits(round(operations * part / all_operations), seconds * time / all_seconds)
        results.append(storm(limits, seed, _say))
        _say(f"  {name}: done, {len(results[-1].faults)} faults")
    return results


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
