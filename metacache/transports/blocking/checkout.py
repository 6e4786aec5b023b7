"""Things lent to one thread at a time: a shelf of idle ones, a queue of threads, and an account of what is lent.

Knows nothing of what is lent. No Condition: its ``with`` is Python code in which a signal can lose the lock; a bare
lock, one a waiter, can not be lost.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Final, Generic, Protocol, TypeVar, final

from metacache.interrupts import clear_frames, ignoring, is_own

__all__ = ["ROUND", "Checkout", "IdleStack", "Waiter", "Waker"]

# A signal can strike whoever was about to wake the first in line: it looks for itself every so many seconds.
ROUND: Final = 0.05


class _Lent(Protocol):
    def close(self) -> None:
        """Close it."""
        ...


T = TypeVar("T", bound=_Lent)


class IdleStack(Protocol[T]):
    """Where what is idle lies, longest unused first: a deque, or what refuses to keep anything."""

    def pop(self) -> T:
        """Return the one used last; raise IndexError when there is none."""
        ...

    def append(self, lent: T, /) -> None:
        """Take one back."""
        ...

    def remove(self, lent: T, /) -> None:
        """Take *lent* off; raise ValueError when it is not here."""
        ...

    def __iter__(self) -> Iterator[T]: ...
    def __len__(self) -> int: ...


def _always() -> bool:
    return True


@final
class _Retired(Generic[T]):
    """The shelf of a closed lender: nothing comes from it, and what is put there is closed and no longer *known*."""

    def __init__(self, known: list[weakref.ref[T]]) -> None:
        self._known = known

    def pop(self) -> T:
        raise IndexError("closed")

    def append(self, lent: T, /) -> None:
        lent.close()
        with ignoring(ValueError):  # not one that was admitted
            self._known.remove(weakref.ref(lent))

    def remove(self, _: T, /) -> None:
        raise ValueError("closed")

    def __iter__(self) -> Iterator[T]:
        return iter(())

    def __len__(self) -> int:
        return 0


@final
class Waker:
    """Wakes one thread, whoever rings it."""

    __slots__ = ("_asleep",)

    def __init__(self) -> None:
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def ring(self) -> None:
        """Wake who waits, or who will."""
        with ignoring(RuntimeError):  # rung before
            self._asleep.release()

    def wait(self, seconds: float) -> bool:
        """Wait for it to be rung; return whether it was."""
        return self._asleep.acquire(timeout=max(seconds, 0.0))


@final
class Waiter(Generic[T]):
    """A place in the line of a lender, since *began*. Who stands in several lines has one *bell* for all of them."""

    __slots__ = ("__weakref__", "_hand", "_has_left", "began", "bell")

    def __init__(self, bell: Waker) -> None:
        self._hand: list[T] = []
        self._has_left = False
        self.bell = bell
        self.began = monotonic()

    def give(self, given: T) -> T | None:
        """Hand *given* over, and wake who waits; return it when who waited has left meanwhile and not taken it."""
        # First give, then look who left; who leaves says so first, and then looks at the hand: one of the two takes it.
        self._hand.append(given)
        self.bell.ring()
        return self.receive() if self._has_left else None

    def receive(self) -> T | None:
        """Return what was handed over, if anything; to one alone, whoever asks at once."""
        with ignoring(IndexError):
            return self._hand.pop()
        return None

    def leave(self) -> T | None:
        """Wait no longer; return what was handed over and not received."""
        self._has_left = True
        return self.receive()


@final
class Checkout(Generic[T]):
    """Lends what *make* makes, at most *size* of them, the last used first; callers that find none wait in order.

    Args:
        make: returns a new one, without waiting; what was made by several at once and is too many is dropped.
        size: how many there may be.
        may_make: tells whether one may be made now, or one that was set aside lent again.

    What is lent is owned: idle it lies on the shelf, in use only its user holds it, and here it is known weakly. So
    nothing that is raised, wherever it strikes, can lose a place: what nobody holds is gone, and its place is free.

    ``shelf`` and ``waiters`` are there for the short way of the busiest callers: pop, use, append, and `serve` when
    somebody waits.
    """

    __slots__ = ("_aside", "_known", "_make", "_may_make", "_size", "shelf", "waiters")

    shelf: IdleStack[T]

    def __init__(self, make: Callable[[], T], size: int, *, may_make: Callable[[], bool] = _always) -> None:
        self._make = make
        self._size = size
        self._may_make = may_make
        self.shelf = deque()
        self.reset()

    def reset(self) -> None:
        """In a forked child: forget what is lent to threads that are not there, and locks that nobody will release."""
        # Weak: a waiter that is dropped, with the batch that it waits for, gives up its place.
        self.waiters: deque[weakref.ref[Waiter[T]]] = deque()
        self._aside: deque[T] = deque()
        self._known: list[weakref.ref[T]] = []
        self.shelf = _Retired(self._known) if self.is_closed else deque()

    @property
    def is_closed(self) -> bool:
        """True once it was closed."""
        return isinstance(self.shelf, _Retired)

    def all(self) -> list[T]:
        """Return all that there are, idle or lent."""
        living = [lent for ref in tuple(self._known) if (lent := ref()) is not None]
        return living[: self._size]  # those behind are not admitted

    def standing(self) -> tuple[tuple[T, ...], int]:
        """Return what is idle, and how many are in use: both of one look at the shelf, so never more than *size*."""
        idle = tuple(self.shelf)
        return idle, max(len(self.all()) - len(idle) - len(self._aside), 0)

    @property
    def opened(self) -> int:
        """How many there are, but for those set aside."""
        return len(self.all()) - len(self._aside)

    def take(self, until: float) -> T | None:
        """Return an idle one, a new one, or one that is handed over before *until* (``time.monotonic()``); else None.

        None at once when it is closed.
        """
        try:
            while not self.is_closed:
                taken = self._stand_in_line(until)
                if taken is not None or monotonic() >= until:
                    return taken
            return None
        except BaseException as error:
            clear_frames(error)
            raise

    def _stand_in_line(self, until: float) -> T | None:
        # First in line, then look: whatever is put back after the look is handed over.
        waiter = self.join(Waker())
        try:
            found = self.look()
            return self._sleep(waiter, until) if found is None else found
        finally:
            self.leave(waiter)

    def join(self, bell: Waker) -> Waiter[T]:
        """Stand in line, and have *bell* rung when something is handed over; `collect` it then, and `leave`."""
        waiter: Waiter[T] = Waiter(bell)
        self.waiters.append(weakref.ref(waiter))
        return waiter

    def collect(self, waiter: Waiter[T]) -> T | None:
        """Return what was handed to *waiter*, or what there is if it has its turn; None when there is none."""
        given = waiter.receive()
        return self.look() if given is None and self._has_turn(waiter) else given

    def leave(self, waiter: Waiter[T]) -> None:
        """Leave the line; what was handed over and not collected is put back."""
        with ignoring(ValueError):  # no longer in line: it was served
            self.waiters.remove(weakref.ref(waiter))
        given = waiter.leave()
        if given is not None:
            self.put_back(given)

    def _sleep(self, waiter: Waiter[T], until: float) -> T | None:
        """Return what is handed over to *waiter*; None when it is woken with nothing, it is closed or time is up."""
        while not self.is_closed and not waiter.bell.wait(min(until - monotonic(), ROUND)):
            found = self.collect(waiter)
            if found is not None or monotonic() >= until:
                return found
        return waiter.receive()

    def _has_turn(self, waiter: Waiter[T]) -> bool:
        """Return whether *waiter* is the first in line, or out of it: an interrupted thread may have removed it."""
        line = self._line()
        return waiter not in line or line[0] is waiter

    def _line(self) -> list[Waiter[T]]:
        return [waiter for ref in tuple(self.waiters) if (waiter := ref()) is not None]

    @property
    def waiting(self) -> int:
        """How many wait in line."""
        return len(self._line()) if self.waiters else 0

    def look(self) -> T | None:
        """Return an idle one, or a new one if one more is admitted, without waiting."""
        with ignoring(IndexError):
            return self.shelf.pop()
        self._forget_the_lost()
        is_full = len(self._known) >= self._size
        if self.is_closed or (is_full and not self._aside) or not self._may_make():
            return None
        with ignoring(IndexError):
            return self._aside.pop()
        return None if is_full else self._made()

    def _made(self) -> T | None:
        made = self._make()
        ref = weakref.ref(made, self._wake_all)
        # First into the list, then look who stands before it. No lock: a signal's handler that comes to look too would
        # wait for ever for the thread that it interrupted.
        self._known.append(ref)
        return made if self._is_admitted(ref) else None

    def _forget_the_lost(self) -> None:
        for ref in tuple(self._known):
            if ref() is None:
                with ignoring(ValueError):  # somebody else was faster
                    self._known.remove(ref)

    def _is_admitted(self, ref: weakref.ref[T]) -> bool:
        """Tell whether there is room for *ref*: fewer living ones than `size` were in the list before it."""
        known = tuple(self._known)
        before = known[: known.index(ref)]
        return len([other for other in before if other() is not None]) < self._size

    def put_back(self, lent: T) -> None:
        """Take back what was lent, and serve who waits."""
        # First put, then look who waits: who came in between has looked at the shelf after standing in line.
        self.shelf.append(lent)
        if self.waiters:
            self.serve()

    def shelf_of_failed(self) -> IdleStack[T]:
        """Return where to put one that is of no use now. It is lent again, in place of a new one, if one may be made.

        That is the usual shelf when somebody waits and may make one, for there is nothing better to wait for.
        """
        return self.shelf if self.is_closed or (self.waiters and self._may_make()) else self._aside

    def serve(self) -> None:
        """Give an idle one to the first in line; do nothing when none is idle or nothing waits."""
        while self.waiters:
            try:
                given = self.shelf.pop()
            except IndexError as error:
                if not is_own(error):
                    raise
                return
            missed = self._hand_over(given)
            if missed is None:
                return
            self.shelf.append(missed)

    def _hand_over(self, given: T) -> T | None:
        """Give *given* to the first in line; return it when that one has left meanwhile."""
        with ignoring(IndexError):  # another thread has served it
            waiter = self.waiters.popleft()()
            return given if waiter is None else waiter.give(given)
        return given

    def _wake_all(self, _: object = None) -> None:
        """Wake all waiters and give them nothing: the state that they wait for may have changed."""
        for waiter in self._line():
            waiter.bell.ring()

    def close(self) -> None:
        """Close what is idle, and what is lent as it comes back; who waits gets None. Closing twice is nothing."""
        shelf, self.shelf = self.shelf, _Retired(self._known)
        with ignoring(IndexError):
            while True:
                self.shelf.append(shelf.pop())  # closes it
        with ignoring(IndexError):
            while True:
                self.shelf.append(self._aside.pop())
        self._wake_all()
