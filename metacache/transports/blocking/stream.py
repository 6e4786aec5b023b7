"""A stream: one socket and the protocol connection on it, dialled when needed, owned by one caller at a time.

Moves bytes within deadlines and turns what goes wrong into typed errors. Knows no client, no pool and no lock. It
changes over time; what guards it is that whoever uses it has taken it out of its connection (`Connection`).
"""

from __future__ import annotations

import contextlib
import math
import select
import ssl
from collections.abc import Callable, Sequence
from random import getrandbits
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from metacache.errors import ConnectError, ConnectionLost, MetacacheError, OperationTimeout, ProtocolError
from metacache.interrupts import is_own
from metacache.nodes import Node
from metacache.protocol import commands
from metacache.protocol.connection import ProtocolConnection, frame, pieces
from metacache.protocol.error_lines import Refusal, refusal
from metacache.protocol.replies import NO_OPAQUE, Opaque, Reply
from metacache.settings import Settings
from metacache.transports.blocking.dialer import Dialer
from metacache.transports.counters import CloseReason, IdleTimes, SocketCounts
from metacache.transports.timeouts import MAX_LATE, advise, had_no_time, late_reply

if TYPE_CHECKING:
    import socket

    from metacache.protocol.commands import Command
    from metacache.protocol.expectations import Answer
    from metacache.transports.base import Operation

__all__ = ["RECEIVE", "Attempt", "Stream"]

RECEIVE: Final = 65536  # bytes asked of one recv
_WOULD_BLOCK: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_NOT_YET: Final = (*_WOULD_BLOCK, TimeoutError)


def _undialled(_: int) -> bool:
    """Stand in for ``poll`` while there is no socket: it needs attention."""
    return True


class Attempt(NamedTuple):
    """How far an exchange got before it left the shortest path."""

    opaque: Opaque
    unsent: tuple[bytes | memoryview, ...]
    may_be_sent: bool  # a byte may have left
    data: bytes | None = None  # received and not parsed
    failure: OSError | None = None


