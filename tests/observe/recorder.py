"""An observer that keeps its events."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final, TypeVar

from metacache import Called, Exchanged
from metacache.observe import Event

E = TypeVar("E")

CALLER: Final[ContextVar[str]] = ContextVar("caller", default="none")


class Recorder:
    """Keeps the events, and for calls and requests the value of CALLER."""

    def __init__(self) -> None:
        self.calls: list[Called] = []
        self.exchanges: list[Exchanged] = []
        self.events: list[Event] = []
        self.callers: list[str] = []

    def called(self, event: Called, /) -> None:
        self.calls.append(event)
        self.callers.append(CALLER.get())

    def exchanged(self, event: Exchanged, /) -> None:
        self.exchanges.append(event)
        self.callers.append(CALLER.get())

    def happened(self, event: Event, /) -> None:
        self.events.append(event)

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    def clear(self) -> None:
        for kept in (self.calls, self.exchanges, self.events, self.callers):
            kept.clear()

    def last(self) -> tuple[str, int, int, int, int, int]:
        """Return verb, keys, hits, misses, stale and undecodable of the last call."""
        call = self.calls[-1]
        return call.verb, call.keys, call.hits, call.misses, call.stale, call.undecodable
