"""`Stolen`: how long the host of this virtual machine has kept the processors from it.

A thread whose processor is stolen runs for the kernel of this machine, and waits for nothing. So no other measure sees
this time. The kernel counts it for all processors together (proc(5), ``steal`` of /proc/stat), in ticks of 10 ms.
"""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from pathlib import Path
from time import monotonic
from typing import Final, final

__all__ = ["Stolen"]

STAT: Final = Path("/proc/stat")
FIELD: Final = 8  # of the first line: cpu user nice system idle iowait irq softirq steal
INTERVAL: Final = 0.02  # seconds between two samples
KEPT: Final = 500  # samples
TICK: Final = 1 / os.sysconf("SC_CLK_TCK")


@final
class Stolen:
    """A thread that samples the stolen time. Without /proc/stat, nothing is stolen."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque(((math.inf, 0.0) for _ in range(KEPT)), KEPT)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stolen", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._samples.append((monotonic(), _stolen()))
        self._thread.start()

    def stop(self) -> None:
        """End the thread, if it was started. Then it has no descriptor open, which would count as a leak."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def since(self, moment: float) -> float:
        """Return how many seconds the host stole since *moment*, a ``time.monotonic()`` time, at most.

        It counts all processors, and from the last sample before *moment* on. 0.0 if there is no such sample.
        """
        now = _stolen()
        for at, before in reversed(self._samples.copy()):
            if at <= moment:
                return now - before
        return 0.0

    def _run(self) -> None:
        while not self._over.wait(INTERVAL):
            self._samples.append((monotonic(), _stolen()))


def _stolen() -> float:
    """Return the seconds that were stolen since the machine started."""
    try:
        with STAT.open("rb") as file:
            fields = file.readline().split()
    except OSError:
        return 0.0
    return int(fields[FIELD]) * TICK if len(fields) > FIELD else 0.0
