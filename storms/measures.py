"""What one storm measured: its result, its resident memory, its descriptors, and the thread that reports progress."""

from __future__ import annotations

import gc
import os
import statistics
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Final, final

import attrs

from storms.tally import Tally, merged

__all__ = ["GROWTH", "Limits", "Progress", "Result", "collected", "descriptors", "growth"]

EVERY: Final = 10.0  # seconds between two lines
SAMPLE: Final = 0.5  # seconds between two samples of the memory
ENOUGH: Final = 240  # samples; fewer are all warm-up and say nothing of growth
GROWTH: Final = 0.01  # how much the memory may grow after the warm-up
PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@final
@attrs.frozen
class Limits:
    """When a storm ends: after *seconds*, or earlier, after *operations*, if it has lasted *at_least* that long."""

    operations: int
    seconds: float
    at_least: float = 0.0


@final
@attrs.frozen(kw_only=True)
class Result:
    """What a storm did. A storm without faults leaks nothing: `sockets`, `slots`, `tasks` and `leases` are 0."""

    name: str
    seconds: float
    tally: Tally
    lag: float = 0.0
    growth: float | None = None
    sockets: int = 0
    slots: int = 0
    tasks: int = 0
    leases: int = 0
    events: str = ""

    @property
    def leaks(self) -> dict[str, int]:
        """What the storm left behind, by name."""
        return {"sockets": self.sockets, "slots": self.slots, "tasks": self.tasks, "leases": self.leases}

    @property
    def has_grown(self) -> bool:
        """True if the memory grew by more than `GROWTH`."""
        return self.growth is not None and self.growth >= GROWTH

    @property
    def faults(self) -> list[str]:
        """Everything that must not happen, as sentences."""
        leaked = [f"{count} {what} leaked" for what, count in self.leaks.items() if count]
        grown = [f"the memory grew by {self.growth:.2%}"] if self.growth is not None and self.has_grown else []
        return [*self.tally.faults, *leaked, *grown]


def descriptors() -> int:
    """Return the number of open file descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def growth(samples: Sequence[int]) -> float | None:
    """Return how much the last tenth of *samples* exceeds the third tenth, as a fraction; None for few samples."""
    if len(samples) < ENOUGH:
        return None
    tenth = len(samples) // 10
    warm, last = statistics.median(samples[2 * tenth : 3 * tenth]), statistics.median(samples[-tenth:])
    return last / warm - 1


@final
class Progress:
    """A thread that prints a line from time to time, samples the memory, and ends the storm at its limits.

    ``is_over`` is True when the workers must end. ``seconds`` is the time since `start`.
    """

    def __init__(self, name: str, limits: Limits, tallies: Sequence[Tally], say: Callable[[str], object]) -> None:
        self._name = name
        self._limits = limits
        self._tallies = tallies
        self._say = say
        self._began = monotonic()
        self._samples: list[int] = []
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self.seconds = 0.0
        self.is_over = False

    def start(self) -> None:
        """Start the thread."""
        self._began = monotonic()
        self._thread.start()

    @property
    def growth(self) -> float | None:
        """See `growth`."""
        return growth(self._samples)

    def stop(self) -> None:
        """End the storm, and wait for the thread."""
        self.is_over = True
        self._thread.join()

    def _run(self) -> None:
        wake, spoken = threading.Event(), 0.0
        while not self.is_over:
            wake.wait(SAMPLE)
            self._samples.append(resident())
            done = sum(tally.operations for tally in self._tallies)
            self.seconds = seconds = monotonic() - self._began
            if seconds - spoken >= EVERY:
                spoken = seconds
                self._say(self._line(done, seconds))
            limits = self._limits
            is_done = done >= limits.operations and seconds >= limits.at_least
            self.is_over |= is_done or seconds >= limits.seconds

    def _line(self, done: int, seconds: float) -> str:
        total = merged(self._tallies)
        return (
            f"  {self._name}: {seconds:5.0f} s, {done:>11,} operations ({done / seconds:,.0f} a second), "
            f"{total.foreign} foreign, {total.late} late, {len(total.faults)} faults, "
            f"{self._samples[-1] / 2**20:.1f} MiB"
        )


def collected() -> None:
    """Collect garbage twice, so that finalizers of the first round are freed too."""
    gc.collect()
    gc.collect()
