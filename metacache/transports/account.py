"""The account of sockets: how many were opened, how many closed and why. Knows no socket."""

from __future__ import annotations

import enum
from typing import final

import attrs

__all__ = ["Age", "Discard", "Tally"]


@final
class Discard(enum.Enum):
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
class Age:
    """When an idle connection was opened, and last used (``time.monotonic()``)."""

    opened: float
    used: float


@final
class Tally:
    """How many connections were dialled and discarded; a pool's connections share one.

    Counts go up by one load and one store with no call in between, so under the GIL no thread's count is lost.
    """

    __slots__ = ("dialled", "discarded")

    def __init__(self) -> None:
        self.dialled = 0
        self.discarded: dict[Discard, int] = dict.fromkeys(Discard, 0)
