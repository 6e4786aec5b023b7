"""`MovableClock`: the time of an embedded server, which a test moves instead of waiting."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Final, final

from metacache.errors import InvalidArgumentError
from metacache.marks import override
from metacache.settings import check_seconds

__all__ = ["MovableClock"]

_LONGEST: Final = 10_000_000_000  # seconds of one move: 300 years


@final
class MovableClock:
    """A clock for `MemoryServer`: it shows the real time plus all moves, and can be stopped. Threads may share it."""

    def __init__(self) -> None:
        self._moved = 0.0
        self._stopped_at: float | None = None

    def __call__(self) -> float:
        """Return the seconds since 1970."""
        return (time.time() if self._stopped_at is None else self._stopped_at) + self._moved

    @override
    def __repr__(self) -> str:
        return f"<MovableClock: {self._moved:g} seconds ahead{'' if self._stopped_at is None else ', stopped'}>"

    def advance(self, by: float | timedelta, /) -> None:
        """Move the time forward by *by*, in seconds or as a timedelta. Raises InvalidArgumentError if it is negative.

        Call it from one thread at a time.
        """
        seconds = by.total_seconds() if isinstance(by, timedelta) else by
        check_seconds("the move of the clock", seconds, _LONGEST, may_be_zero=True)
        self._moved += seconds

    def stop(self) -> None:
        """Let the time stand still, so that only `advance` moves it. A stopped clock cannot be started."""
        if self._stopped_at is not None:
            raise InvalidArgumentError("the clock was stopped already; advance moves a stopped clock")
        self._stopped_at = time.time()
