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
from metacache.transports.observed import Exchanges

__all__ = ["REFUSED", "CallInProgress", "Calls", "leave", "prefix_text"]

R = TypeVar("R")

_MISS: Final = b"EN"

# A call that ends with one of these before a request was answered was refused, and is not reported.
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

    __slots__ = ("_read_value", "around", "called", "counts", "loads", "own", "prefix", "reporter", "totals")

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
        self.called = reporter.observer.called
        self.totals = counts.totals
        self._read_value = operations.read_value
        # The return flag of a plain hit, the length of the reply around its size and its data, and what decodes it.
        self.own = operations.reader.own
        self.around = len(b"VA  ") + len(self.own) + 2 * len(b"\r\n")
        # Any: as above. None: the data is the value.
        self.loads: Callable[[bytes], Any] | None = None if operations.frame.is_raw else operations.reader.loads

    # --- one request -------------------------------------------------------------------------------------------------

    def answered(
        self,
        op: Operation[R],
        read: Callable[[Reply], R],
        reply: Reply,
        exchanges: Exchanges,
        began: float,
        sent: float,
        ended: float,
    ) -> R:
        """Report the exchange and the call of *op*, read *reply* with *read*, and return the result.

        The call began at *began*, its last request at *sent*, and the reply had arrived at *ended*. A plain hit, a
        plain miss and a write take no tally in the context, which costs 5,000 instructions.
        """
        exchanges.answered(op, reply, sent, ended)
        tokens, data = reply
        verb = op.verb
        if _MISS not in verb.command.codes:
            try:
                written = read(reply)
            except BaseException as error:
                exchanges.unreadable(op, error)
                self.failed(op, error, began)
                raise
            self._report(verb.name, 0, 0, began, ended)
            return written
        if data is None and read is self._read_value:
            self.totals.misses += 1
            self._report(verb.name, 0, 1, began, ended)
            # `Reader.value` returns None on a miss: R includes it.
            return None  # type: ignore[return-value]  # pyright: ignore[reportReturnType]
        if verb is not GET or not data or len(tokens) != 3 or tokens[-1] != self.own:
            return self._read_and_count(op, read, reply, exchanges, began)
        result: Any = data  # Any: R
        if self.loads is not None:
            try:
                result = self.loads(data)
            except BaseException as error:
                return self.undecoded(op, read, reply, exchanges, began, error)
            ended = monotonic()
        self.totals.hits += 1
        self._report(verb.name, 1, 0, began, ended)
        return result  # type: ignore[no-any-return]

    def undecoded(
        self,
        op: Operation[R],
        read: Callable[[Reply], R],
        reply: Reply,
        exchanges: Exchanges,
        began: float,
        error: BaseException,
    ) -> R:
        """Read a value again, with a tally: its decoding raised *error*.

        Raises *error* if decoding does not raise it again: it has interrupted the decoding.
        """
        loads, (_, data) = self.loads, reply
        if loads is not None and data is not None and isinstance(error, Exception) and fails_again(loads, data, error):
            return self._read_and_count(op, read, reply, exchanges, began)
        exchanges.unreadable(op, error)
        self.failed(op, error, began)
        raise error

    def _report(self, verb: str, hits: int, misses: int, began: float, ended: float) -> None:
        fields = (verb, self.prefix, 1, hits, misses, 0, 0, None, began, ended - began, None)
        try:
            self.called(new_event(Called, fields))
        except Exception as failure:
            self.reporter.failed(failure)

    def _read_and_count(
        self, op: Operation[R], read: Callable[[Reply], R], reply: Reply, exchanges: Exchanges, began: float
    ) -> R:
        """Read the reply to any request, and report the call with the reads that the reader counts."""
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
        hits, misses, stale, undecodable, steps = self.counts.end_call(tally)
        # A function of the caller may raise one of REFUSED too, after the first requests.
        is_answered = hits or misses or undecodable or steps
        if error is not None and issubclass(error, REFUSED) and not is_answered:
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

    def __exit__(self, kind: type[BaseException] | None, raised: object, trace: object, /) -> None:
        leave(self._token)
        error = kind or self.error or self._tally.suppressed
        self._calls.ended(self._verb, self._keys, self._tally, self._began, error, self.source)


def leave(token: Token[Tally]) -> None:
    """Make the tally of the caller the current one again."""
    try:
        TALLY.reset(token)
    except ValueError as error:
        # Python closes a coroutine that was never finished in another context, where there is nothing to reset.
        if not is_own(error):
            raise