@final
class Stream:
    """See the module. The public attributes serve the shortest path, which `Connection.run` takes by itself.

    ``used``: when the last exchange began. ``armed``: the seconds the socket was last told to wait, 0.0 when unknown.
    ``send``, ``recv``: the socket's. ``next_opaque``: the protocol connection's. ``protocol`` is new with every dial.
    """

    __slots__ = (
        "__weakref__",
        "_dialer",
        "_node",
        "_poll",
        "_settings",
        "_sock",
        "_timeout",
        "armed",
        "counts",
        "dialled",
        "next_opaque",
        "protocol",
        "recv",
        "send",
        "used",
    )

    # Bound C methods, kept because looking them up costs 300 instructions each.
    _poll: Callable[[int], object]
    send: Callable[[bytes | memoryview], int]
    recv: Callable[[int], bytes]

    def __init__(self, node: Node, settings: Settings) -> None:
        self._node = node
        self._settings = settings
        self._dialer = Dialer(node, settings)
        self.counts = SocketCounts()
        self._sock: socket.socket | None = None
        self._poll = _undialled
        self.dialled = 0.0
        self._timeout = -1.0
        self.armed = 0.0
        self.used = -math.inf
        self._begin_protocol()

    def _begin_protocol(self) -> None:
        limit = self._settings.max_reply_size
        self.protocol = ProtocolConnection(max_reply_size=limit, first_opaque=getrandbits(16))
        self.next_opaque = self.protocol.next_opaque

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # a signal struck in __init__: there is no socket yet
            self.close()

    @property
    def is_open(self) -> bool:
        """True while there is a socket."""
        return self._sock is not None

    @property
    def is_tls(self) -> bool:
        """True when writes must end at a command boundary."""
        return self._settings.tls is not None

    def fileno(self) -> int:
        """Return the socket's descriptor, -1 while there is none."""
        return -1 if self._sock is None else self._sock.fileno()

    @property
    def age(self) -> IdleTimes:
        """When it was dialled and last used."""
        return IdleTimes(self.dialled, self.used)

    def close(self, cause: CloseReason | None = None) -> None:
        """Close the socket, without a word on the wire, and count it as *cause* if there is one. The next use dials."""
        sock, self._sock = self._sock, None
        self._poll = _undialled
        self.used = -math.inf
        if sock is None:
            return
        if cause is not None:
            self.counts.discarded[cause] += 1
        sock.close()

    def reset_after_fork(self) -> None:
        """In a forked child: close the parent's socket without sending, and drop a lookup whose thread is gone."""
        self.close()
        self._dialer.forget()

    # --- getting ready -----------------------------------------------------------------------------------------------

    def make_ready(self, deadline: float) -> None:
        """Dial if there is no socket or the idle one is stale, and let the socket wait until *deadline*.

        Raises ConnectError, AuthenticationError, or OperationTimeout when the deadline has passed; nothing was sent.
        """
        self._renew(deadline)
        self._wait_until(deadline)

    def _renew(self, deadline: float) -> None:
        poll = self._poll
        if poll(0) and not self._is_alive():
            self.close(CloseReason.STALE)
            self._dial(deadline)
        if monotonic() >= deadline:
            raise had_no_time()

    def _is_alive(self) -> bool:
        """Tell whether an idle socket that is readable is still good.

        Only over TLS, where session tickets arrive unasked.
        """
        if self._sock is None or not self.is_tls:
            return False
        self._set_timeout(0.0)
        try:
            self._sock.recv(1)
        except OSError as error:
            if not is_own(error):
                raise
            return isinstance(error, _WOULD_BLOCK)
        return False

    def _wait_until(self, deadline: float) -> None:
        """Let the socket time out at *deadline*, to the next millisecond.

        Setting what is set already would be a system call.
        """
        self._set_timeout(max(math.ceil((deadline - monotonic()) * 1000) / 1000, 0.0))

    def _set_timeout(self, seconds: float) -> None:
        if self._sock is not None and seconds != self._timeout:
            self._sock.settimeout(seconds)
            self._timeout = seconds
            self.armed = 0.0

    def _dial(self, deadline: float) -> None:
        self.dialled = monotonic()
        deadline = min(deadline, self.dialled + self._settings.connect_timeout)
        sock = self._dialer.dial(deadline)
        self.counts.dialled += 1
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        self._begin_protocol()
        self._sock, self.send, self.recv, self._poll = sock, sock.send, sock.recv, poll.poll
        self._timeout = -1.0
        try:
            self._authenticate(deadline)
        except BaseException as error:
            failure = self.failed(error)
            if failure is None:
                raise
            try:
                if isinstance(failure, OperationTimeout | ConnectionLost | ProtocolError):
                    self._advise(failure)
                    raise ConnectError(
                        f"connected, but the server did not answer the authentication: {failure.message}"
                    ) from error
                raise failure from failure.__cause__
            finally:
                del failure  # an exception and a frame that hold each other would hold this stream too

    def _authenticate(self, deadline: float) -> None:
        username, password = self._settings.username, self._settings.password
        if username is None or password is None:
            return
        request = commands.authenticate(username, password)
        self._send_all((frame(request.head, None, request.body),), deadline)
        answer = self._receive_answer(request.command, None, None, deadline)
        if isinstance(answer, Refusal):
            raise answer.error

    # --- one request -------------------------------------------------------------------------------------------------

    def finish(
        self, op: Operation[Any], attempt: Attempt, began: float, deadline: float
    ) -> Reply:  # Any: not our result
        """Bring an exchange to its end that the shortest path could not: return the reply.

        Raises the error that the reply is; or a TransportError or ProtocolError, and then the socket is closed, as it
        is after any other exception. A read that finds its connection stale is sent once more, on a new one.
        """
        left = attempt.may_be_sent
        try:
            if attempt.failure is not None and not isinstance(attempt.failure, _NOT_YET):
                raise attempt.failure
            if attempt.unsent:
                left = True
                self._send_all(attempt.unsent, deadline)
            command = op.verb.command
            opaque = attempt.opaque if command.echoes else None
            answer = self._receive_answer(command, opaque, attempt.data, deadline, op.head)
        except BaseException as error:  # the stream position is no longer known
            failure = self.failed(error)
            if failure is None:
                raise
            try:
                fresh = self.dialled >= began
                if isinstance(failure, ConnectionLost) and not fresh and (op.is_read or not left):
                    return self.exchange(op, deadline)
                failure.maybe_applied = left and not op.is_read
                if fresh:
                    self._advise(failure)
                raise failure from failure.__cause__
            finally:
                del failure, attempt  # as in `_dial`
        if not isinstance(answer, Refusal):
            return answer
        try:
            raise answer.error
        finally:
            del answer  # as in `_dial`

    def exchange(self, op: Operation[Any], deadline: float) -> Reply:  # Any: the result type is not ours
        """Send *op* on a new or good connection and return its reply, without any shortcut. Raises as `finish` does."""
        began = monotonic()
        self.make_ready(deadline)
        self.used = began
        opaque = self.next_opaque() if op.verb.command.echoes else NO_OPAQUE
        return self.finish(op, Attempt(opaque, pieces(op.head, opaque, op.body), may_be_sent=False), began, deadline)

    def _send_all(self, parts: Sequence[bytes | memoryview], deadline: float) -> None:
        for part in parts:
            view = memoryview(part)
            while view:
                self._wait_until(deadline)
                try:
                    view = view[self.send(view) :]
                except _NOT_YET as error:
                    if not is_own(error):
                        raise
                # A server that takes bytes without a pause does not extend the time.
                _give_up_at(deadline)

    def _receive_answer(
        self, command: Command, opaque: Opaque | None, data: bytes | None, deadline: float, head: bytes = b""
    ) -> Answer:
        protocol = self.protocol
        expectation = protocol.expect(command, opaque, head)
        late = 0
        while expectation.answer is None:
            if data is None:
                data = self._receive(deadline)
                late += len(data) if monotonic() >= deadline else 0
            if not data:
                raise ConnectionLost("the server closed the connection before the reply was complete")
            protocol.receive(data)
            if protocol.failure is not None and expectation.answer is None:
                raise protocol.failure
            if late > MAX_LATE and expectation.answer is None:
                raise late_reply()
            data = None
        if protocol.must_close:
            self.close(CloseReason.BROKEN)
        return expectation.answer

    def _receive(self, deadline: float) -> bytes:
        """Return the next bytes (none: the end). After the deadline it returns bytes that have arrived already."""
        while True:
            self._wait_until(deadline)
            try:
                return self.recv(RECEIVE)
            except _NOT_YET as error:
                if not is_own(error):
                    raise
                _give_up_at(deadline)

    # --- a batch -----------------------------------------------------------------------------------------------------

    def prepare(self, deadline: float, /) -> bool:
        """Make ready and let the socket never wait from now on; return whether it was dialled.

        Raises as `make_ready`.
        """
        began = self.used = monotonic()
        self._renew(deadline)
        self._set_timeout(0.0)
        return self.dialled >= began

    def write(self, data: memoryview, /) -> int:
        """Return how many bytes of *data* were taken without waiting; raises OSError."""
        try:
            return self.send(data)
        except _WOULD_BLOCK as error:
            if not is_own(error):
                raise
            return 0

    def read(self) -> bytes | None:
        """Return bytes that are there (none at the end of the stream), None when there are none yet; raises OSError."""
        try:
            return self.recv(RECEIVE)
        except _WOULD_BLOCK as error:
            if not is_own(error):
                raise
            return None

    # --- what goes wrong ---------------------------------------------------------------------------------------------

    def failed(self, error: BaseException, /) -> MetacacheError | None:
        """Close after *error* and return the error to raise for it; None if it interrupted the exchange.

        An interrupting exception is raised as it is.
        """
        own = is_own(error)
        is_raw = own and isinstance(error, OSError) and not isinstance(error, MetacacheError)
        words = self._last_words() if is_raw else None
        self.close(CloseReason.BROKEN)
        if own and isinstance(error, MetacacheError):
            return error
        if not is_raw:
            return None
        lost = words or ConnectionLost(
            f"the connection broke ({getattr(error, 'strerror', None) or type(error).__name__})"
        )
        lost.__cause__ = error
        return lost

    def _advise(self, failure: MetacacheError) -> None:
        """Add advice to *failure* of a new connection if no byte ever came on it."""
        if not self.protocol.has_heard:
            advise(failure, is_tls=self.is_tls)

    def _last_words(self) -> MetacacheError | None:
        """Return the error line that the server sent before it broke the connection (full, out of memory), if any."""
        if self._sock is None:
            return None
        try:
            self._set_timeout(0.0)
            line = self._sock.recv(RECEIVE).partition(b"\r\n")[0]
        except OSError as error:
            if not is_own(error):
                raise
            return None
        refused = refusal(line, commands.MN)
        return refused.error if refused is not None and refused.closes else None


def _give_up_at(deadline: float) -> None:
    if monotonic() >= deadline:
        raise late_reply()
