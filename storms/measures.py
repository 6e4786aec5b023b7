"""What one storm measured: its result, its descriptors, and the thread that reports progress."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Final, final

import attrs

from storms.memory import Growth, Memory, growth
from storms.tally import Tally, merged

__all__ = ["Limits", "Progress", "Result", "descriptors"]

EVERY: Final = 10.0  # seconds between two lines
CHECK: Final = 0.5  # seconds between two checks of the limits
SAMPLE: Final = 4.0  # seconds of load between two samples of the memory


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
    growth: Growth | None = None
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
    def faults(self) -> list[str]:
        """Everything that must not happen, as sentences."""
        leaked = [f"{count} {what} leaked" for what, count in self.leaks.items() if count]
        grown = [] if self.growth is None else self.growth.excesses
        return [*self.tally.faults, *leaked, *grown]


def descriptors() -> int:
    """Return the number of open file descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


@final
class Progress:
    """A thread that prints a line from time to time, measures the memory, and ends the storm at its limits.

    *measured* returns the memory at a comparable moment, or None. ``is_over`` is True when the workers must end.
    ``seconds`` is the time since `start`.
    """

    def __init__(
        self,
        name: str,
        limits: Limits,
        tallies: Sequence[Tally],
        say: Callable[[str], object],
        measured: Callable[[], Memory | None] = lambda: None,
    ) -> None:
        self._name = name
        self._limits = limits
        self._tallies = tallies
        self._say = say
        self._measured = measured
        self._began = monotonic()
        self._samples: list[Memory] = []
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self.seconds = 0.0
        self.is_over = False

    def start(self) -> None:
        """Start the thread."""
        self._began = monotonic()
        self._thread.start()

    @property
    def growth(self) -> Growth | None:
        """See `growth`."""
        return growth(self._samples)

    def stop(self) -> None:
        """End the storm, and wait for the thread."""
        self.is_over = True
        self._thread.join()

    def _run(self) -> None:
        try:
            self._watch()
        except Exception as error:
            self._tallies[0].fault(f"the end of the storm was not watched: {error!r}")
            raise
        finally:
            self.is_over = True  # else the workers would never end

    def _watch(self) -> None:
        wake, spoken, sampled = threading.Event(), 0.0, 0.0
        while not self.is_over:
            wake.wait(CHECK)
            done = sum(tally.operations for tally in self._tallies)
            self.seconds = seconds = monotonic() - self._began
            if seconds - spoken >= EVERY:
                spoken = seconds
                self._say(self._line(done, seconds))
            limits = self._limits
            is_done = done >= limits.operations and seconds >= limits.at_least
            self.is_over |= is_done or seconds >= limits.seconds
            if seconds - sampled >= SAMPLE and not self.is_over:
                self._sample()
                sampled = monotonic() - self._began

    def _sample(self) -> None:
        sample = self._measured()
        if sample is not None:
            self._samples.append(sample)

    def _line(self, done: int, seconds: float) -> str:
        total = merged(self._tallies)
        memory = "".join(
            f", {sample.resident / 2**20:.1f} MiB, {sample.in_use / 2**20:.2f} in use" for sample in self._samples[-1:]
        )
        return (
            f"  {self._name}: {seconds:5.0f} s, {done:>11,} operations ({done / seconds:,.0f} a second), "
            f"{total.foreign} foreign, {total.late} late, {len(total.faults)} faults{memory}"
        )
