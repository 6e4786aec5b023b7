"""A stream: one socket and the protocol connection on it, dialled when needed, used by one thread at a time.

It sends and receives within deadlines and turns failures into typed errors. It knows no client and no pool. It has no
lock: a thread takes it out of a `Checkout` before it uses it.
"""

from __future__ import annotations

import contextlib
import math
import select
from collections.abc import Callable, Sequence
from os import urandom
from time import monotonic
from types import BuiltinMethodType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final
from weakref import ref

from metacache.acceleration import make_exchange
from metacache.errors import ConnectionLost, MetacacheError, OperationTimeout, ProtocolError
from metacache.interrupts import is_own
from metacache.nodes import Node
from metacache.protocol import commands
from metacache.protocol.connection import ProtocolConnection, frame, pieces
from metacache.protocol.error_lines import Refusal, refusal
from metacache.protocol.expectations import wrong_size
from metacache.protocol.replies import HD_REPLY, NO_OPAQUE, Opaque, Reply, half_reply, known_headers
from metacache.settings import Settings
from metacache.transports.blocking.dialer import Dialer
from metacache.transports.blocking.local import LocalSocket
from metacache.transports.counters import CloseReason, IdleTimes, SocketCounts
from metacache.transports.timeouts import (
    MAX_LATE,
    add_tls_hint,
    authentication_unanswered,
    deadline_passed,
    late_reply,
)

if TYPE_CHECKING:
    import socket

    from metacache_speed import Exchange as CompiledExchange

    from metacache.protocol.blocks import ReceivedBlock
    from metacache.protocol.commands import Command
    from metacache.protocol.expectations import Answer, Expectation
    from metacache.transports.base import Operation
    from metacache.transports.observed import Exchanges

__all__ = ["RECEIVE", "Attempt", "Stream"]

RECEIVE: Final = 65536  # most bytes of one recv
# Most bytes of the recv after a large data block: the next one is often large too, and few of its bytes are then copied
# into its buffer. In a batch it is enough for a header line. Nearly every single value that gets no buffer still fits.
RECEIVE_IN_BATCH: Final = 1024
RECEIVE_FIRST: Final = 16384


