"""What all callers of `get_or_compute` share, through one client and its views: the flights and the counts."""

from __future__ import annotations

from typing import Generic, TypeVar, final

from metacache.caching.asking import Asked
from metacache.caching.flights import AllFlights
from metacache.caching.statistics import ComputationCounts
from metacache.operations.results import Computed

__all__ = ["Shared"]

T = TypeVar("T")


@final
class Shared(Generic[T]):
    """The flights and the counts of one client and its views."""

    __slots__ = ("computations", "flights")

    def __init__(self) -> None:
        self.computations = ComputationCounts()
        self.flights: AllFlights[Computed[T] | Asked[T]] = AllFlights()
