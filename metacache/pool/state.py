"""The slow-path decisions of a pool: open, wait, refuse, and which idle ones to discard. Pure, shared by both pools.

Numbers in, a decision out; time is a number of seconds. Knows no connection, no lock and no clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias, final

import attrs

from metacache.settings import Settings
from metacache.transports.counters import CloseReason, IdleTimes

__all__ = ["RETRY", "Decision", "Limits", "Open", "PoolStatistics", "Refuse", "Wait"]

# Seconds after a failed dial for which what is connected is waited for rather than another dialled.
RETRY: Final = 1.0

# How often at most the idle are looked through, and how often at least: a share of the shortest limit.
LONGEST_ROUND: Final = 30.0
SHARE: Final = 0.25


@final
@attrs.frozen
class Open:
    """Open one more connection."""


@final
@attrs.frozen
class Wait:
    """Wait for one that is in use, no longer than *until*."""

    until: float


@final
@attrs.frozen
class Refuse:
    """All are in use, and there is no time left to wait."""


Decision: TypeAlias = Open | Wait | Refuse


@final
@attrs.frozen(kw_only=True)
class Limits:
    """What a pool keeps to; the fields are those of `Settings`."""

    size: int = 8
    min_idle: int = 0
    max_idle_time: float | None = None
    max_lifetime: float | None = None
    wait: float | None = None

    @classmethod
    def of(cls, settings: Settings, *, spare: int = 0) -> Limits:
        """Return the limits that *settings* set; *spare* connections are not counted among these."""
        return cls(
            size=settings.pool_size - spare,
            min_idle=settings.pool_min_idle,
            max_idle_time=settings.pool_max_idle_time,
            max_lifetime=settings.max_lifetime,
            wait=settings.pool_wait,
        )

    def wait_until(self, now: float, deadline: float) -> float:
        """Return when a caller that came at *now* stops waiting."""
        return deadline if self.wait is None else min(deadline, now + self.wait)

    def checkout(
        self, *, opened: int, now: float, until: float, connected: int = 0, failed_at: float = -math.inf
    ) -> Decision:
        """Decide for a caller that found no idle connection, when *opened* are open and it waits *until* at most.

        *connected*: how many of those opened have been dialled. *failed_at*: when a dial last failed; for a while after
        it another would fail too, and what is connected will be free.
        """
        is_worth_it = not connected or now >= failed_at + RETRY
        if opened < self.size and is_worth_it:
            return Open()
        return Wait(until) if until > now else Refuse()

    def discard(self, idle: Sequence[IdleTimes], now: float) -> Mapping[int, CloseReason]:
        """Return which of the *idle*, longest unused first, are to be closed, by index.

        The old always; the long unused as long as `min_idle` are left.
        """
        old = {
            index: CloseReason.OLD
            for index, age in enumerate(idle)
            if self.max_lifetime is not None and now - age.opened >= self.max_lifetime
        }
        surplus = len(idle) - len(old) - self.min_idle
        unused = [
            index
            for index, age in enumerate(idle)
            if index not in old and self.max_idle_time is not None and now - age.used >= self.max_idle_time
        ]
        return old | dict.fromkeys(unused[: max(surplus, 0)], CloseReason.IDLE)

    def next_round(self, now: float) -> float:
        """Return when to look through the idle again; infinity when nothing limits them."""
        limits = [limit for limit in (self.max_idle_time, self.max_lifetime) if limit is not None]
        return now + min(SHARE * min(limits), LONGEST_ROUND) if limits else float("inf")


@final
@attrs.frozen(kw_only=True)
class PoolStatistics:
    """What a pool has done and how it stands.

    Attributes:
        size: connections it may have open.
        in_use: connections that serve a caller now.
        idle: connections that are open and serve nobody.
        waiting: callers that wait for one.
        created: connections dialled since the pool was made.
        discarded: connections closed since, by cause; those that closing the pool closed are none of them.
        waits: how often a caller had to wait.
        wait_seconds: how long they waited, in all.
    """

    size: int
    in_use: int
    idle: int
    waiting: int
    created: int
    discarded: Mapping[CloseReason, int]
    waits: int
    wait_seconds: float
