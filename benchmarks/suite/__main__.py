"""The command ``python -m benchmarks.suite``: `run` measures, `publish` makes tables and charts, `all` does both."""

from __future__ import annotations

import argparse
import shutil

from benchmarks.suite import machine, results
from benchmarks.suite.cases import CASES, GROUPS
from benchmarks.suite.contenders import CONTENDERS
from benchmarks.suite.publishing import publish
from benchmarks.suite.results import Results
from benchmarks.suite.running import Plan, run

ROUNDS = 21
BUSY = 0.1  # the share of the processors above which a run says that it is not alone


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.suite", description="Compare with other clients.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in (("run", "measure, and save benchmarks/results.json"), ("all", "run, then publish")):
        command = commands.add_parser(name, help=what)
        command.add_argument("--group", nargs="+", choices=GROUPS, default=list(GROUPS), help="only these groups")
        command.add_argument(
            "--rounds", type=int, default=ROUNDS, help=f"of each case; {ROUNDS}, or 3 for a quick look"
        )
        command.add_argument("--no-instructions", action="store_true", help="measure only times")
        command.add_argument("--resume", action="store_true", help="measure only the cases that have no figures yet")
    commands.add_parser("publish", help="make the pages and the charts from benchmarks/results.json")
    arguments = parser.parse_args()
    if arguments.command != "publish":
        _run(arguments)
    if arguments.command != "run":
        publish()


def _run(arguments: argparse.Namespace) -> None:
    start = _start()
    names = [name for name, (group, _) in CASES.items() if group in [GROUPS[chosen] for chosen in arguments.group]]
    timed = [name for name in names if not (arguments.resume and name in start.figures)]
    is_counting = not arguments.no_instructions and shutil.which("valgrind") is not None
    counted = [name for name in names if is_counting and CASES[name][1].is_counted]
    if not is_counting:
        print("Instructions are not counted." if arguments.no_instructions else "Without valgrind: only times.")
    if (busy := machine.busy_share()) > BUSY:
        print(f"Other programs use {busy:.0%} of the processors. The times will be wrong.")
    try:
        run(Plan(timed, counted, arguments.rounds), start)
    except KeyboardInterrupt:
        print("Ended. What was measured is in benchmarks/results.json; --resume measures the rest.")
        raise SystemExit(1) from None


def _start() -> Results:
    """Return the saved results if they are of this machine and these versions, else results without figures."""
    contenders = [each for group in CONTENDERS.values() for each in group]
    packages = [
        *(each.distribution for each in contenders),
        "metacache-speed",
        "msgspec",
        "orjson",
        "attrs",
        "pydantic",
    ]
    fresh = Results(machine.machine(), machine.versions([*packages, "uvloop"]))
    saved = results.load()
    if saved is not None and saved.fits(fresh):
        return saved
    if saved is not None:
        print("The saved figures are of another machine or other versions, and are dropped.")
    return fresh


if __name__ == "__main__":
    main()
