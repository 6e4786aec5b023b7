"""Counts the hits and misses of a client's reads and the errors of its calls, and takes frozen snapshots of the counts.

Threads and signal handlers count without a lock, and no count is lost. ``counts.hits += 1`` loads and stores a slot
with no call in between. CPython 3.11 to 3.14, with the GIL, lets another thread or a signal handler run only after a
call, at the start of a function, and at a jump backwards. So compute the summand before the statement that adds it.
With a lock, a handler that counts would wait forever if it interrupted the thread that holds the lock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar, final

import attrs

from metacache.observe import Source

__all__ = ["ClientStatistics", "Counts", "count_one"]

C = TypeVar("C", bound=str)
N = TypeVar("N")


@final
@attrs.frozen(kw_only=True)
class ClientStatistics:
    """The counts of a client and its views since the client was made. Two snapshots can be subtracted.

    Each key of `get`, `get_item`, `get_many`, `get_items`, `get_many_outcomes`, `get_and_touch` and `exists` is one
    read. The first requests of `update`, `append` and `prepend` are not reads: an undecodable value that they find
    counts in ``undecodable`` only. A key that is given twice in one batch counts once.

    Attributes:
        hits: reads that returned a value (None may be a value), or True.
        misses: reads that found no item, or a lease placeholder.
        stale: hits whose item was marked stale.
        undecodable: stored values that could not be decoded: the sum of `Client.undecodable`. Such a read is neither a
            hit nor a miss.
        errors: calls, or keys of a batch, that failed with TransportError, PoolTimeout, ServerError, ClientError,
            ProtocolError or AuthenticationError. They count whether they were raised or suppressed, and are not misses.
            Invalid arguments, refused values and closed clients do not count.
        computations: values of `get_or_compute` and related methods by source, without plain hits.
        factory_failures: exceptions of factories by the name of their class.
    """

    hits: int
    misses: int
    stale: int
    undecodable: int
    errors: int
    computations: Mapping[Source, int] = attrs.field(factory=dict[Source, int])
    factory_failures: Mapping[str, int] = attrs.field(factory=dict[str, int])

    def __sub__(self, earlier: ClientStatistics) -> ClientStatistics:
        """Return the counts between *earlier* and this snapshot."""
        return ClientStatistics(
            hits=self.hits - earlier.hits,
            misses=self.misses - earlier.misses,
            stale=self.stale - earlier.stale,
            undecodable=self.undecodable - earlier.undecodable,
            errors=self.errors - earlier.errors,
            computations=_difference(self.computations, earlier.computations),
            factory_failures=_difference(self.factory_failures, earlier.factory_failures),
        )


def _difference(later: Mapping[N, int], earlier: Mapping[N, int]) -> dict[N, int]:
    return {name: added for name, count in later.items() if (added := count - earlier.get(name, 0))}


@final
class Counts:
    """The counters of one client and its views. The module docstring explains why threads may share them."""

    __slots__ = ("errors", "hits", "misses", "stale")

    def __init__(self) -> None:
        self.hits = 0
        self.misses = 0
        self.stale = 0
        self.errors = 0

    def add_reads(self, hits: int, misses: int) -> None:
        """Add the hits and misses of a batch."""
        self.hits += hits
        self.misses += misses

    def add_errors(self, number: int) -> None:
        """Add that number of failed calls, or failed keys of a batch."""
        self.errors += number

    def snapshot(
        self, undecodable: int, computations: Mapping[Source, int], factory_failures: Mapping[str, int]
    ) -> ClientStatistics:
        """Return a snapshot of the counters, with these further numbers."""
        # Four loads with no call in between: no other thread runs between them.
        hits, misses, stale, errors = self.hits, self.misses, self.stale, self.errors
        return ClientStatistics(
            hits=hits,
            misses=misses,
            stale=stale,
            undecodable=undecodable,
            errors=errors,
            computations=computations,
            factory_failures=factory_failures,
        )


def count_one(counts: dict[C, int], name: C) -> None:
    """Add 1 to the count of *name*. No count is lost, as in `Counts`."""
    counts.setdefault(name, 0)
    counts[name] += 1
