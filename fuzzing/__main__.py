"""The command ``python -m fuzzing``: fuzz the targets with atheris, two at a time, and print a table.

Inputs that reach new code are kept in .fuzz/, and the next run begins with them. An input that finds a fault is kept in
.fuzz/faults/; ``--replay FILE`` runs it again. Time and memory of each input are limited.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

from fuzzing.targets import CORPUS, TARGETS

HOME: Final = Path(".fuzz")
FAULTS: Final = HOME / "faults"
JOBS: Final = 2
LIMITS: Final = (
    "-rss_limit_mb=1024",  # of the process
    "-malloc_limit_mb=256",  # of one allocation
    "-timeout=10",  # seconds for one input
    "-max_len=4096",  # bytes
    "-print_final_stats=1",
    "-verbosity=1",
    f"-artifact_prefix={FAULTS}/",
)
GRACE: Final = 60.0  # seconds until a worker that does not end is killed

_coverage = re.compile(r"cov: (\d+) ft: \d+ corp: (\d+)/").findall
_statistic = re.compile(r"stat::(\w+):\s+(\d+)").findall


class Result(NamedTuple):
    """What one target did."""

    target: str
    seconds: float
    runs: int
    coverage: int
    inputs: int
    megabytes: int
    fault: str


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m fuzzing", description="Fuzz what reads the bytes of others.")
    parser.add_argument("target", nargs="*", help=f"{', '.join(TARGETS)}; by default all")
    parser.add_argument("--minutes", type=float, default=20.0, help="for all targets together")
    parser.add_argument("--replay", type=Path, help="run one target with the bytes of this file")
    arguments = parser.parse_args()
    chosen: list[str] = arguments.target or list(TARGETS)
    unknown = [name for name in chosen if name not in TARGETS]
    if unknown:
        parser.error(f"no target is called {', '.join(unknown)}; the targets are {', '.join(TARGETS)}")
    replay: Path | None = arguments.replay
    if replay is not None:
        for name in chosen:
            TARGETS[name](replay.read_bytes())
        return
    minutes: float = arguments.minutes
    results = fuzz(chosen, minutes * 60)
    show(results)
    if any(result.fault for result in results):
        sys.exit(1)


def fuzz(targets: Sequence[str], seconds: float) -> list[Result]:
    """Fuzz *targets*, `JOBS` at a time, for *seconds* in all. Print a line when one ends."""
    FAULTS.mkdir(parents=True, exist_ok=True)
    each = max(1, int(seconds * min(JOBS, len(targets)) / len(targets)))
    print(f"{len(targets)} targets, {each} s each, {JOBS} at a time", flush=True)
    with ThreadPoolExecutor(JOBS) as workers:
        results: list[Result] = []
        for result in workers.map(run, targets, [each] * len(targets)):
            print(f"  {result.target}: {result.runs:,} inputs, {result.fault or 'no fault'}", flush=True)
            results.append(result)
    return results


def run(target: str, seconds: int) -> Result:
    """Run one target in a process of its own."""
    own = HOME / target
    own.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "fuzzing.worker", target, *LIMITS, f"-max_total_time={seconds}"]
    began = time.monotonic()
    with (HOME / f"{target}.log").open("w") as log:
        process = subprocess.Popen([*command, str(own), str(CORPUS / target)], stdout=log, stderr=log)
        try:
            status = process.wait(seconds + GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
    output = (HOME / f"{target}.log").read_text(errors="replace")
    covered: list[tuple[str, str]] = _coverage(output) or [("0", "0")]
    known: dict[str, int] = {name: int(number) for name, number in _statistic(output)}
    return Result(
        target,
        time.monotonic() - began,
        known.get("number_of_executed_units", 0),
        int(covered[-1][0]),
        int(covered[-1][1]),
        known.get("peak_rss_mb", 0),
        f"FAULT, see {own}.log" if status else "",
    )


def show(results: Sequence[Result]) -> None:
    """Print the table."""
    print(f"\n{'target':<20}{'seconds':>9}{'inputs':>14}{'per second':>12}{'branches':>10}{'kept':>7}{'MiB':>6}  fault")
    for each in results:
        print(
            f"{each.target:<20}{each.seconds:>9.0f}{each.runs:>14,}{each.runs / max(each.seconds, 1):>12,.0f}"
            f"{each.coverage:>10,}{each.inputs:>7,}{each.megabytes:>6}  {each.fault or 'none'}"
        )
    print(f"{'all':<20}{sum(each.seconds for each in results):>9.0f}{sum(each.runs for each in results):>14,}")


if __name__ == "__main__":
    main()
