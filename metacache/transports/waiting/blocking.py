"""A queue of waiting threads, served in order, each with a bare lock of its own.

Knows nothing of what is handed over. No Condition: its ``with`` is Python code in which a signal can lose the lock.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar, final

__all__ = ["WaitingLine"]

T = TypeVar("T")


@final
class _Waiter(Generic[T]):
    __slots__ = ("_asleep", "given")

    def __init__(self) -> None:
        self.given: T | None = None
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # woken before
            self._asleep.release()

    def sleep(self, seconds: float) -> T | None:
        """Wait to be woken; return what was handed over, if anything."""
        self._asleep.acquire(timeout=max(seconds, 0.0))
        given, self.given = self.given, None
        return given


@final
class WaitingLine(Generic[T]):
    """The threads that wait for a T, first come, first served.

    ``waiters`` is read by others only for its truth and length.
    """

    __slots__ = ("waiters",)

    def __init__(self) -> None:
        self.waiters: deque[_Waiter[T]] = deque()

    def wait(self, look: Callable[[], T | None], seconds: float, put_back: Callable[[T], None]) -> T | None:
        """Stand in line; return what *look* finds once there, or what is handed over within *seconds*, or None.

        None also when everybody is woken. What is handed over to a caller that an exception carries away goes to
        *put_back*.
        """
        waiter: _Waiter[T] = _Waiter()
        # First in line, then look: whatever is put back after the look is handed over.
        self.waiters.append(waiter)
        try:
            found = look()
            return waiter.sleep(seconds) if found is None else found
        finally:
            with contextlib.suppress(ValueError):  # no longer in line: it was served
                self.waiters.remove(waiter)
            if waiter.given is not None:
                put_back(waiter.given)

    def hand_over(self, take: Callable[[], T], put_back: Callable[[T], None]) -> None:
        """Give the first in line what *take* returns; nothing when *take* raises IndexError or nobody waits.

        A waiter that times out at this very moment may miss it; then nobody holds it any more, and whoever lent it
        knows.
        """
        while self.waiters:
            try:
                given = take()
            except IndexError:
                return
            try:
                waiter = self.waiters.popleft()
            except IndexError:
                put_back(given)
                continue  # somebody may have come to stand in line meanwhile
            waiter.given = given
            waiter.wake()
            return

    def wake_all(self) -> None:
        """Wake everybody, with nothing in hand: what they wait for has to be looked for anew."""
        for waiter in tuple(self.waiters):
            waiter.wake()
