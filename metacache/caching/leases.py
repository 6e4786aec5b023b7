"""Leases: the right to compute a value, which the server gave to one caller. How a lease is limited, and given back.

It awaits only the effects of its client. An error while a lease is given back is logged, and the lease ends by itself.
"""

from __future__ import annotations

import logging
from typing import Generic, TypeVar, final

from metacache.caching.asking import Asked, Asking
from metacache.caching.effects import Call, Effects
from metacache.caching.policy import Plan
from metacache.errors import MetacacheError
from metacache.interrupts import is_injected
from metacache.operations.policies import MISS

__all__ = ["Leases", "log_kept", "shorter_life"]

logger = logging.getLogger("metacache.caching")

T = TypeVar("T")


@final
class Leases(Generic[T]):
    """Limits and ends the leases of one client."""

    __slots__ = ("_asking", "_effects")

    def __init__(self, effects: Effects, asking: Asking[T]) -> None:
        self._effects = effects
        self._asking = asking

    async def shorten(self, call: Call[T], found: Asked[T]) -> bool | None:
        """Shorten the life of an old value, so that a winner that dies blocks other callers for a lease at most.

        Return whether it was shortened; None when the item is another one by now.
        """
        life = shorter_life(call.plan, found)
        if life is None:
            return False
        cas = await self._effects.run(self._asking.shorten(call.key, call.wire, life))
        return True if cas == found.cas else None

    async def end(self, call: Call[T], found: Asked[T], left: float | None) -> None:
        """Let the next caller compute: remove a placeholder; keep an old value, with a win, for *left* seconds.

        *left* is None if its life was not shortened.
        """
        if found.value is MISS:
            await self.remove(call, found)
        else:
            await self.give_back(call, found, left)

    async def remove(self, call: Call[T], found: Asked[T]) -> None:
        """Delete the placeholder, so that another caller may compute immediately."""
        try:
            await self._effects.run(self._asking.remove(call.key, call.wire, found.cas))
        except MetacacheError as error:
            if is_injected(error):
                raise
            log_kept(error)

    async def give_back(self, call: Call[T], found: Asked[T], left: float | None) -> None:
        """Let the old value live on and the next reader win."""
        try:
            await self._effects.run(self._asking.give_back(call.key, call.wire, found.cas, left))
        except MetacacheError as error:
            if is_injected(error):
                raise
            log_kept(error)


def shorter_life(plan: Plan, found: Asked[T]) -> int | None:
    """Return the life to which an old value is shortened, in seconds; None: it ends early enough without that."""
    if found.is_placeholder and not found.is_stale:
        return None  # it lives for the lease, and shows an endless life
    fresh = 0.0 if found.is_stale else max(found.left - plan.stale, 0.0)
    return max(plan.lease, int(fresh)) if found.left > plan.lease + fresh else None


def log_kept(error: MetacacheError) -> None:
    """Log that a lease was not given back. It ends by itself."""
    logger.debug("a lease could not be given back: %s", type(error).__name__)
