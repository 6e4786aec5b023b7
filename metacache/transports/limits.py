"""The limits of one node's connections: size of a data block, number of connections, age and idle time. Pure.

Both kinds of pool use them. Callers pass the time, in seconds of ``time.monotonic()``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, final

import attrs

from metacache.errors import ValueTooLargeError
from metacache.settings import Settings
from metacache.transports.base import Batch
from metacache.transports.counters import CloseReason, IdleTimes

__all__ = ["RETRY", "Limits", "check_bodies", "too_large"]

# Seconds after a failed dial in which a caller waits for a connected one instead of dialling another.
RETRY: Final = 1.0

# Idle connections are reviewed after this share of the shortest limit, and after LONGEST_REVIEW seconds at most.
LONGEST_REVIEW: Final = 30.0
SHARE: Final = 0.25


@final
@attrs.frozen(kw_only=True)
class Limits:
    """How many connections may be open, and which idle ones to close. The fields are those of `Settings`."""

    size: int = 8
    min_idle: int = 0
    max_idle_time: float | None = None
    max_lifetime: float | None = None
    wait: float | None = None

    @classmethod
    def of(cls, settings: Settings, *, spare: int = 0) -> Limits:
        """Return the limits of *settings*; *spare* connections are not counted among these."""
        return cls(
            size=settings.pool_size - spare,
            min_idle=settings.pool_min_idle,
            max_idle_time=settings.pool_max_idle_time,
            max_lifetime=settings.max_lifetime,
            wait=settings.pool_wait,
        )

    def wait_until(self, now: float, deadline: float) -> float:
        """Return when a caller that arrived at *now* stops waiting."""
        return deadline if self.wait is None else min(deadline, now + self.wait)

    def may_open(self, opened: int, *, connected: int = 0, now: float = 0.0, failed_at: float = -math.inf) -> bool:
        """Return whether a caller that found no idle connection may open one more.

        *opened*: how many there are. *connected*: how many of them were dialled. *failed_at*: when a dial last failed.
        For a while after that another dial would fail too, and a connected one becomes free.
        """
        is_worth_it = not connected or now >= failed_at + RETRY
        return opened < self.size and is_worth_it

    def to_close(self, idle: Sequence[IdleTimes], now: float) -> Mapping[int, CloseReason]:
        """Return the indexes of the *idle* connections to close, with the reasons. *idle*: longest unused first.

        Connections older than `max_lifetime` are always closed. Those unused for `max_idle_time` are closed while more
        than `min_idle` stay open.
        """
        old = {
            index: CloseReason.OLD
            for index, times in enumerate(idle)
            if self.max_lifetime is not None and now - times.opened >= self.max_lifetime
        }
        surplus = len(idle) - len(old) - self.min_idle
        unused = [
            index
            for index, times in enumerate(idle)
            if index not in old and self.max_idle_time is not None and now - times.used >= self.max_idle_time
        ]
        return old | dict.fromkeys(unused[: max(surplus, 0)], CloseReason.IDLE)

    def next_review(self, now: float) -> float:
        """Return when to review the idle connections; infinity when there is no limit."""
        limits = [limit for limit in (self.max_idle_time, self.max_lifetime) if limit is not None]
        return now + min(SHARE * min(limits), LONGEST_REVIEW) if limits else math.inf


def check_bodies(batch: Batch, limit: int | None) -> None:
    """Raise ValueTooLargeError, with the key, for a data block of more than *limit* bytes. None: there is no limit."""
    if limit is None:
        return
    for given, body in zip(batch.given, batch.bodies or (), strict=False):
        if len(body) > limit:
            raise too_large(len(body), limit).locate(operation=batch.verb.name, key=given)


def too_large(size: int, limit: int) -> ValueTooLargeError:
    """Return the error for a data block of *size* bytes."""
    return ValueTooLargeError(f"the encoded value is {size} bytes, Settings.max_value_size is {limit}")
