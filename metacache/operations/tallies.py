"""Counts the reads of one call of an observed client: a tally for each call, in a context variable.

An unobserved client counts with `Counts` instead. This module does no I/O.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Protocol, final

from metacache.marks import override

__all__ = ["TALLY", "ReadCounts", "Tally", "TallyCounts", "count_step", "new_tally", "note_suppressed"]


@final
class Tally(dict[str, int]):
    """The hits, misses, stale and undecodable values of one call, and the answered steps of a recipe, in this order.

    Attributes:
        suppressed: the class of the last error after which the recipe went on; None: there was none.
    """

    suppressed: type[BaseException] | None = None  # of the class: most calls have none and do not store it


# A tally that has no names counts for no call.
TALLY: Final[ContextVar[Tally]] = ContextVar("metacache_tally", default=Tally())  # noqa: B039 - it is never changed


def new_tally() -> Tally:
    """Return the tally of a new call."""
    return Tally(hits=0, misses=0, stale=0, undecodable=0, steps=0)


def count_step() -> None:
    """Count one answered request of the recipe that runs."""
    tally = TALLY.get()
    if tally:
        tally["steps"] += 1


def note_suppressed(error: type[BaseException]) -> None:
    """Note that the recipe that runs goes on after an *error*, which ``on_error`` suppresses."""
    tally = TALLY.get()
    if tally:
        tally.suppressed = error


class ReadCounts(Protocol):
    """What readers count with: `Counts`, or `TallyCounts` of an observed client."""

    hits: int
    misses: int
    stale: int

    def add_reads(self, hits: int, misses: int) -> None:
        """Add the hits and misses of a batch."""
        ...


@final
class TallyCounts:
    """Counts into the tally of the current call. `end_call` adds a tally to the *totals* of the client.

    ``counts.hits += 1`` reads 0 and adds 1 to the tally, because `__setattr__` does not store the number.
    """

    __slots__ = ("hits", "misses", "stale", "totals", "undecodable")

    if TYPE_CHECKING:
        hits: int
        misses: int
        stale: int
        undecodable: int
        totals: ReadCounts

    def __init__(self, totals: ReadCounts) -> None:
        store = object.__setattr__
        store(self, "totals", totals)
        for name in ("hits", "misses", "stale", "undecodable"):
            store(self, name, 0)

    @override
    def __setattr__(self, name: str, number: Any) -> None:  # Any: object.__setattr__ has it; an int
        tally = TALLY.get()
        try:
            tally[name] += number
        except KeyError:  # of the look-up: a background refresh belongs to no call
            self.end_call(Tally(new_tally(), **{name: number}))

    def add_reads(self, hits: int, misses: int) -> None:
        """Add the hits and misses of a batch."""
        self.hits += hits
        self.misses += misses

    def end_call(self, tally: Tally) -> tuple[int, int, int, int, int]:
        """Add the *tally* of a call that has ended to the totals; return its numbers. It counts nothing more."""
        hits, misses, stale, undecodable, steps = tally.values()
        tally.clear()
        totals = self.totals
        # As in `Counts`: no call in between, so that no count of another thread is lost.
        if hits:
            totals.hits += hits
        if misses:
            totals.misses += misses
        if stale:
            totals.stale += stale
        return hits, misses, stale, undecodable, steps
