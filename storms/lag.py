"""How late the machine is. An operation that ends late because its machine was late is not the client's fault.

`ThreadLag` knows what the thread of the operation waited for, exactly. Without a C compiler, `SleeperLag` sees how
late another thread wakes. `LoopLag` sees how late an event loop is, and whether a call in it has blocked it.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from time import monotonic, sleep, thread_time
from typing import Any, Final, Protocol, final

from typing_extensions import override

from storms.stolen import Stolen
from storms.waits import measure, watch

__all__ = ["BLOCKED", "FirstStep", "Lag", "LoopLag", "SleeperLag", "ThreadLag", "lag_of_threads"]

# Seconds between two times to wake. A call that waits for the interpreter many times is late by the sum of its waits.
# The sleeper misses the time in which it is not due, so this time is short.
INTERVAL: Final = 0.001
KEPT: Final = 2_000  # late wakes
# Seconds for which no call may block an event loop. A call that waits for a frozen node would wait for half a second.
# The kernel may block a thread for a tenth of a second while another one forks.
BLOCKED: Final = 0.25


class Lag(Protocol):
    """Measures the lag of operations. ``worst``: the longest one, in seconds."""

    @property
    def worst(self) -> float: ...

    def mark(self) -> float:
        """Return a mark of the beginning of an operation. Call it in the thread of the operation."""
        ...

    def beyond(self, mark: float, deadline: float, /) -> float:
        """Return how many seconds it is after *deadline*, without the lag since *mark*."""
        ...


def lag_of_threads() -> ThreadLag | SleeperLag:
    """Return the best measure of the lag of threads that this process has."""
    waited = measure()
    return SleeperLag() if waited is None else ThreadLag(waited)


@final
class ThreadLag:
    """The time that the thread of the operation waited for the interpreter's lock, or for a processor: exact.

    The time that the host stole after the deadline is added, or for which the machine stood still, whichever is longer.
    Both are upper bounds: see `Stolen.since`, and a thread may wait while the machine stands still.
    """

    def __init__(self, waited: Callable[[], float]) -> None:
        self._waited = waited
        self._stolen = Stolen()
        self._stalled: Callable[[float], float] | None = None
        self.worst = 0.0

    def start(self) -> None:
        """See `Lag`. Each thread measures its own waits, all the time."""
        self._stalled = watch()
        self._stolen.start()

    def stop(self) -> None:
        """See `Lag`."""
        self._stolen.stop()

    def mark(self) -> float:
        """See `Lag`."""
        return self._waited()

    def beyond(self, mark: float, deadline: float, /) -> float:
        """See `Lag`."""
        # The clock first: a wait between the two calls cannot make a punctual operation a late one.
        now = monotonic()
        lag = self._waited() - mark
        if now - deadline > lag:
            stalled = 0.0 if self._stalled is None else self._stalled(deadline)
            lag += max(self._stolen.since(deadline), stalled)
        self.worst = max(self.worst, lag)
        return now - deadline - lag


@final
class SleeperLag:
    """A thread that sleeps. Its wakes are as late as those of other threads, about."""

    def __init__(self) -> None:
        self._wakes = _Wakes()
        self._over = threading.Event()

    @property
    def worst(self) -> float:
        """See `Lag`."""
        return self._wakes.worst

    def start(self) -> None:
        """See `Lag`."""
        threading.Thread(target=self._sleep, name="lag", daemon=True).start()

    def stop(self) -> None:
        """See `Lag`."""
        self._over.set()

    def mark(self) -> float:
        """See `Lag`. No mark is needed."""
        return 0.0

    def beyond(self, _: float, deadline: float, /) -> float:
        """See `Lag`."""
        now = monotonic()
        return now - deadline - self._wakes.between(deadline, now)

    def _sleep(self) -> None:
        woke = monotonic()
        while not self._over.is_set():
            self._wakes.due = woke + INTERVAL
            sleep(INTERVAL)
            woke = monotonic()
            self._wakes.note(woke)


@final
class LoopLag:
    """A task that sleeps. Whatever makes it late makes every other task of its loop late.

    A call that waits in the thread of the loop would make all tasks late too, and would be a fault of the client. So
    the time in which the thread neither ran nor waited for the machine is measured too.

    Attributes:
        worst: seconds of the latest wake.
        why: what the thread of the loop did in this time.
        blocked: seconds of the longest time in which a call blocked the thread; 0.0 if nothing can measure it.
    """

    def __init__(self) -> None:
        self._wakes = _Wakes()
        self._waited = measure()
        self._is_over = False
        self.why = ""
        self.blocked = 0.0

    @property
    def worst(self) -> float:
        """See `Lag`."""
        return self._wakes.worst

    def mark(self) -> float:
        """See `Lag`. No mark is needed."""
        return 0.0

    def beyond(self, _: float, deadline: float, /) -> float:
        """See `Lag`."""
        now = monotonic()
        return now - deadline - self._wakes.between(deadline, now)

    def stop(self) -> None:
        """End `measure`."""
        self._is_over = True

    async def measure(self) -> None:
        """Sleep in the event loop until `stop`."""
        woke, ran, waited = monotonic(), thread_time(), self._machine()
        while not self._is_over:
            # From the last wake on, without a gap: the thread may lose its processor anywhere.
            began, ran_before, waited_before = woke, ran, waited
            self._wakes.due = began + INTERVAL
            await asyncio.sleep(INTERVAL)
            waited, woke, ran = self._machine(), monotonic(), thread_time()
            is_worst = self._wakes.note(woke)
            # Once more: a wait since the last line but two is a part of *woke*.
            ran_for, waited_for = ran - ran_before, self._machine() - waited_before
            if self._waited is not None:
                self.blocked = max(self.blocked, woke - began - INTERVAL - ran_for - waited_for)
            if is_worst:
                self.why = f"{ran_for * 1000:.0f} ms on a processor, {waited_for * 1000:.0f} ms waiting for the machine"

    def _machine(self) -> float:
        return 0.0 if self._waited is None else self._waited()


@final
class FirstStep(Generator[Any, Any, Any]):  # Any: what a call yields to its loop, and its result
    """Awaits *call*, and measures the lag of the machine in its first step.

    In its first step a call makes its request, and reads the clock: its timeout begins there. If the machine takes the
    processor from the thread before that, the call is late by this time, whatever it does.

    Attributes:
        lost: seconds of the first step in which the thread did not run.
    """

    def __init__(self, call: Awaitable[Any]) -> None:
        self._steps = call.__await__()
        self._has_begun = False
        self.lost = 0.0

    def __await__(self) -> Generator[Any, Any, Any]:
        return self

    @override
    def send(self, value: Any, /) -> Any:
        """Resume the call."""
        if self._has_begun:
            return self._steps.send(value)
        self._has_begun = True
        began, ran = monotonic(), thread_time()
        try:
            return self._steps.send(value)
        finally:
            ran_for = thread_time() - ran
            self.lost = max(0.0, monotonic() - began - ran_for)

    @override
    def throw(self, *error: Any) -> Any:
        """Raise an exception in the call."""
        return self._steps.throw(*error)


@final
class _Wakes:
    """The times at which a sleeper was due and did not run. It is due at the time ``due``."""

    def __init__(self) -> None:
        # Full from the beginning, so that the memory does not grow while it fills.
        self._late: deque[tuple[float, float]] = deque(
            ((-1.0 - number, -float(number)) for number in range(KEPT)), KEPT
        )
        self.due = monotonic()
        self.worst = 0.0

    def note(self, woke: float) -> bool:
        """Note that the sleeper *woke*; return whether it was never later."""
        late = woke - self.due
        if late > INTERVAL:
            self._late.append((self.due, woke))
        if late <= self.worst:
            return False
        self.worst = late
        return True

    def between(self, start: float, end: float) -> float:
        """Return how many seconds between *start* and *end* the sleeper was due and did not run."""
        late = [*self._late.copy(), (self.due, end)]
        return sum(max(0.0, min(end, woke) - max(start, due)) for due, woke in late)
