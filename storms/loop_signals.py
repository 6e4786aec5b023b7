"""Signals whose handler raises while an event loop runs: each exception comes out of a call, or the loop reports it.

The handler raises only where code of metacache runs, or code that it calls. The rest of the process is the harness and
the event loop. It does not raise while asyncio schedules a task or a callback: asyncio would lose it, and no library
could find it again.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import traceback
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, final

from storms.signals import RAISED, path, place

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

__all__ = ["LoopInterruptions"]

# The modules that schedule tasks and callbacks; and one that swallows each OSError, as a closed descriptor raises it.
SCHEDULING: Final = frozenset(
    [*(f"asyncio.{name}" for name in ("base_events", "events", "futures", "tasks")), "selectors"]
)
PAUSE: Final = (0.005, 0.4)  # seconds between two signals


@final
class LoopInterruptions:
    """Interrupts the thread of an event loop, at random moments.

    Attributes:
        calls: exceptions that came out of a call.
        callbacks: exceptions that came out of a callback of the loop, which reported them.
        dropped: exceptions that Python dropped: in a finalizer, while it handled another one, or in a part of a batch
            whose other part had failed (asyncio.gather raises only one exception).
        faults: descriptions of exceptions that were swallowed, replaced or copied, and of other errors of callbacks.
    """

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._expected: list[BaseException] = []
        self.calls = 0
        self.callbacks = 0
        self.dropped = 0
        self.faults: list[str] = []

    @property
    def summary(self) -> str:
        """What it did, as words."""
        return f"{self.calls} signals in calls, {self.callbacks} in callbacks ({self.dropped} dropped by Python)"

    @contextmanager
    def installed(self, loop: asyncio.AbstractEventLoop) -> Generator[None]:
        """Install the handler of SIGALRM, and a handler of the exceptions of *loop*, while the block runs."""
        before, hook = signal.signal(signal.SIGALRM, self._handle), sys.unraisablehook
        sys.unraisablehook = self._drop
        loop.set_exception_handler(self._report)
        self._arm()
        try:
            yield
        finally:
            signal.signal(signal.SIGALRM, signal.SIG_IGN)  # first: the handler sets the timer again
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, before)
            sys.unraisablehook = hook

    def arrived(self, raised: BaseException) -> None:
        """Note that *raised* came out of a call."""
        self.calls += self._took(raised)

    @property
    def expected(self) -> list[BaseException]:
        """The exceptions that have not come out yet."""
        return self._expected.copy()

    def finish(self, raised: Iterable[BaseException]) -> None:
        """Note those of *raised* that did not come out. Call it when all calls that they interrupted have ended."""
        for lost in raised:
            left = [each for each in self._expected if each is not lost]
            if len(left) == len(self._expected):
                continue  # it came out
            self._expected = left
            if _is_of_part(lost):
                self.dropped += 1
            else:
                self.faults.append(f"a {type(lost).__name__} of a signal was swallowed{path(lost)}")

    def _arm(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, self._chance.uniform(*PAUSE))

    def _handle(self, _: int, frame: FrameType | None) -> None:
        self._arm()
        if _is_in_client(frame):
            raised = self._chance.choice(RAISED)("a signal")
            raised.add_note(place(frame))
            self._expected.append(raised)
            raise raised

    def _took(self, raised: BaseException) -> bool:
        """Return whether *raised* was expected. It is no longer, and those that it interrupted are not either."""
        was_expected = any(expected is raised for expected in self._expected)
        if not was_expected:
            self.faults.append(f"a {type(raised).__name__} came out twice, or as a copy{path(raised)}")
        hidden = _with_contexts(raised)
        left = [expected for expected in self._expected if not any(expected is each for each in hidden)]
        self.dropped += len(self._expected) - len(left) - was_expected
        self._expected = left
        return was_expected

    def _report(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:  # Any: as asyncio declares it
        error = context.get("exception")
        if isinstance(error, RAISED):
            self.callbacks += self._took(error)
        else:
            about = [value for key, value in context.items() if key != "message"]
            self.faults.append(f"the loop reported: {context['message']}: {about!r}")

    def _drop(self, found: UnraisableHookArgs) -> None:
        if isinstance(found.exc_value, RAISED):
            self.dropped += self._took(found.exc_value)


def _is_in_client(frame: FrameType | None) -> bool:
    """Return whether *frame* belongs to metacache, or to code that metacache has called and that may be interrupted."""
    frames = [each for each, _ in traceback.walk_stack(frame)] if frame is not None else []
    if any(each.f_code.co_name == "get_buffer" for each in frames):
        return False  # uvloop replaces the exceptions of `get_buffer`, and of what it calls, by one of its own
    for each in frames:
        module = str(each.f_globals.get("__name__"))
        package = module.partition(".")[0]
        if package in {"metacache", "storms"} or module in SCHEDULING:
            return package == "metacache"
    return False


def _with_contexts(raised: BaseException) -> list[BaseException]:
    """Return *raised*, and the exceptions during whose handling it was raised."""
    found: list[BaseException] = []
    each: BaseException | None = raised
    while each is not None and each not in found:
        found.append(each)
        each = each.__context__
    return found


def _is_of_part(lost: BaseException) -> bool:
    """Return whether *lost* ended the task of one part of a batch."""
    return lost.__traceback__ is not None and lost.__traceback__.tb_frame.f_code.co_name == "_finish_part"
