"""`Calls`: reports the calls of one observed client and of its views. Reads the clock and does no I/O."""

from __future__ import annotations

from contextvars import Token
from time import monotonic
from typing import Final, Self, final

from metacache.errors import ClosedError, InvalidArgumentError, InvalidKeyError
from metacache.interrupts import is_own
from metacache.observe import Called, Reporter, Source
from metacache.operations.tallies import TALLY, Tally, TallyCounts, new_tally
from metacache.protocol.keys import Key

__all__ = ["REFUSED", "CallInProgress", "Calls", "leave", "prefix_text"]

# A call that ends with one of these has made no request.
REFUSED: Final = (InvalidArgumentError, InvalidKeyError, ClosedError)


def prefix_text(prefix: Key) -> str:
    """Return *prefix* as text, for events."""
    return prefix if isinstance(prefix, str) else prefix.decode("utf-8", "backslashreplace")


@final
class Calls:
    """Reports the calls of a client.

    Args:
        reporter: calls the observer.
        counts: counts the reads of each call.
        prefix: the prefix of the client.
    """

    __slots__ = ("called", "counts", "prefix", "reporter")

    def __init__(self, reporter: Reporter, counts: TallyCounts, prefix: str) -> None:
        self.reporter = reporter
        self.counts = counts
        self.prefix = prefix
        self.called = reporter.observer.called

    def ended(
        self,
        verb: str,
        keys: int,
        tally: Tally,
        began: float,
        error: type[BaseException] | None,
        source: Source | None = None,
    ) -> None:
        """Report a call that ends now."""
        seconds = monotonic() - began
        hits, misses, stale, undecodable = self.counts.end_call(tally)
        if error is not None and issubclass(error, REFUSED):
            return
        self.reporter.called(
            Called(verb, self.prefix, keys, hits, misses, stale, undecodable, source, began, seconds, error)
        )

    def call(self, verb: str, keys: int = 1) -> CallInProgress:
        """Return a context for one call of *verb*, and report the call at its end."""
        return CallInProgress(self, verb, keys)


@final
class CallInProgress:
    """One call, as a context. ``source`` and ``error`` may be set inside; an exception sets ``error``."""

    __slots__ = ("_began", "_calls", "_keys", "_tally", "_token", "_verb", "error", "source")

    _began: float
    _token: Token[Tally]

    def __init__(self, calls: Calls, verb: str, keys: int) -> None:
        self._calls = calls
        self._verb = verb
        self._keys = keys
        self._tally = new_tally()
        self.source: Source | None = None
        self.error: type[BaseException] | None = None

    def __enter__(self) -> Self:
        self._began = monotonic()
        self._token = TALLY.set(self._tally)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object, /) -> None:
        leave(self._token)
        self._calls.ended(self._verb, self._keys, self._tally, self._began, kind or self.error, self.source)


def leave(token: Token[Tally]) -> None:
    """Make the tally of the caller the current one again."""
    try:
        TALLY.reset(token)
    except ValueError as error:
        # Python closes a coroutine that was never finished in another context, where there is nothing to reset.
        if not is_own(error):
            raise
