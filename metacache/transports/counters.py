"""The account of sockets: how many were opened, how many closed and why. Knows no socket."""

from __future__ import annotations

import enum
import weakref
from typing import final

import attrs

from metacache.interrupts import ignoring

__all__ = ["CloseReason", "CountRegistry", "IdleTimes", "SocketCounts", "WaitCounts"]


@final
class CloseReason(enum.Enum):
    """Why a connection was closed by the client itself."""

    STALE = "stale"
    """The server had closed it while it was idle, or something came that nobody asked for."""
    BROKEN = "broken"
    """A timeout, a lost connection, an interrupted exchange or a reply out of its place."""
    IDLE = "idle"
    """Idle for longer than ``pool_max_idle_time``."""
    OLD = "old"
    """Open for longer than ``max_lifetime``."""


@final
@attrs.frozen
class IdleTimes:
    """When an idle connection was opened, and last used (``time.monotonic()``)."""

    opened: float
    used: float


@final
class SocketCounts:
    """How many connections were dialled and discarded; whoever has the connection in use counts, and nobody else."""

    __slots__ = ("dialled", "discarded")

    def __init__(self) -> None:
        self.dialled = 0
        self.discarded: dict[CloseReason, int] = dict.fromkeys(CloseReason, 0)

    def add(self, other: SocketCounts) -> None:
        """Count what *other* has counted."""
        self.dialled += other.dialled
        for cause, count in other.discarded.items():
            self.discarded[cause] += count


@final
class WaitCounts:
    """How many requests had to wait because as many as may be were in flight, and for how many seconds in all.

    ``held`` is how many of them wait now: the first in the line.
    """

    __slots__ = ("_seconds", "_since", "count", "held")

    def __init__(self) -> None:
        self.count = 0
        self.held = 0
        self._seconds = 0.0
        self._since = 0.0

    def update(self, now: float, *, taken: int, left: int, is_full: bool) -> None:
        """Note that the first *taken* requests of the line were sent, and that *left* remain; *is_full*: for that."""
        still = max(self.held - taken, 0)
        if is_full:
            self.count += left - still
        self.keep(left if is_full else still, now)

    def keep(self, held: int, now: float) -> None:
        """Note that *held* requests of those that waited wait on."""
        self._seconds, self._since = self.seconds(now), now
        self.held = held

    def seconds(self, now: float) -> float:
        """Return how long they have waited in all."""
        return self._seconds + self.held * (now - self._since)


@final
class CountRegistry:
    """The tallies of all connections there were. Those of connections that are no more are added up into one.

    No lock: a thread takes an entry out, which only one can, adds what it took to a tally that it alone knows, and
    enters that. A total drawn up in between is short of what is just being added up.
    """

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: list[tuple[weakref.ref[object] | None, SocketCounts]] = []

    def enter(self, owner: object, tally: SocketCounts) -> None:
        """Enter the *tally* of *owner*, which is known weakly."""
        self._add_up()
        self._entries.append((weakref.ref(owner), tally))

    def total(self) -> SocketCounts:
        """Return the sum of all tallies."""
        total = SocketCounts()
        for _, tally in tuple(self._entries):
            total.add(tally)
        return total

    def _add_up(self) -> None:
        gone = SocketCounts()
        for entry in tuple(self._entries):
            owner, tally = entry
            if owner is None or owner() is None:
                with ignoring(ValueError):  # another thread was faster
                    self._entries.remove(entry)
                    gone.add(tally)
        self._entries.append((None, gone))
