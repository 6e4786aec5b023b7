"""`PoolStatistics`: a snapshot of one pool, the same for both kinds of client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import attrs

from metacache.transports.counters import CloseReason

__all__ = ["PoolStatistics"]


@final
@attrs.frozen(kw_only=True)
class PoolStatistics:
    """A snapshot of one pool: its connections and callers now, and its counts since it was made.

    Attributes:
        size: connections that it may have open.
        in_use: connections that serve a caller now.
        idle: connections that are open and serve no caller.
        waiting: callers that wait for a connection.
        created: connections dialled since the pool was made.
        discarded: connections closed since then, by cause, without those that closing the pool closed.
        waits: how often a caller had to wait.
        wait_seconds: how long callers waited, in all.
    """

    size: int
    in_use: int
    idle: int
    waiting: int
    created: int
    discarded: Mapping[CloseReason, int]
    waits: int
    wait_seconds: float
