"""`Rests`: moments in a storm at which no worker runs a call, and no server is frozen or dead.

At these moments the memory in use is comparable. Calls that run, and requests that a frozen server has not read, hold
values of random sizes. There is more of them than of a leak that must be seen.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Final, final

from metacache.protocol.replies import known_headers, known_sizes
from storms.memory import Memory, memory

__all__ = ["Rests"]

POLL: Final = 0.01  # seconds
PATIENCE: Final = 10.0  # seconds in which all calls and faults end; most are shorter
SETTLED: Final = 0.1  # seconds in which callbacks of ended calls run


@final
class Rests:
    """Lets *workers* rest, and measures the memory while all of them do.

    Each worker calls `take` between two calls, or looks at ``is_due`` and awaits `take_async` if it is true. What makes
    the faults is a worker too.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._resting: set[int] = set()  # one call of C adds or removes a worker, so this needs no lock
        self._due = threading.Event()

    @property
    def is_due(self) -> bool:
        """Whether a rest is due."""
        return self._due.is_set()

    def take(self, worker: int) -> None:
        """Rest in a thread if a rest is due, until the memory is measured."""
        if self._due.is_set():
            self._resting.add(worker)
            while self._due.is_set():
                sleep(POLL)
            self._resting.discard(worker)

    async def take_async(self, worker: int) -> None:
        """As `take`, in a task."""
        self._resting.add(worker)
        while self._due.is_set():
            await asyncio.sleep(POLL)
        self._resting.discard(worker)

    def measured(self) -> Memory | None:
        """Return the memory while all workers rest; None if one of them does not come to rest. Call it in a thread."""
        with self._rest() as end:
            while self._must_wait(end):
                sleep(POLL)
            return _memory() if self._is_complete else None

    async def measured_async(self, settle: Callable[[], object]) -> Memory | None:
        """As `measured`, in the loop of the workers. Call *settle* when the callbacks of all their calls have run."""
        with self._rest() as end:
            while self._must_wait(end):
                await asyncio.sleep(POLL)
            await asyncio.sleep(SETTLED)
            if not self._is_complete:
                return None
            settle()
            return _memory()

    @contextmanager
    def _rest(self) -> Generator[float]:
        self._due.set()
        try:
            yield monotonic() + PATIENCE
        finally:
            self._due.clear()

    def _must_wait(self, end: float) -> bool:
        return not self._is_complete and monotonic() < end

    @property
    def _is_complete(self) -> bool:
        return len(self._resting) == self._workers


def _memory() -> Memory:
    """Return the memory without the table of parsed headers, which fills for minutes until it is full and emptied."""
    known_headers.clear()
    known_sizes.clear()
    return memory()
