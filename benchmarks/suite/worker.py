"""The process of one contender: ``python -m benchmarks.suite.worker KIND NAME``; and `Worker`, its handle.

The two talk in lines of JSON. A process for each contender keeps its memory and its garbage from the others, lets pure
and compiled code run in turn, and can run under valgrind.
"""

from __future__ import annotations

import gc
import json
import os
import select
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from time import perf_counter
from typing import Any, Final, TypeAlias, cast, final

from benchmarks.counted import trust_connections
from benchmarks.peers import Lacking
from benchmarks.repeating import Repeat
from benchmarks.suite.cases import CASES, Kind
from benchmarks.suite.contenders import CONTENDERS, Contender, check_presence
from metacache import Node

__all__ = ["Worker", "WorkerFailed"]

# Seconds until a worker that does not answer is given up; under valgrind everything is fifty times slower.
LIMIT: Final = 60.0
COUNTED_LIMIT: Final = 1200.0
COUNTED: Final = "--counted"
# Before the first round: dial connections, specialise bytecode, and find out how many operations a round has.
WARM_UP: Final = 0.01  # seconds
WARM_UPS: Final = 3

Message: TypeAlias = Mapping[str, Any]
"""Any: the values of a line of JSON."""


class WorkerFailed(Exception):
    """A worker cannot do the work, ended, or did not answer in time. The text is the end of a sentence about it."""


@final
class Worker:
    """A running process of *contender*. With *prefix*, a command line that runs it, it counts instructions."""

    def __init__(self, kind: Kind, contender: Contender, *, prefix: Sequence[str] = ()) -> None:
        command = [*prefix, sys.executable, "-m", __name__, kind.value, contender.name, *([COUNTED] * bool(prefix))]
        pure = {"METACACHE_PURE": "1"} if contender.is_pure else {}
        self._limit = COUNTED_LIMIT if prefix else LIMIT
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if prefix else None,  # valgrind writes its own lines there
            env={**os.environ, **pure, "PYTHONHASHSEED": "0"},  # fixes the order of sets, and so the count
            start_new_session=True,  # Ctrl-C ends the program that owns the results; it ends the workers
        )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def prepare(self, case: str, nodes: Sequence[Node]) -> None:
        """Let it connect and store the values of *case*."""
        self._ask({"prepare": case, "nodes": [str(node.address) for node in nodes]})

    def time(self, seconds: float) -> float:
        """Let it work for about *seconds*, and return the seconds of one operation."""
        return float(self._ask({"time": seconds})["seconds"])

    def repeat(self, count: int) -> None:
        """Let it do *count* operations."""
        self._ask({"repeat": count})

    def _ask(self, message: Message) -> Message:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
            # It answers with one line, so nothing is left in the buffer of stdout that select would not see.
            ready, _, _ = select.select([self._process.stdout], [], [], self._limit)
            line = self._process.stdout.readline() if ready else b""
        except BrokenPipeError:
            line = b""
        if not line:
            raise WorkerFailed(f"ended, or did not answer within {self._limit:.0f} s")
        # cast: a worker answers with objects.
        answer = cast("Message", json.loads(line))
        if "failed" in answer:
            raise WorkerFailed(answer["failed"])
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


@final
class Service:
    """What runs in the process: it keeps the work of one case, and how long one operation takes."""

    def __init__(self, contender: Contender, prefix: str) -> None:
        self._contender = contender
        self._prefix = prefix
        self._stack = ExitStack()
        self._repeat: Repeat = lambda _: None
        self._estimate = 0.0
        self._step = 1

    def answer(self, message: Message) -> Message:
        """Do what the line asks for, and return the answer. Prints what the client raises."""
        try:
            return self._answer(message)
        except Lacking as lacking:
            return {"failed": str(lacking)}
        except Exception as error:
            traceback.print_exc()
            return {"failed": f"failed with {type(error).__name__}"}

    def _answer(self, message: Message) -> Message:
        if "prepare" in message:
            self._prepare(message["prepare"], message["nodes"])
            return {}
        if "time" in message:
            return {"seconds": self._time(message["time"])}
        self._repeat(message["repeat"])
        return {}

    def _prepare(self, name: str, addresses: Sequence[str]) -> None:
        check_presence(self._contender)
        self._stack.close()
        _, case = CASES[name]
        self._step = max(case.tasks, case.threads)
        nodes = [Node(address) for address in addresses]
        self._repeat = self._contender.prepare(case, nodes, self._prefix, self._stack)
        self._estimate = self._measure(self._step)
        for _ in range(WARM_UPS):
            self._time(WARM_UP)

    def _time(self, seconds: float) -> float:
        steps = max(1, round(seconds / self._estimate / self._step))
        measured = self._measure(steps * self._step)
        self._estimate = min(self._estimate, measured)  # a disturbed round must not make the next one short
        return measured

    def _measure(self, count: int) -> float:
        gc.collect()
        began = perf_counter()
        self._repeat(count)
        return (perf_counter() - began) / count


def main(kind: str, name: str, *options: str) -> None:
    if COUNTED in options:
        trust_connections()
    names = [each.name for each in CONTENDERS[Kind(kind)]]
    number = names.index(name)
    service = Service(CONTENDERS[Kind(kind)][number], f"{kind}:{number}:")
    for line in sys.stdin:
        # cast: the handle above sends objects.
        print(json.dumps(service.answer(cast("Message", json.loads(line)))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
