"""Measure the cases: ask the workers in turn, and save the results after each case.

Ending the program with Ctrl-C loses no more than the case that is being measured.
"""

from __future__ import annotations

import datetime
import math
import re
import subprocess
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, TypeAlias, final

import attrs
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from benchmarks.instructions import COUNTS
from benchmarks.pairing import take_turns
from benchmarks.suite import machine
from benchmarks.suite.cases import CASES, Case, Kind
from benchmarks.suite.contenders import CONTENDERS, Contender
from benchmarks.suite.results import RESULTS, Figure, Results, save
from benchmarks.suite.worker import Worker, WorkerFailed
from metacache import Node
from metacache.testing import Memcached

__all__ = ["Plan", "run"]

ROUND: Final = 0.05  # seconds of a contender
LONG_ROUND: Final = 0.1  # where a round first starts threads or tasks
SAMPLE: Final = 0.5  # seconds in which it finds out how busy the machine is
COUNTING: Final = 4.0  # seconds that a count takes, for the progress bar
COUNTS_BY_NODES: Final = (
    2,
    12,
)  # calls of the two counts: with many nodes, a batch costs some clients 10^8 instructions
OPTIONS: Final = ("-m", "1024")
VALGRIND: Final = ("valgrind", "--tool=callgrind", "--instr-atstart=no")
TOTALS: Final = re.compile(r"^totals: (\d+)", re.MULTILINE)

Say: TypeAlias = Callable[[str, float], None]
"""Shows what is being done, after the given number of seconds' worth of work."""


@final
@attrs.frozen
class Plan:
    """What to measure, as names of CASES: ``timed`` in *rounds* rounds; ``counted``: instructions that are missing."""

    timed: Sequence[str]
    counted: Sequence[str]
    rounds: int

    @property
    def seconds(self) -> float:
        """About how long it takes, without the starts."""
        times = sum(self.rounds * _round(CASES[name][1]) * _contenders(name) for name in self.timed)
        return times + sum(COUNTING * _contenders(name) for name in self.counted)


def _contenders(name: str) -> int:
    return len(CONTENDERS[CASES[name][0].kind])


def run(plan: Plan, start: Results, path: Path = RESULTS) -> None:
    """Measure *plan*, and save *start* with the new figures to *path* after each case."""
    found = start
    with _progress(plan.seconds) as say, ExitStack() as stack:
        bench = Bench(Servers(stack), say)
        for kind in Kind:
            names = [name for name in plan.timed if CASES[name][0].kind is kind]
            for name, busy, figures in bench.times(kind, names, plan.rounds):
                found = found.with_case(name, figures, day=_today(), busy=busy, keeps_counts=name not in plan.counted)
                save(found, path)
        for kind in Kind:
            names = [name for name in plan.counted if CASES[name][0].kind is kind]
            for contender in CONTENDERS[kind]:
                missing = [name for name in names if found.figures[name][contender.name].is_uncounted]
                for name, count in bench.counts(kind, contender, missing):
                    found = found.with_count(name, contender.name, count)
                    save(found, path)


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


@final
class Servers:
    """Private servers, which are started when they are first needed. asyncio contenders have one each."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._started: dict[tuple[str, bool], list[Memcached]] = {}

    def nodes(self, name: str, contender: str) -> list[Node]:
        """Return the nodes that *contender* needs for the case called *name*."""
        group, case = CASES[name]
        owner = contender if group.kind is Kind.ASYNCIO else ""
        servers = self._started.setdefault((owner, case.is_unix), [])
        while len(servers) < case.nodes:
            servers.append(self._stack.enter_context(Memcached(OPTIONS, unix=case.is_unix)))
        return [server.node for server in servers[: case.nodes]]


# --- times -----------------------------------------------------------------------------------------------------------


def _round(case: Case) -> float:
    return LONG_ROUND if max(case.threads, case.tasks) > 1 else ROUND


@final
class Entrant:
    """A contender in one case. Once its worker fails it does nothing, and keeps the reason."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.reason: str | None = None

    def prepare(self, case: str, nodes: Sequence[Node]) -> None:
        """Let it connect and store the values."""
        try:
            self._worker.prepare(case, nodes)
        except WorkerFailed as failed:
            self.reason = str(failed)

    def time(self, seconds: float) -> float:
        """Let it work for about *seconds*, and return the seconds of one operation; NaN after a failure."""
        if self.reason is None:
            try:
                return self._worker.time(seconds)
            except WorkerFailed as failed:
                self.reason = str(failed)
        return math.nan

    def figure(self, times: Sequence[float], keys: int) -> Figure:
        """Return what it did, from the *times* of calls with *keys*."""
        if self.reason is not None:
            return Figure(reason=self.reason)
        return Figure(tuple(float(f"{time / keys * 1e6:.4g}") for time in times))


