"""A batch on one stream: write windows and read their replies at the same time, so reading never deadlocks writing.

Once it has dialled, `Exchange.advance` sends and receives only what is possible without waiting. A batch over several
nodes waits for the streams of all its parts; `Exchange.wait` waits for one.
"""

from __future__ import annotations

import os
import select
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, final

from metacache.errors import ConnectError, ConnectionLost, MetacacheError
from metacache.interrupts import is_own
from metacache.marks import override
from metacache.protocol.windows import Replies, Window, closing_error
from metacache.transports.batch_windows import Windows, build_window, fail_rest
from metacache.transports.counters import CloseReason
from metacache.transports.timeouts import MAX_LATE, add_tls_hint, late_reply

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from metacache.protocol.connection import ProtocolConnection
    from metacache.protocol.expectations import Expectation
    from metacache.protocol.replies import Opaque
    from metacache.transports.base import Batch

__all__ = ["Exchange", "Handed", "NonBlockingStream", "StreamExchange", "drive_exchange"]

MAX_UNANSWERED: Final = 131072  # bytes; a further window is written only below it


class Exchange(Protocol):
    """A batch that was started. Its driver waits and advances it until it is done, and then calls `outcomes`."""

    def wait(self, seconds: float, /) -> None:
        """Wait until `advance` can do something, at most that many seconds."""
        ...

    def advance(self, now: float, /) -> bool:
        """Send and receive what is possible without waiting; return True when every request has its reply or error.

        *now* is ``time.monotonic()``. After the deadline, requests without a reply fail. The first call may dial.
        """
        ...

    def outcomes(self) -> Replies:
        """End the exchange and return a reply or an error for each request.

        Before the exchange is done, this closes the connection, and requests without a reply get an error.
        """
        ...


@final
class Handed(NamedTuple):
    """How far the only window of a batch came: bytes that were sent and received (None: none yet), and the errno."""

    opaques: tuple[Opaque, Opaque]
    sent: int
    data: bytes | None
    error: int


class NonBlockingStream(Protocol):
    """The methods of a stream that an exchange uses."""

    @property
    def protocol(self) -> ProtocolConnection:
        """The protocol connection of the stream."""
        ...

    @property
    def is_tls(self) -> bool:
        """True when writes must end at a command boundary."""
        ...

    def prepare(self, deadline: float, /) -> bool:
        """Dial if necessary, and make the socket non-blocking; return whether it dialled. Raises a MetacacheError."""
        ...

    def unblock(self) -> None:
        """Make the socket non-blocking."""
        ...

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        ...

    def write(self, data: memoryview, /) -> int:
        """Send what the socket takes of *data* without waiting, and return the number of bytes. Raises OSError."""
        ...

    def read(self) -> tuple[int, Sequence[Expectation]] | None:
        """Parse the bytes that have arrived; return their number (0 at the end) and the completed replies.

        Return None if none have arrived. Raises OSError.
        """
        ...

    def failed(self, error: BaseException, /) -> MetacacheError | None:
        """Close because of *error*; return the error to raise for it, or None if *error* interrupted the exchange."""
        ...

    def close(self, cause: CloseReason, /) -> None:
        """Close the socket and count it as *cause*."""
        ...


