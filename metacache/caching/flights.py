"""Single flight within one process: callers that wait for a computation, or for a look at the cache, share its result.

A flight calls its listeners when it ends. What a listener does (wake a thread, resolve a future) is the client's.
A registry refers to its flights weakly, and the owner of a flight holds it. So a flight ends with its owner, whatever
exception came where, and its waiters ask the cache again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeAlias, TypeVar, final
from weakref import WeakKeyDictionary, ref

from metacache.transports.forking import forget_in_children

__all__ = ["AllFlights", "Flight", "FlightKey", "Flights"]

V = TypeVar("V")

FlightKey: TypeAlias = tuple[bytes, int, str]
"""The routing key, the CAS that the owner saw, and what the owner does."""


@final
class Flight(Generic[V]):
    """One computation that may have waiters.

    ``is_done`` becomes true once. Then ``result`` is the result, or ``failure`` the exception that all waiters raise.
    With neither, the owner gave up, and the waiters ask again.
    """

    __slots__ = ("__weakref__", "_listeners", "failure", "is_done", "result")

    def __init__(self) -> None:
        self.is_done = False
        self.result: V | None = None
        self.failure: Exception | None = None
        self._listeners: list[Callable[[], object]] = []

    def listen(self, listener: Callable[[], object]) -> None:
        """Call *listener* when the flight ends, or now if it has ended. It may be called twice."""
        # Append first, then look: `finish` does the two in the other order.
        self._listeners.append(listener)
        if self.is_done:
            listener()

    def finish(self, result: V | None = None, failure: Exception | None = None) -> None:
        """End the flight and call all listeners. Only the first call counts."""
        if self.is_done:
            return
        self.result, self.failure = result, failure
        self.is_done = True
        for listener in tuple(self._listeners):
            listener()


@final
class _FlightRef(ref[Flight[V]]):
    """A weak reference to a flight, which knows the key."""

    __slots__ = ("key",)

    key: FlightKey


@final
class Flights(Generic[V]):
    """The flights of one client in one process and, for tasks, of one event loop."""

    __slots__ = ("__weakref__", "_ended", "_known")

    def __init__(self) -> None:
        # Threads share both without a lock: each step is one call of a C method.
        self._known: dict[FlightKey, _FlightRef[V]] = {}
        # References to flights that have ended. Their callback is a C method: Python ignores an exception that a signal
        # handler raises in a callback.
        self._ended: deque[object] = deque()

    def __len__(self) -> int:
        self._forget_ended()
        return len(self._known)

    def find(self, key: FlightKey) -> Flight[V] | None:
        """Return the flight of *key*, None when there is none under way."""
        known = self._known.get(key)
        flight = None if known is None else known()
        return None if flight is None or flight.is_done else flight

    def start(self, key: FlightKey) -> tuple[Flight[V], bool]:
        """Return the flight of *key*, and whether the caller is its owner, which holds and finishes it."""
        self._forget_ended()
        made: Flight[V] = Flight()
        own = _FlightRef(made, self._ended.append)
        own.key = key
        while True:
            known = self._known.setdefault(key, own)
            if known is own:
                return made, True
            flight = known()
            if flight is not None and not flight.is_done:
                return flight, False
            self._forget(key, known)

    def _forget_ended(self) -> None:
        while self._ended:
            try:
                ended = self._ended.pop()
            except IndexError:
                return  # another thread was faster
            # A signal may have interrupted `start` before it set the key.
            self._forget(getattr(ended, "key", None), ended)

    def _forget(self, key: FlightKey | None, known: object) -> None:
        if key is not None and self._known.get(key) is known:
            self._known.pop(key, None)


@final
class AllFlights(Generic[V]):
    """The flights of one client and its views: one registry for all threads, and one for each event loop."""

    __slots__ = ("__weakref__", "_by_loop", "_of_threads")

    def __init__(self) -> None:
        self._of_threads: Flights[V] = Flights()
        self._by_loop: WeakKeyDictionary[object, Flights[V]] = WeakKeyDictionary()
        forget_in_children(self)

    def of(self, loop: object = None) -> Flights[V]:
        """Return the registry of *loop*; without it that of the threads."""
        return self._of_threads if loop is None else self._by_loop.setdefault(loop, Flights())

    def reset_after_fork(self) -> None:
        """In a forked child: forget the flights of the parent's threads and loops."""
        self._of_threads = Flights()
        self._by_loop = WeakKeyDictionary()
