"""Counts for statistics: sockets opened, sockets closed and why, and time spent waiting. Opens no socket."""

from __future__ import annotations

import enum
import weakref
from typing import Final, final

import attrs

from metacache.interrupts import ignoring

__all__ = ["CloseReason", "CountRegistry", "IdleTimes", "SocketCounts", "WaitCounts"]


@final
class CloseReason(enum.Enum):
    """Why this library closed a connection."""

    STALE = "stale"
    """The server closed it while it was idle, or sent bytes without a request."""
    BROKEN = "broken"
    """A timeout, a lost connection, an interrupted exchange, or a reply that does not match its request."""
    IDLE = "idle"
    """Idle for longer than ``pool_max_idle_time``."""
    OLD = "old"
    """Open for longer than ``max_lifetime``."""


@final
@attrs.frozen
class IdleTimes:
    """When an idle connection was opened and last used (``time.monotonic()``)."""

    opened: float
    used: float


_NONE: Final[dict[CloseReason, int]] = dict.fromkeys(CloseReason, 0)


@final
class SocketCounts:
    """How many connections were dialled and discarded. Only the user of the connection counts, so it needs no lock."""

    __slots__ = ("dialled", "discarded")

    def __init__(self) -> None:
        self.dialled = 0
        self.discarded = _NONE.copy()

    def add(self, other: SocketCounts) -> None:
        """Add the counts of *other* to these."""
        self.dialled += other.dialled
        for cause, count in other.discarded.items():
            self.discarded[cause] += count


@final
class WaitCounts:
    """How many requests had to wait because ``max_in_flight`` was reached, and for how many seconds in total.

    ``waiting`` is how many of them wait now: the first ones in the request queue.
    """

    __slots__ = ("_seconds", "_since", "count", "waiting")

    def __init__(self) -> None:
        self.count = 0
        self.waiting = 0
        self._seconds = 0.0
        self._since = 0.0

    def update(self, now: float, *, taken: int, left: int, is_full: bool) -> None:
        """Record that the first *taken* requests of the queue were sent and *left* remain.

        *is_full*: they remain because ``max_in_flight`` is reached.
        """
        still = max(self.waiting - taken, 0)
        if is_full:
            self.count += left - still
        self.set_waiting(left if is_full else still, now)

    def set_waiting(self, count: int, now: float) -> None:
        """Record that *count* requests wait from *now* on."""
        self._seconds, self._since = self.seconds(now), now
        self.waiting = count

    def seconds(self, now: float) -> float:
        """Return how many seconds requests have waited in total."""
        return self._seconds + self.waiting * (now - self._since)


@final
class CountRegistry:
    """The counts of all connections that ever existed. The counts of freed connections are merged into one entry.

    It needs no lock. A thread removes an entry, which only one thread can do. It adds the entry to counts of its own,
    and appends those. A total that is computed meanwhile misses the entries that are being merged.
    """

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: list[tuple[weakref.ref[object] | None, SocketCounts]] = []

    def register(self, owner: object, counts: SocketCounts) -> None:
        """Add the *counts* of *owner*. The registry refers to *owner* weakly."""
        if self._entries:
            self._merge_freed()
        self._entries.append((weakref.ref(owner), counts))

    def total(self) -> SocketCounts:
        """Return the sum of all counts."""
        total = SocketCounts()
        for _, counts in tuple(self._entries):
            total.add(counts)
        return total

    def _merge_freed(self) -> None:
        merged = SocketCounts()
        for entry in tuple(self._entries):
            owner, counts = entry
            if owner is None or owner() is None:
                with ignoring(ValueError):  # another thread was faster
                    self._entries.remove(entry)
                    merged.add(counts)
        self._entries.append((None, merged))
