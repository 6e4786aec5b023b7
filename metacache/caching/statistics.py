"""Counts of computations, and the log line of a factory that is slower than its lease. Shared by a client's views."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import final

from metacache.observe import Source
from metacache.operations.statistics import count_one

__all__ = ["ComputationCounts"]

logger = logging.getLogger("metacache.caching")


@final
class ComputationCounts:
    """How calls of `get_or_compute` ended that were not plain hits, and why factories failed."""

    __slots__ = ("_failures", "_slow", "_sources")

    def __init__(self) -> None:
        self._sources: dict[str, int] = {}
        self._failures: dict[str, int] = {}
        self._slow: set[str] = set()

    def count(self, source: Source) -> None:
        """Count a value from *source*. Plain hits are counted as hits only."""
        if source is not Source.HIT:
            count_one(self._sources, source.value)

    def count_failure(self, error: Exception) -> None:
        """Count a failure of a factory by the name of its class."""
        count_one(self._failures, type(error).__name__)

    def note_refused(self, label: str, seconds: float, lease: int) -> None:
        """Log, once for each *label*, that a result which took *seconds* came after its lease and was not stored."""
        # The server's clock ticks in whole seconds, so a lease may end up to a second early.
        if seconds > lease - 1 and label not in self._slow:
            self._slow.add(label)
            logger.warning("%s took longer than its lease of %d seconds: its result is not stored", label, lease)

    def by_source(self) -> Mapping[Source, int]:
        """Return the number of values by source."""
        counts = self._sources.copy()
        return {Source(name): count for name, count in counts.items()}

    def failures(self) -> Mapping[str, int]:
        """Return the number of failures by class name."""
        return self._failures.copy()
