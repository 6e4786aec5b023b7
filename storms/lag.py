"""`LagMeter`: how late this process runs, measured by a sleeper beside the load.

The sleeper asks to wake at a time, and the meter notes when it ran. An operation that ends late on a machine whose
sleepers wake late is not the client's fault; one that ends late while they wake in time is.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from time import monotonic, sleep
from typing import Final, final

__all__ = ["LagMeter"]

# Seconds between two times to wake. A call that waits for the interpreter many times is late by the sum of its waits.
# The meter misses the time in which the sleeper is not due, so this time is short.
INTERVAL: Final = 0.001
KEPT: Final = 20_000  # late wakes


@final
class LagMeter:
    """Measures lag from `start` to `stop`. A thread sleeps, or a task of an event loop that runs `measure`."""

    def __init__(self) -> None:
        self._late: deque[tuple[float, float]] = deque(maxlen=KEPT)
        self._due = monotonic()
        self._over = threading.Event()
        self.worst = 0.0

    def start(self) -> None:
        """Start the thread that sleeps."""
        threading.Thread(target=self._sleep, name="lag meter", daemon=True).start()

    def stop(self) -> None:
        """End the measurement."""
        self._over.set()

    async def measure(self) -> None:
        """Sleep in the event loop until `stop`."""
        while not self._over.is_set():
            self._due = monotonic() + INTERVAL
            await asyncio.sleep(INTERVAL)
            self._note()

    def _sleep(self) -> None:
        while not self._over.is_set():
            self._due = monotonic() + INTERVAL
            sleep(INTERVAL)
            self._note()

    def _note(self) -> None:
        woke = monotonic()
        self.worst = max(self.worst, woke - self._due)
        if woke - self._due > INTERVAL:
            self._late.append((self._due, woke))

    def between(self, start: float, end: float) -> float:
        """Return how many seconds between *start* and *end* the sleeper was due and did not run."""
        late = [*self._late.copy(), (self._due, end)]
        return sum(max(0.0, min(end, woke) - max(start, due)) for due, woke in late)