def _would_block(settings: Settings) -> tuple[type[OSError], ...]:
    """Return what a socket of *settings* raises when a call would wait."""
    if settings.tls is None:
        return (BlockingIOError,)
    import ssl  # late: a client without TLS does not load it

    return (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def _undialled(_: int) -> bool:
    """Stand in for ``poll`` while there is no socket: the stream must be dialled."""
    return True


def _poll_of(sock: socket.socket | LocalSocket) -> Callable[[int], object]:
    """Return a function that says whether *sock* is readable while no reply is expected."""
    if isinstance(sock, LocalSocket):
        return sock.poll
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    pending: Callable[[], int] | None = getattr(sock, "pending", None)
    if pending is None:
        return poll.poll
    return lambda milliseconds: pending() or poll.poll(milliseconds)  # bytes of TLS that are decrypted already


def _receive_little(recv: Callable[[int], bytes], stream: ref[Stream]) -> Callable[[int], bytes]:
    """Return a function that receives RECEIVE_FIRST bytes at most. If it does, *stream* is checked before its next use.

    Because bytes may be left behind the reply.
    """

    def receive(_: int) -> bytes:
        data = recv(RECEIVE_FIRST)
        if len(data) == RECEIVE_FIRST and (used := stream()) is not None:
            used.ready_for = 0.0
        return data

    return receive


class Attempt(NamedTuple):
    """How far an exchange came on the shortest path, which `Stream.finish` continues."""

    opaque: Opaque
    unsent: tuple[bytes | memoryview, ...]
    may_be_sent: bool  # a byte of the request may have been sent
    data: bytes | None = None  # received and not parsed
    failure: OSError | None = None


@final
class Stream:
    """One socket and its protocol connection. `Lending.run` uses the public attributes for its shortest path.

    ``used_at`` is when the last exchange began. ``ready_for`` is the timeout of the operation for which the socket's
    timeout was last set, in seconds; 0.0 when unknown: the next operation checks the socket. ``send`` and ``recv`` are
    methods of the socket. ``receive_first`` receives the first bytes of a single reply in pure Python: it is ``recv``,
    and after a large data block a function that asks for fewer bytes. ``first_size`` is how many a compiled exchange
    asks for.
    ``next_opaque`` is a method of the protocol connection. ``protocol`` is replaced at every dial after the first.
    ``exchange_once`` is the compiled exchange of the socket, or None. ``is_plain`` is True while there is a socket
    whose methods are C functions: neither TLS, nor in this process, nor of a library that replaces sockets.
    """

    __slots__ = (
        "__weakref__",
        "_dialer",
        "_exchanges",
        "_node",
        "_not_yet",
        "_poll",
        "_receive_size",
        "_recv_into",
        "_settings",
        "_sock",
        "_timeout",
        "_would_block",
        "counts",
        "dialled_at",
        "exchange_once",
        "first_size",
        "is_plain",
        "next_opaque",
        "protocol",
        "ready_for",
        "receive_first",
        "recv",
        "send",
        "used_at",
    )

    # Bound methods of C, with a plain socket. They are kept, because each look-up costs 300 instructions.
    _poll: Callable[[int], object]
    send: Callable[[bytes | memoryview], int]
    recv: Callable[[int], bytes]
    receive_first: Callable[[int], bytes]
    _recv_into: Callable[[memoryview], int]

    def __init__(self, node: Node, settings: Settings, exchanges: Exchanges | None = None) -> None:
        self._node = node
        self._exchanges = exchanges
        self._settings = settings
        self._dialer = Dialer(node, settings)
        self._would_block = _would_block(settings)
        self._not_yet: tuple[type[OSError], ...] = (*self._would_block, TimeoutError)
        self.counts = SocketCounts()
        self._sock: socket.socket | LocalSocket | None = None
        self._poll = _undialled
        self.exchange_once: CompiledExchange | None = None
        self.is_plain = False
        self.dialled_at = 0.0
        self._timeout = -1.0
        self._receive_size = self.first_size = RECEIVE
        self.ready_for = 0.0
        self.used_at = -math.inf
        self._begin_protocol()  # of the first dial

    def _begin_protocol(self) -> None:
        limit = self._settings.max_reply_size
        self.protocol = ProtocolConnection(max_reply_size=limit, first_opaque=int.from_bytes(urandom(2), "big"))
        self.next_opaque = self.protocol.next_opaque

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # a signal interrupted __init__: there is no socket
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
    def idle_times(self) -> IdleTimes:
        """When it was dialled and last used."""
        return IdleTimes(self.dialled_at, self.used_at)

    def close(self, cause: CloseReason | None = None) -> None:
        """Close the socket without sending, and count it as *cause* if one is given. The next use dials."""
        sock, self._sock = self._sock, None
        if self.exchange_once is not None:
            self.exchange_once.close()
            self.exchange_once = None
        self.is_plain = False
        self._poll = _undialled
        self.used_at = -math.inf
        if sock is None:
            return
        if cause is not None:
            self.counts.discarded[cause] += 1
        sock.close()

    def reset_after_fork(self) -> None:
        """In a forked child: close the parent's socket without sending, and drop a lookup of the parent."""
        self.close()
        self._dialer.reset_after_fork()

    # --- getting ready -----------------------------------------------------------------------------------------------

    def make_ready(self, deadline: float) -> None:
        """Dial if there is no socket or the idle one is stale, and set the socket's timeout to *deadline*.

        Raises ConnectError, AuthenticationError, or OperationTimeout when the deadline has passed. Nothing was sent.
        """
        self._renew(deadline)
        self._set_deadline(deadline)

    def _renew(self, deadline: float) -> None:
        poll = self._poll
        if poll(0) and not self._is_alive():
            self.close(CloseReason.STALE)
            if self._exchanges is None:
                self._dial(deadline)
            else:
                self._dial_observed(self._exchanges, deadline)
        if monotonic() >= deadline:
            raise deadline_passed()

    def _is_alive(self) -> bool:
        """Return whether an idle socket that is readable can still be used.

        It can only over TLS: the server sends session tickets without a request.
        """
        if self._sock is None or not self.is_tls:
            return False
        self._set_timeout(0.0)
        try:
            self._sock.recv(1)
        except OSError as error:
            if not is_own(error):
                raise
            return isinstance(error, self._would_block)
        return False

    def _set_deadline(self, deadline: float) -> None:
        """Set the socket's timeout to *deadline*, rounded up to a millisecond.

        Rounded, so that most calls find the same timeout set and need no system call.
        """
        self._set_timeout(max(math.ceil((deadline - monotonic()) * 1000) / 1000, 0.0))

    def _set_timeout(self, seconds: float) -> None:
        if not seconds and self.exchange_once is not None:
            # It may have made the socket blocking again, also when this timeout was set before.
            self.exchange_once.unblock()
        if self._sock is not None and seconds != self._timeout:
            self._sock.settimeout(seconds)
            self._timeout = seconds
            self.ready_for = 0.0

    def _dial_observed(self, exchanges: Exchanges, deadline: float) -> None:
        began = monotonic()
        try:
            self._dial(deadline)
        except BaseException as error:
            exchanges.dialled(began, monotonic(), error)
            raise
        exchanges.dialled(began, monotonic(), None)

    def _dial(self, deadline: float) -> None:
        self.dialled_at = monotonic()
        deadline = min(deadline, self.dialled_at + self._settings.connect_timeout)
        sock = self._dialer.dial(deadline)
        if self.counts.dialled:
            self._begin_protocol()
        self.counts.dialled += 1
        poll = _poll_of(sock)
        self._sock, self.send, self.recv, self._poll = sock, sock.send, sock.recv, poll
        self._recv_into = sock.recv_into
        self._expect_no_block()
        self.is_plain = isinstance(sock.recv, BuiltinMethodType)
        limit = self._settings.max_reply_size
        self.exchange_once = make_exchange(sock.fileno(), limit, known_headers, HD_REPLY) if self.is_plain else None
        self._timeout = -1.0
        try:
            self._authenticate(deadline)
        except BaseException as error:
            failure = self.failed(error)
            if failure is None:
                raise
            try:
                if isinstance(failure, OperationTimeout | ConnectionLost | ProtocolError):
                    self._add_tls_hint(failure)
                    raise authentication_unanswered(failure, self._node) from error
                raise failure from failure.__cause__
            finally:
                del failure  # else the exception and this frame refer to each other, and keep the stream

    def _authenticate(self, deadline: float) -> None:
        request = commands.authentication(self._settings.username, self._settings.password)
        if request is None:
            return
        # A memoryview: some error reporters print the local variables of frames, and bytes would show the credentials.
        self._send_all((memoryview(frame(request.head, None, request.body)),), deadline)
        answer = self._receive_answer(request.command, None, None, deadline)
        if isinstance(answer, Refusal):
            raise answer.error

    # --- one request -------------------------------------------------------------------------------------------------

    def finish(
        self, op: Operation[Any], attempt: Attempt, began: float, deadline: float
    ) -> Reply:  # Any: this method does not read the result
        """Finish an exchange that the shortest path did not finish, and return the reply.

        Raises the error that an error line means. Raises TransportError and ProtocolError; then the socket is closed,
        as after any other exception. A read that meets a stale connection is sent once more, on a new one.
        """
        sent = attempt.may_be_sent
        if self.exchange_once is not None:
            self.exchange_once.unblock()
        try:
            if attempt.failure is not None and not isinstance(attempt.failure, self._not_yet):
                raise attempt.failure
            if attempt.unsent:
                sent = True
                self._send_all(attempt.unsent, deadline)
            command = op.verb.command
            opaque = attempt.opaque if command.echoes else None
            large = self._receive_value(command, attempt, deadline)
            answer = large or self._receive_answer(command, opaque, attempt.data, deadline, op.head)
        except BaseException as error:  # the stream position is no longer known
            failure = self.failed(error)
            if failure is None:
                raise
            try:
                is_fresh = self.dialled_at >= began
                if isinstance(failure, ConnectionLost) and not is_fresh and (op.is_read or not sent):
                    if self._exchanges is not None:
                        self._exchanges.retried(op.verb.name, failure)
                    return self.exchange(op, deadline)
                failure.maybe_applied = sent and not op.is_read
                if is_fresh:
                    self._add_tls_hint(failure)
                raise failure from failure.__cause__
            finally:
                del failure, attempt  # as in `_dial`
        if not isinstance(answer, Refusal):
            return answer
        try:
            raise answer.error
        finally:
            del answer  # as in `_dial`

    def exchange(self, op: Operation[Any], deadline: float) -> Reply:  # Any: as in `finish`
        """Send *op*, after a dial if necessary, and return its reply. Raises as `finish` does."""
        began = monotonic()
        self.make_ready(deadline)
        self.used_at = began
        opaque = self.next_opaque() if op.verb.command.echoes else NO_OPAQUE
        return self.finish(op, Attempt(opaque, pieces(op.head, opaque, op.body), may_be_sent=False), began, deadline)

    def _send_all(self, parts: Sequence[bytes | memoryview], deadline: float) -> None:
        for part in parts:
            view = memoryview(part)
            while view:
                self._set_deadline(deadline)
                try:
                    view = view[self.send(view) :]
                except self._not_yet as error:
                    if not is_own(error):
                        raise
                # After successful writes too: a server that takes bytes slowly does not extend the deadline.
                _give_up_at(deadline)

    def _receive_value(self, command: Command, attempt: Attempt, deadline: float) -> Reply | None:
        """Receive the rest of a large value and return the reply.

        None: what was received is not certainly the first part of a large value.
        """
        limit, data = self._settings.max_reply_size, attempt.data
        half = half_reply(data, attempt.opaque[0], command, limit) if data else None
        if half is None:
            return None
        tokens, block = half
        self.protocol.has_heard = True
        self._expect_blocks()
        late = 0
        while block.left:
            late = self._receive(deadline, late, block)
        value = block.end(b"\r\n")
        if value is None:
            raise wrong_size(b"VA")
        return tokens, value

    def _receive_answer(
        self, command: Command, opaque: Opaque | None, data: bytes | None, deadline: float, head: bytes = b""
    ) -> Answer:
        protocol = self.protocol
        expectation = protocol.expect(command, opaque, head)
        late = 0
        if data is not None:
            if not data:
                raise _closed_early()
            self._expect_no_block()
            self.ready_for = 0.0  # more bytes may have arrived than one recv returns
            protocol.receive(data)
        while expectation.answer is None:
            if protocol.failure is not None:
                raise protocol.failure
            late = self._receive(deadline, late)
        if protocol.must_close:
            self.close(CloseReason.BROKEN)
        return expectation.answer

    def _receive(self, deadline: float, late: int, block: ReceivedBlock | None = None) -> int:
        """Receive into *block*, or receive and parse; return how many bytes of the reply came after the deadline.

        *late*: how many came so before this call. After the deadline, it receives only bytes that have arrived.
        """
        if late > MAX_LATE:
            raise late_reply()
        while True:
            self._set_deadline(deadline)
            try:
                count = self._receive_once()[0] if block is None else self._fill(block)
            except self._not_yet as error:
                if not is_own(error):
                    raise
                _give_up_at(deadline)
                continue
            if not count:
                raise _closed_early()
            return late + count if monotonic() >= deadline else late

    def _fill(self, block: ReceivedBlock) -> int:
        count = self._recv_into(block.room)
        block.advance(count)
        return count

    def _receive_once(self) -> tuple[int, Sequence[Expectation]]:
        """Call the socket once and parse what it returns; return the number of bytes and the completed replies."""
        protocol = self.protocol
        room = protocol.room
        if room is None:
            data = self.recv(self._receive_size)
            self._expect_no_block()
            return len(data), protocol.receive(data) if data else ()
        self._expect_blocks()
        count = self._recv_into(room)
        return count, protocol.fill(count)

    def _expect_blocks(self) -> None:
        """Ask for fewer bytes before the next data block, and let `make_ready` look for bytes behind this one.

        Nothing behind a data block is received with it, and surplus bytes would be there.
        """
        self.ready_for = 0.0
        if self._receive_size == RECEIVE:
            self._receive_size, self.first_size = RECEIVE_IN_BATCH, RECEIVE_FIRST
            self.receive_first = _receive_little(self.recv, ref(self))

    def _expect_no_block(self) -> None:
        self._receive_size = self.first_size = RECEIVE
        self.receive_first = self.recv

    # --- a batch -----------------------------------------------------------------------------------------------------

    def prepare(self, deadline: float, /) -> bool:
        """Dial if necessary, and make the socket non-blocking; return whether it dialled. Raises as `make_ready`."""
        began = self.used_at = monotonic()
        self._renew(deadline)
        self._set_timeout(0.0)
        return self.dialled_at >= began

    def unblock(self) -> None:
        """Make the socket non-blocking."""
        self._set_timeout(0.0)

    def write(self, data: memoryview, /) -> int:
        """Send what the socket takes of *data* without waiting, and return the number of bytes. Raises OSError."""
        try:
            return self.send(data)
        except self._would_block as error:
            if not is_own(error):
                raise
            return 0

    def read(self) -> tuple[int, Sequence[Expectation]] | None:
        """Parse the bytes that have arrived; return their number (0 at the end) and the completed replies.

        Return None if none have arrived. Raises OSError.
        """
        try:
            return self._receive_once()
        except self._would_block as error:
            if not is_own(error):
                raise
            return None

    def read_unparsed(self) -> bytes | None:
        """Return the bytes that have arrived without parsing them, None if none have, ``b""`` at the end of the stream.

        For an admin command whose reply has no end that the parser knows. Raises OSError.
        """
        try:
            return self.recv(RECEIVE)
        except self._would_block as error:
            if not is_own(error):
                raise
            return None

    # --- failures ----------------------------------------------------------------------------------------------------

    def failed(self, error: BaseException, /) -> MetacacheError | None:
        """Close because of *error*; return the error to raise for it, or None if *error* interrupted the exchange.

        The caller raises an interrupting exception unchanged.
        """
        own = is_own(error)
        is_raw = own and isinstance(error, OSError) and not isinstance(error, MetacacheError)
        last_line = self._last_line() if is_raw else None
        self.close(CloseReason.BROKEN)
        if own and isinstance(error, MetacacheError):
            return error
        if not is_raw:
            return None
        lost = last_line or ConnectionLost(
            f"the connection broke ({getattr(error, 'strerror', None) or type(error).__name__})"
        )
        lost.__cause__ = error
        return lost

    def _add_tls_hint(self, failure: MetacacheError) -> None:
        """Add the hint to try TLS to *failure* if no byte was ever received on this connection."""
        if not self.protocol.has_heard:
            add_tls_hint(failure, is_tls=self.is_tls)

    def _last_line(self) -> MetacacheError | None:
        """Return the error line that the server sent before it closed the connection (full, out of memory), if any."""
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


def _closed_early() -> ConnectionLost:
    """Return the error for a connection that the server closed before it sent the whole reply."""
    return ConnectionLost("the server closed the connection before the reply was complete")


def _give_up_at(deadline: float) -> None:
    if monotonic() >= deadline:
        raise late_reply()