@final
class StreamExchange:
    """A batch on one stream. It keeps the stream until it is done, and then calls *release* with the outcomes.

    The first `advance` dials if necessary, for at most half of the time. Meanwhile the driver cannot advance the parts
    of the batch on other nodes, which have the other half. *on_retry* is called before the batch is sent again.
    """

    __slots__ = (
        "_batch",
        "_began",
        "_cutter",
        "_deadline",
        "_handed",
        "_is_fresh",
        "_is_prepared",
        "_late",
        "_node",
        "_on_retry",
        "_release",
        "_replies",
        "_sent",
        "_stream",
        "_unanswered",
        "_unwritten",
        "_windows",
        "wants_write",
    )

    _stream: NonBlockingStream | None

    def __init__(
        self,
        batch: Batch,
        stream: NonBlockingStream,
        release: Callable[[Replies], object],
        *,
        node: str,
        deadline: float,
        on_retry: Callable[[MetacacheError], object] | None = None,
    ) -> None:
        self._batch = batch
        self._on_retry = on_retry
        self._stream = stream
        self._release = release
        self._node = node
        self._deadline = deadline
        self._is_fresh = False
        self._is_prepared = False
        self._handed: Handed | None = None
        self._late = 0  # bytes that were read after the deadline
        self._replies = Replies()  # of the windows that were answered; `_fail` adds the other requests
        self._start(stream)

    def _start(self, stream: NonBlockingStream) -> None:
        self._cutter = Windows(self._batch, is_tls=stream.is_tls)
        self._sent = 0  # how many requests may have been sent, also in part
        self._unwritten = memoryview(b"")
        self._windows: deque[tuple[int, int, Window]] = deque()
        self._unanswered = 0
        self._began = False
        self.wants_write = False

    @override
    def __repr__(self) -> str:
        sent = f"{self._cutter.next} of {len(self._batch)} sent"
        return f"<StreamExchange {self._node}: {sent}, {len(self._windows)} windows open>"

    def fileno(self) -> int:
        """Return the descriptor to wait for; -1 while there is no socket, and when the exchange is done."""
        return -1 if self._stream is None else self._stream.fileno()

    def wait(self, seconds: float, /) -> None:
        """Wait until the descriptor is readable, or writable if it must be; at most that many seconds."""
        descriptor = self.fileno()
        if descriptor >= 0:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN | (select.POLLOUT if self.wants_write else 0))
            poll.poll(max(seconds, 0.0) * 1000)

    def advance(self, now: float, /) -> bool:
        """Send and receive what is possible without waiting; return True when every request has its reply or error."""
        if self._stream is None:
            return True
        try:
            if not self._is_prepared and not self._prepare(self._stream, now):
                return True
            if self._handed is not None:
                self._take_handed(self._stream, self._handed)
            self._write(self._stream)
            # Do not read before the first write: no reply can have arrived.
            while self._began and self._windows and self._read(self._stream):
                if self._unwritten or not self._cutter.is_done:
                    self._write(self._stream)
        except (OSError, MetacacheError) as error:
            if self._stream is None:  # pyright: ignore[reportUnnecessaryComparison]  # `_prepare` may end it
                raise  # a signal handler's exception interrupted `_finish`
            self._fail(error, self._stream)
            return self._stream is None  # pyright: ignore[reportUnnecessaryComparison]  # as above
        self._began = True
        if not self._windows and self._cutter.is_done:
            self._finish(self._stream)
            return True
        if now >= self._deadline:
            self._fail(late_reply(), self._stream)
        return self._stream is None  # pyright: ignore[reportUnnecessaryComparison]  # as above

    def outcomes(self) -> Replies:
        """End the exchange and return a reply or an error for each request."""
        if self._stream is not None:
            error = ConnectionLost("the batch was given up before its replies arrived")
            if self._is_prepared:
                self._fail(error, self._stream, final=True)
            else:
                self._fail_unsent(error, self._stream)
        return self._replies

    def _prepare(self, stream: NonBlockingStream, now: float) -> bool:
        """Make the stream ready; return False when that failed and the exchange is done."""
        self._is_prepared = True
        try:
            self._is_fresh = stream.prepare((now + self._deadline) / 2)
        except MetacacheError as error:
            if not is_own(error, type(stream).__module__):
                raise
            self._fail_unsent(error, stream)
            return False
        return True

    # --- bytes -------------------------------------------------------------------------------------------------------

    def _write(self, stream: NonBlockingStream) -> None:
        while self._unwritten or (not self._cutter.is_done and self._unanswered < MAX_UNANSWERED):
            if not self._unwritten:
                self._unwritten = memoryview(self._open_window(stream.protocol))
            taken = stream.write(self._unwritten)
            self.wants_write = taken == 0
            if self.wants_write:
                return
            self._unwritten = self._unwritten[taken:]
            if monotonic() >= self._deadline:
                break  # a server that takes bytes slowly does not extend the deadline
        self.wants_write = False

    def _open_window(self, protocol: ProtocolConnection) -> bytes:
        start, stop = self._cutter.cut()
        data, window = build_window(protocol, self._batch, start, stop)
        self._windows.append((start, len(data), window))
        self._unanswered += len(data)
        self._sent = stop
        return data

    def _read(self, stream: NonBlockingStream) -> bool:
        """Take the replies that have arrived; return False when no byte has."""
        received = stream.read()
        if received is None:
            return False
        self._take(stream, *received)
        return True

    def _take(self, stream: NonBlockingStream, count: int, finished: Sequence[Expectation]) -> None:
        if not count:
            raise ConnectionLost("the server closed the connection before the last reply")
        self._late += count if monotonic() >= self._deadline else 0
        for _ in finished:
            start, size, window = self._windows.popleft()
            self._replies.fill(start, window.replies)
            self._unanswered -= size
            if window.closes:
                raise closing_error(window, is_first=start == 0)
        if stream.protocol.failure is not None:
            raise stream.protocol.failure
        if self._late > MAX_LATE:
            raise late_reply()

    # --- an exchange that was begun elsewhere ------------------------------------------------------------------------

    def go_on(self, handed: Handed) -> None:
        """Go on with a window that was sent. Call it before the first `advance`."""
        self._is_prepared = self._began = True
        self._handed = handed

    def _take_handed(self, stream: NonBlockingStream, handed: Handed) -> None:
        self._handed = None
        stream.unblock()
        batch, count = self._batch, len(self._cutter.skip_rest())
        data, window = stream.protocol.resend_window(
            batch.verb.command, batch.heads, batch.bodies, 0, count, handed.opaques
        )
        self._windows.append((0, len(data), window))
        self._unanswered, self._sent = len(data), count
        self._unwritten = memoryview(data)[handed.sent :]
        if handed.error:
            raise OSError(handed.error, os.strerror(handed.error))
        if handed.data is not None:
            self._take(stream, len(handed.data), stream.protocol.receive(handed.data) if handed.data else ())

    # --- the end -----------------------------------------------------------------------------------------------------

    def _finish(self, stream: NonBlockingStream) -> None:
        self._stream = None
        if stream.protocol.must_close:
            stream.close(CloseReason.BROKEN)
        for error in self._replies.errors.values():
            error.locate(node=self._node, operation=self._batch.verb.name)
        release = self._release
        del self._release  # it refers to the stream, and frames in a traceback may keep this exchange
        release(self._replies)

    def _fail(self, error: BaseException, stream: NonBlockingStream, *, final: bool = False) -> None:
        """Close the stream. Start again if it was stale and the batch only reads; else fail what has no reply."""
        failure = stream.failed(error)
        if failure is None:
            raise error  # it interrupted the exchange; `outcomes` ends the exchange
        if self._is_fresh and not final and not stream.protocol.has_heard:
            add_tls_hint(failure, is_tls=stream.is_tls)
        answered = any(self._replies.headers) or bool(self._replies.errors)
        stale = isinstance(failure, ConnectionLost) and not self._is_fresh and not answered
        if stale and self._batch.is_read and not final:
            if self._on_retry is not None:
                self._on_retry(failure)
            failure = self._restart(stream)
        if failure is None:
            return
        is_unsent = self._batch.is_read or isinstance(failure, ConnectError)
        self._replies.pad(len(self._batch.heads))
        fail_rest(self._replies, failure, 0 if is_unsent else self._sent)
        self._finish(stream)

    def _fail_unsent(self, error: MetacacheError, stream: NonBlockingStream) -> None:
        """Fail all requests. Nothing was sent, so the connection stays open."""
        self._replies.pad(len(self._batch.heads))
        fail_rest(self._replies, error, 0)
        self._finish(stream)

    def _restart(self, stream: NonBlockingStream) -> MetacacheError | None:
        """Dial and start again; return the error if that fails."""
        self._is_fresh = True
        self._start(stream)
        self.wants_write = True  # wait for the socket to be writable: no reply arrives before a request is sent
        try:
            stream.prepare(self._deadline)
        except MetacacheError as error:
            if not is_own(error, type(stream).__module__):
                raise
            return error
        return None


def drive_exchange(exchange: Exchange, deadline: float) -> Replies:
    """Drive *exchange* to its end, and return a reply or an error for each request."""
    try:
        now = monotonic()
        while not exchange.advance(now):
            exchange.wait(deadline - now)
            now = monotonic()
    except BaseException:
        exchange.outcomes()  # closes the connection
        raise
    return exchange.outcomes()
