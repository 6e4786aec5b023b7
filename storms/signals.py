"""Signals whose handler raises, at random moments, exceptions of five classes: each comes out of the call unchanged."""

from __future__ import annotations

import random
import signal
import sys
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final, final

from metacache import MetacacheError

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

__all__ = ["RAISED", "Interruptions", "path", "place"]

PLACES: Final = 5  # the innermost calls that a note names


class Interrupt(BaseException):
    """As KeyboardInterrupt."""


class LateSignal(TimeoutError):
    """As the handler of an alarm."""


class SystemSignal(OSError):
    """As an error of a system call, without errno."""


class OrdinarySignal(Exception):
    """An exception of an application."""


class OwnSignal(MetacacheError):
    """An exception that looks like one of metacache."""


RAISED: Final = (Interrupt, LateSignal, SystemSignal, OrdinarySignal, OwnSignal)


@final
class Interruptions:
    """Interrupts the main thread in `round`.

    Attributes:
        count: exceptions that came out.
        dropped: exceptions that Python dropped: the handler ran in a finalizer, or in a callback of a weak reference.
        faults: descriptions of exceptions that were replaced or swallowed.
    """

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._last: list[BaseException] = []  # a list: the handler changes it behind the back of type checkers
        self.count = 0
        self.dropped = 0
        self.faults: list[str] = []

    @contextmanager
    def installed(self) -> Generator[None]:
        """Install the handler of SIGALRM while the block runs."""
        before, hook = signal.signal(signal.SIGALRM, self._handle), sys.unraisablehook
        sys.unraisablehook = self._drop
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, before)
            sys.unraisablehook = hook

    @property
    def summary(self) -> str:
        """What it did, as words."""
        return f"{self.count} signals ({self.dropped} dropped by Python)"

    def _handle(self, _: int, __: FrameType | None) -> None:
        raised = self._chance.choice(RAISED)("a signal")
        self._last[:] = [raised]
        raise raised

    def _drop(self, found: UnraisableHookArgs) -> None:
        self.dropped += found.exc_value in self._last
        self._last.clear()

    def round(self, step: Callable[[], BaseException | None]) -> None:
        """Run *step* again and again, until a signal interrupts it. *step* returns the error that it expects."""
        self._last.clear()
        try:
            # Again after a second, in case Python drops the first exception.
            signal.setitimer(signal.ITIMER_REAL, self._chance.uniform(0.00001, 0.005), 1.0)
            while True:
                error = step()
                if error is not None:
                    self._note(error, self._last.copy())
        except BaseException as caught:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            if not isinstance(caught, RAISED):
                raise
            self.count += 1
            self._note(caught, [raised for raised in self._last if raised is not caught])

    def _note(self, error: BaseException, hidden: list[BaseException]) -> None:
        """Note that *error* came out in place of *hidden*. It is a fault if code of metacache caught that one.

        Python clears an exception in the finalizer of a socket, and ``socket.__repr__`` catches each OSError there.
        """
        self._last.clear()
        for raised in hidden:
            frames = (frame for frame, _ in traceback.walk_tb(raised.__traceback__))
            if any("metacache" in Path(frame.f_code.co_filename).parts for frame in frames):
                self.faults.append(f"a {type(raised).__name__} of a signal came out as {error!r}{path(raised)}")
            else:
                self.dropped += 1


def path(raised: BaseException) -> str:
    """Return the places that *raised* passed, up to the one that caught it, and its notes."""
    places = traceback.extract_tb(raised.__traceback__)
    passed = "; it passed " + " > ".join(f"{Path(place.filename).name}:{place.lineno}" for place in places)
    return "; ".join([passed, *getattr(raised, "__notes__", ())])


def place(frame: FrameType | None) -> str:
    """Return where *frame* is, as a note for an exception."""
    # Not `extract_stack`: it would keep the lines of every file, and the memory would grow for minutes.
    calls = [*islice(traceback.walk_stack(frame), PLACES)]
    names = [f"{Path(call.f_code.co_filename).name}:{line}" for call, line in reversed(calls)]
    return "raised in " + " > ".join(names)
