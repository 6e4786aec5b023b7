"""How a caller waits for a value that another caller computes, in this process or in another one.

Callers of one process share the waiting. All wait for the computation of this process, if there is one. Else one of
them, the looker, asks the cache from time to time and shares what it finds. It awaits only the effects of its client.
"""

from __future__ import annotations

import random
from typing import Final, Generic, TypeAlias, TypeVar, final

from metacache.caching.asking import Asked, is_asked
from metacache.caching.exchanges import Exchanges
from metacache.caching.flights import Flight, Flights
from metacache.observe import Source
from metacache.operations.results import Computed
from metacache.transports.base import Operation

__all__ = ["ASK_AGAIN", "COMPUTE", "Shared", "Waiting", "result_of"]

T = TypeVar("T")

Shared: TypeAlias = Computed[T] | Asked[T]
"""What the owner of a flight shares with its waiters: a value, or what the cache says now."""

# What the owner of a flight does.
COMPUTE: Final = "compute"  # it has the win
LOOK: Final = "look"  # it asks again for all that wait

# Seconds after which a caller that waits for a computation of this process asks the cache again: the key may have been
# deleted, or be computed by another process.
ASK_AGAIN: Final = 1.0
# Seconds between two looks at a key that another process computes. They grow by GROWTH with each look, so that a caller
# waits about a seventh of a computation's time longer than that takes.
FIRST_LOOK: Final = 0.005
LAST_LOOK: Final = 0.1
GROWTH: Final = 1.25


@final
class Waiting(Generic[T]):
    """Waits for other callers of one client and its views.

    Args:
        exchanges: of the client.
        flights: the computations of this process.
    """

    __slots__ = ("_effects", "_exchanges", "_flights")

    def __init__(self, exchanges: Exchanges[T], flights: Flights[Shared[T]]) -> None:
        self._exchanges = exchanges
        self._effects = exchanges.effects
        self._flights = flights

    async def wait(
        self, ask: Operation[T | Asked[T]], found: Asked[T], until: float
    ) -> Computed[T] | tuple[T | Asked[T]] | None:
        """Wait until *until* at most for the caller that computes the key of *ask*; *found*: what *ask* found.

        Return its value, or what the cache says then, in a tuple. None: ask again. Raises what the factory of a caller
        in this process raises.
        """
        flight = self._flights.find((ask.key, found.cas, COMPUTE))
        if flight is None:
            flight, is_looker = self._flights.start((ask.key, found.cas, LOOK))
            if is_looker:
                return await self._look(ask, found, flight, until)
        await self._effects.wait(flight, min(ASK_AGAIN, until - self._effects.now()))
        return result_of(flight)

    async def _look(
        self, ask: Operation[T | Asked[T]], found: Asked[T], look: Flight[Shared[T]], until: float
    ) -> tuple[T | Asked[T]] | None:
        """Ask again from time to time, for all that wait in this process, until the state of the key changes."""
        pause = FIRST_LOOK
        try:
            while True:
                left = until - self._effects.now()
                if left <= 0:
                    return (found,)
                await self._effects.sleep(min(random.uniform(pause / 2, pause), left))
                pause = min(GROWTH * pause, LAST_LOOK)
                # The winner may be of this process, and have begun its flight after this caller looked for it.
                if self._flights.find((ask.key, found.cas, COMPUTE)) is not None:
                    return None
                again = await self._exchanges.attempt(ask)
                if again is None:
                    return None
                (seen,) = again
                if is_asked(seen) and seen.cas == found.cas and not seen.won:
                    continue
                look.finish(seen.as_taken() if is_asked(seen) else Computed(seen, Source.WAITED))
                return again
        finally:
            look.finish()


def result_of(flight: Flight[Shared[T]]) -> Computed[T] | tuple[Asked[T]] | None:
    """Return the result of *flight*; None if it has not ended, or its owner gave up. Raises its failure."""
    if flight.failure is not None:
        raise flight.failure
    result = flight.result
    if isinstance(result, Asked):
        return (result,)
    if result is None:
        return None
    return Computed(result.value, Source.WAITED)
