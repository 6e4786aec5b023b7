"""Lend connections to threads, one thread at a time: a stack of idle ones, a queue of waiters, and a count of the lent.

It can lend any object with a `close` method. It uses no Condition: its ``with`` statement runs Python code, in which a
signal may leave the lock held. Each waiter has a bare lock of its own, which no signal can leave held.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from time import monotonic
from typing import Final, Generic, Protocol, TypeVar, final

from metacache.interrupts import clear_frames, ignoring, is_own

__all__ = ["POLL", "Checkout", "IdleStack", "Waiter", "Waker"]

# A signal may interrupt the thread that was about to wake the first waiter. So waiters check again after this many
# seconds.
POLL: Final = 0.05


class _Lent(Protocol):
    def close(self) -> None:
        """Close it."""
        ...


T = TypeVar("T", bound=_Lent)


class IdleStack(Protocol[T]):
    """The idle ones, longest unused first: a deque, or the stack of a closed checkout, which keeps none."""

    def pop(self) -> T:
        """Return the one used last; raise IndexError when there is none."""
        ...

    def append(self, lent: T, /) -> None:
        """Take one back."""
        ...

    def remove(self, lent: T, /) -> None:
        """Remove *lent*; raise ValueError when it is not here."""
        ...

    def __iter__(self) -> Iterator[T]: ...
    def __len__(self) -> int: ...


def _always() -> bool:
    return True


@final
class _ClosedStack(Generic[T]):
    """The stack of a closed checkout: always empty. It closes each object put on it, and removes it from *known*."""

    def __init__(self, known: list[weakref.ref[T]]) -> None:
        self._known = known

    def pop(self) -> T:
        raise IndexError("closed")

    def append(self, lent: T, /) -> None:
        lent.close()
        with ignoring(ValueError):  # it was never admitted
            self._known.remove(weakref.ref(lent))

    def remove(self, _: T, /) -> None:
        raise ValueError("closed")

    def __iter__(self) -> Iterator[T]:
        return iter(())

    def __len__(self) -> int:
        return 0


@final
class Waker:
    """Wakes one waiting thread."""

    __slots__ = ("_asleep",)

    def __init__(self) -> None:
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def wake(self) -> None:
        """Wake the thread that waits, or the next one that will."""
        with ignoring(RuntimeError):  # it was woken before
            self._asleep.release()

    def wait(self, seconds: float) -> bool:
        """Wait to be woken, *seconds* at most; return whether that happened."""
        return self._asleep.acquire(timeout=max(seconds, 0.0))


@final
class Waiter(Generic[T]):
    """One caller in the queue of a checkout, since *began*. A thread in several queues has one *waker* for all."""

    __slots__ = ("__weakref__", "_handed", "_has_left", "began", "is_served", "waker")

    def __init__(self, waker: Waker) -> None:
        self._handed: list[T] = []
        self._has_left = False
        self.is_served = False
        self.waker = waker
        self.began = monotonic()

    def hand_over(self, lent: T) -> T | None:
        """Hand *lent* over and wake the waiter; return *lent* if the waiter has left without taking it."""
        # Hand over, then check whether it has left; `leave` does both in the other order. So at least one of the two
        # threads sees what the other did, and *lent* is not lost.
        self._handed.append(lent)
        self.waker.wake()
        return self.receive() if self._has_left else None

    def receive(self) -> T | None:
        """Return the object that was handed over, if any. If several threads call this, only one gets it."""
        with ignoring(IndexError):
            return self._handed.pop()
        return None

    def leave(self) -> T | None:
        """Stop waiting; return the object that was handed over and not received, if any."""
        self._has_left = True
        return self.receive()


@final
class Checkout(Generic[T]):
    """Lends objects of *make*, at most *size* of them, the last used first; callers that find none wait in order.

    Args:
        make: returns a new object, without waiting. If several threads make one at the same time and the size is
            exceeded, the surplus ones are dropped.
        size: the highest number of objects.
        may_make: returns whether a new or an unconnected object may be lent now.

    The borrower holds the only strong reference to a lent object; the checkout keeps a weak one. So no exception leaks
    a slot: when nothing refers to a lent object, its slot is free.

    ``idle`` and ``waiters`` are public for the shortest path of a borrower: pop, use, append, and `serve` if there are
    waiters.
    """

    __slots__ = ("_known", "_make", "_may_make", "_size", "_unconnected", "idle", "waiters")

    idle: IdleStack[T]

    def __init__(self, make: Callable[[], T], size: int, *, may_make: Callable[[], bool] = _always) -> None:
        self._make = make
        self._size = size
        self._may_make = may_make
        self.idle = deque()
        self.reset_after_fork()

    def stock(self) -> None:
        """Make the first object now, so that the first borrower finds it idle and need not join the queue."""
        made = self._new()
        if made is not None:
            self.idle.append(made)

    def reset_after_fork(self) -> None:
        """In a forked child: forget what the parent's threads hold, and locks that they can no longer release."""
        # Weak: a waiter leaves the queue when its batch is dropped.
        self.waiters: deque[weakref.ref[Waiter[T]]] = deque()
        self._unconnected: deque[T] = deque()
        self._known: list[weakref.ref[T]] = []
        self.idle = _ClosedStack(self._known) if self.is_closed else deque()

    @property
    def is_closed(self) -> bool:
        """True after `close`."""
        return isinstance(self.idle, _ClosedStack)

    def all(self) -> list[T]:
        """Return all that exist, idle or lent."""
        living = [lent for ref in tuple(self._known) if (lent := ref()) is not None]
        return living[: self._size]  # the others are not admitted

    def usage(self) -> tuple[tuple[T, ...], int]:
        """Return the idle ones and how many are lent. Both come from one snapshot, so the sum is at most *size*."""
        idle = tuple(self.idle)
        return idle, max(len(self.all()) - len(idle) - len(self._unconnected), 0)

    @property
    def opened(self) -> int:
        """How many exist, without the unconnected ones."""
        return len(self.all()) - len(self._unconnected)

    @property
    def waiting(self) -> int:
        """How many waiters are in the queue."""
        return len(_living(self.waiters)) if self.waiters else 0

    # --- lending -----------------------------------------------------------------------------------------------------

    def take(self, until: float) -> T | None:
        """Return an idle or new object, or one handed over before *until* (``time.monotonic()``); else None.

        Return None immediately when the checkout is closed.
        """
        try:
            while not self.is_closed:
                taken = self._wait_in_queue(until)
                if taken is not None or monotonic() >= until:
                    return taken
            return None
        except BaseException as error:
            clear_frames(error)
            raise

    def _wait_in_queue(self, until: float) -> T | None:
        # Join, then look for an idle one: one that another thread puts back after the look is handed over.
        waiter = self.join(Waker())
        try:
            found = self.take_now()
            return self._sleep(waiter, until) if found is None else found
        finally:
            self.leave(waiter)

    def join(self, waker: Waker) -> Waiter[T]:
        """Join the queue; *waker* is woken when one is handed over. Then `collect` it, and `leave`."""
        waiter: Waiter[T] = Waiter(waker)
        self.waiters.append(weakref.ref(waiter))
        return waiter

    def collect(self, waiter: Waiter[T]) -> T | None:
        """Return the object handed to *waiter*, or an available one if it is its turn; None when there is none."""
        handed = waiter.receive()
        taken = self.take_now() if handed is None and self._is_next(waiter) else handed
        waiter.is_served = taken is not None
        return taken

    def leave(self, waiter: Waiter[T]) -> None:
        """Leave the queue, and put back an object that was handed over and not collected."""
        with ignoring(ValueError):  # it was served, and so removed
            self.waiters.remove(weakref.ref(waiter))
        handed = waiter.leave()
        if handed is not None:
            self.put_back(handed)

    def _sleep(self, waiter: Waiter[T], until: float) -> T | None:
        """Return the object handed to *waiter*; None if there is none at *until*, when woken, or after a close."""
        while not self.is_closed and not waiter.waker.wait(min(until - monotonic(), POLL)):
            found = self.collect(waiter)
            if found is not None or monotonic() >= until:
                return found
        return waiter.receive()

    def _is_next(self, waiter: Waiter[T]) -> bool:
        """Return whether *waiter* is first in the queue, or not in it any more: an interrupted thread removed it."""
        queue = _living(self.waiters)
        return waiter not in queue or queue[0] is waiter

    def take_now(self) -> T | None:
        """Return an idle object, or a new one if there may be one more; else None. Never waits."""
        # The conditions are only quicker than the exceptions: another thread may take the last one in between.
        if self.idle:
            with ignoring(IndexError):
                return self.idle.pop()
        self._forget_lost()
        is_full = len(self._known) >= self._size
        if self.is_closed or (is_full and not self._unconnected) or not self._may_make():
            return None
        if self._unconnected:
            with ignoring(IndexError):
                return self._unconnected.pop()
        return None if is_full else self._new()

    def _new(self) -> T | None:
        made = self._make()
        # The callback refers to the queue, not to this object, which would be a cycle: see `Lending`.
        ref = weakref.ref(made, partial(_wake_all, self.waiters))
        # Append, then count live entries ahead: two threads may append at the same time. No lock, because a signal
        # handler that takes one too would wait forever for the thread that it interrupted.
        self._known.append(ref)
        return made if self._is_admitted(ref) else None

    def _forget_lost(self) -> None:
        for ref in tuple(self._known):
            if ref() is None:
                with ignoring(ValueError):  # another thread was faster
                    self._known.remove(ref)

    def _is_admitted(self, ref: weakref.ref[T]) -> bool:
        """Return whether fewer than `size` live entries are ahead of *ref*."""
        known = tuple(self._known)
        ahead = known[: known.index(ref)]
        return len([other for other in ahead if other() is not None]) < self._size

    # --- putting back ------------------------------------------------------------------------------------------------

    def put_back(self, lent: T) -> None:
        """Take *lent* back, and serve the waiters."""
        # Put back, then look for waiters. A waiter joins the queue and then looks at the stack: one of the two sees the
        # other.
        self.idle.append(lent)
        if self.waiters:
            self.serve()

    def stack_of_unconnected(self) -> IdleStack[T]:
        """Return the stack for an object without a socket, because its dial failed or it was idle for too long.

        The checkout lends it again in place of a new one. It goes on the idle stack if a waiter may dial now, so that
        the waiter gets it immediately.
        """
        return self.idle if self.is_closed or (self.waiters and self._may_make()) else self._unconnected

    def serve(self) -> None:
        """Hand an idle one to the first waiter; do nothing when none is idle or there is no waiter."""
        while self.waiters:
            try:
                lent = self.idle.pop()
            except IndexError as error:
                if not is_own(error):
                    raise
                return
            missed = self._hand_over(lent)
            if missed is None:
                return
            self.idle.append(missed)

    def _hand_over(self, lent: T) -> T | None:
        """Hand *lent* to the first waiter; return it when that waiter has left."""
        with ignoring(IndexError):  # another thread has served it
            waiter = self.waiters.popleft()()
            return lent if waiter is None else waiter.hand_over(lent)
        return lent

    def close(self) -> None:
        """Close idle objects now and lent ones when they are put back; waiters get None. Idempotent."""
        idle, self.idle = self.idle, _ClosedStack(self._known)
        with ignoring(IndexError):  # another thread takes the last one
            while idle:
                self.idle.append(idle.pop())  # closes it
        if self._unconnected:
            self._close_unconnected()
        _wake_all(self.waiters)

    def _close_unconnected(self) -> None:
        with ignoring(IndexError):  # as above
            while self._unconnected:
                self.idle.append(self._unconnected.pop())


def _living(waiters: Iterable[weakref.ref[Waiter[T]]]) -> list[Waiter[T]]:
    return [waiter for ref in tuple(waiters) if (waiter := ref()) is not None]


def _wake_all(waiters: Iterable[weakref.ref[Waiter[T]]], _: object = None) -> None:
    """Wake all waiters without handing anything over: a slot may be free, or the checkout is closed."""
    for waiter in _living(waiters):
        waiter.waker.wake()
