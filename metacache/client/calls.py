"""`Calls`: reports the calls of one observed client and of its views. Reads the clock and does no I/O."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Token
from time import monotonic
from typing import Any, Final, Self, TypeVar, final

from metacache.errors import ClosedError, InvalidArgumentError, InvalidKeyError
from metacache.interrupts import fails_again, is_own
from metacache.observe import Called, Reporter, Source, new_event
from metacache.operations.requests import GET, Operations
from metacache.operations.tallies import TALLY, Tally, TallyCounts, new_tally
from metacache.protocol.keys import Key
from metacache.protocol.replies import Reply
from metacache.transports.base import Operation
from metacache.transports.observed import Answer

__all__ = ["REFUSED", "CallInProgress", "Calls", "leave", "prefix_text"]

R = TypeVar("R")

_MISS: Final = b"EN"

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
        operations: makes the operations of the client.
    """

    __slots__ = ("_called", "_loads", "_own", "_read_value", "_totals", "counts", "prefix", "reporter")

    def __init__(
        self,
        reporter: Reporter,
        counts: TallyCounts,
        prefix: str,
        operations: Operations[Any],  # Any: the values of the client, which no event has
    ) -> None:
        self.reporter = reporter
        self.counts = counts
        self.prefix = prefix
        self._called = reporter.observer.called
        self._totals = counts.totals
        self._read_value = operations.read_value
        self._loads = operations.reader.loads
        self._own = operations.reader.own

    # --- one request -------------------------------------------------------------------------------------------------

    def answered(self, op: Operation[R], read: Callable[[Reply], R], answer: Answer, began: float) -> R:
        """Read the reply in *answer* to *op* with *read*, report the call, and return the result.

        It counts a plain hit, a plain miss and a write itself. `_read_and_count` does all other reads: a tally in the
        context costs 5,000 instructions.
        """
        reply, exchanges, ended = answer
        verb = op.verb
        hits = misses = 0
        if verb is GET:
            tokens, data = reply
            try:
                _, _, flags = tokens
            except ValueError:
                flags = None
            if flags == self._own and data is not None:
                loads = self._loads
                try:
                    result = loads(data)
                except BaseException as error:
                    if isinstance(error, Exception) and fails_again(loads, data, error):
                        return self._read_and_count(op, read, answer, began)
                    self.failed(op, error, began)
                    raise
                hits = 1
                self._totals.hits += 1
                ended = monotonic()
            elif data is None and read is self._read_value:
                misses = 1
                self._totals.misses += 1
                result = None
            else:
                return self._read_and_count(op, read, answer, began)
        elif _MISS in verb.command.codes:
            return self._read_and_count(op, read, answer, began)
        else:
            try:
                result = read(reply)
            except BaseException as error:
                exchanges.unreadable(op, error)
                self.failed(op, error, began)
                raise
        try:
            self._called(
                new_event(Called, (verb.name, self.prefix, 1, hits, misses, 0, 0, None, began, ended - began, None))
            )
        except Exception as failure:
            self.reporter.failed(failure)
        return result

    def _read_and_count(self, op: Operation[R], read: Callable[[Reply], R], answer: Answer, began: float) -> R:
        reply, exchanges, _ = answer
        with CallInProgress(self, op.verb.name, 1, began):
            try:
                return read(reply)
            except BaseException as error:
                exchanges.unreadable(op, error)
                raise

    def failed(self, op: Operation[Any], error: BaseException, began: float) -> None:  # Any: it has no result
        """Report a call that *error* ends now, without a hit or a miss."""
        self.ended(op.verb.name, 1, new_tally(), began, type(error))

    # --- other calls -------------------------------------------------------------------------------------------------

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
        return CallInProgress(self, verb, keys, monotonic())


@final
class CallInProgress:
    """One call, as a context. ``source`` and ``error`` may be set inside; an exception sets ``error``."""

    __slots__ = ("_began", "_calls", "_keys", "_tally", "_token", "_verb", "error", "source")

    _token: Token[Tally]

    def __init__(self, calls: Calls, verb: str, keys: int, began: float) -> None:
        self._calls = calls
        self._verb = verb
        self._keys = keys
        self._began = began
        self._tally = new_tally()
        self.source: Source | None = None
        self.error: type[BaseException] | None = None

    def __enter__(self) -> Self:
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