@final
class Bench:
    """Measures contenders on private servers, and shows what it does."""

    def __init__(self, servers: Servers, say: Say) -> None:
        self._servers = servers
        self._say = say

    def times(self, kind: Kind, names: Sequence[str], rounds: int) -> Iterator[tuple[str, float, Mapping[str, Figure]]]:
        """Yield for each case how busy the machine was after it, and the figures of all contenders.

        After it: before the first case, the processors are busy with the start of the workers.
        """
        with ExitStack() as stack:
            contenders = CONTENDERS[kind] if names else ()
            workers = {each.name: stack.enter_context(closing(Worker(kind, each))) for each in contenders}
            for name in names:
                figures = self._times(name, workers, rounds)
                yield name, machine.busy_share(SAMPLE), figures

    def _times(self, name: str, workers: Mapping[str, Worker], rounds: int) -> Mapping[str, Figure]:
        _, case = CASES[name]
        seconds = _round(case)
        entrants = {which: Entrant(worker) for which, worker in workers.items()}
        for which, entrant in entrants.items():
            entrant.prepare(name, self._servers.nodes(name, which))

        def take_round(which: str) -> float:
            self._say(f"{name} | {which}", seconds)
            return entrants[which].time(seconds)

        times = take_turns({which: partial(take_round, which) for which in entrants}, rounds)
        return {which: entrant.figure(times[which], case.keys) for which, entrant in entrants.items()}

    def counts(self, kind: Kind, contender: Contender, names: Sequence[str]) -> Iterator[tuple[str, int]]:
        """Yield each name of a case with the instructions for one key, counted in one process under valgrind.

        Stops after a failure, and prints it.
        """
        if not names:
            return
        with TemporaryDirectory() as directory:
            out = Path(directory) / "callgrind"
            with closing(Worker(kind, contender, prefix=[*VALGRIND, f"--callgrind-out-file={out}"])) as worker:
                dumps = _dumps(worker.pid, out)
                for name in names:
                    self._say(f"instructions, {name} | {contender.name}", COUNTING)
                    try:
                        worker.prepare(name, self._servers.nodes(name, contender.name))
                        yield name, _count(worker, CASES[name][1], dumps)
                    except (WorkerFailed, subprocess.CalledProcessError) as failed:
                        print(f"No count: {contender.name} {failed}")
                        return


# --- instructions ----------------------------------------------------------------------------------------------------


def _count(worker: Worker, case: Case, dumps: Iterator[int]) -> int:
    """Return the instructions for one key: the difference between many calls and few, which share everything else."""
    few, many = COUNTS_BY_NODES if case.nodes > 1 else COUNTS[case.keys]
    few, many = (max(1, count // case.tasks) * case.tasks for count in (few, many))
    next(dumps)  # what came before
    spent: list[int] = []
    for count in (few, many):
        worker.repeat(count)
        spent.append(next(dumps))
    return round((spent[1] - spent[0]) / (many - few) / case.keys)


def _dumps(pid: int, out: Path) -> Iterator[int]:
    """Yield the instructions since the last time. The first is 0, and begins to count."""
    _vgdb(pid, "instrumentation", "on")
    yield 0
    for number in range(1, 10_000):
        _vgdb(pid, "dump")
        found = TOTALS.search(Path(f"{out}.{number}").read_text())
        yield int(found[1]) if found else 0


def _vgdb(pid: int, *command: str) -> None:
    subprocess.run(["vgdb", f"--pid={pid}", *command], check=True, capture_output=True)


# --- progress --------------------------------------------------------------------------------------------------------


@contextmanager
def _progress(seconds: float) -> Generator[Say]:
    """Show a bar while the block runs. Where the output is no terminal, print a line for each case."""
    bar = Progress(BarColumn(24), TaskProgressColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with bar:
        task = bar.add_task("starting", total=seconds)
        shown = ""

        def say(what: str, done: float) -> None:
            nonlocal shown
            bar.update(task, description=what, advance=done)
            case = what.rpartition(" | ")[0]
            if case != shown and not bar.console.is_terminal:
                print(case, flush=True)
            shown = case

        yield say
