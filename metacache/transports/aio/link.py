"""A link: one socket of an event loop and the protocol connection on it, shared by many callers.

It writes waiting requests, gives each reply to its pending reply, and reports when it is lost. It does not dial, fails
no request at its deadline, and sends nothing twice. One event loop runs it, so it needs no lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Sequence
from random import getrandbits
from time import monotonic
from typing import Final, TypeVar, cast, final

from metacache.acceleration import frame_requests, give_answers
from metacache.errors import ConnectionLost, MetacacheError
from metacache.interrupts import is_own
from metacache.marks import override
from metacache.protocol.connection import ProtocolConnection, answer_of
from metacache.protocol.expectations import Answer, Expectation
from metacache.protocol.windows import closing_error
from metacache.settings import Settings
from metacache.transports.aio.batch import fail_missing
from metacache.transports.aio.block_receiver import BlockReceiver
from metacache.transports.aio.pending import AnyPending, BatchWindow, Work, throw, weight_of
from metacache.transports.aio.write_buffer import WriteBuffer, packs
from metacache.transports.batch_windows import build_window
from metacache.transports.timeouts import add_tls_hint, interrupted

__all__ = ["Link"]

A = TypeVar("A")

# Limits of one call of `write`. With them, the first of many small requests leave while others are still being made.
MAX_REQUESTS: Final = 256
MAX_WRITE: Final = 65536  # bytes
# With more bytes of several commands in one TLS write, memcached (up to 1.6.45) waits for the socket although it has
# decrypted requests that it did not answer.
MAX_TLS_WRITE: Final = 16384


@final
class Link(asyncio.Protocol):
    """One socket that many callers share: writes their requests and matches the replies.

    Args:
        settings: limits, and whether to use TLS.
        on_answers: called with the link and the pending replies that have answers; it wakes their tasks.
        on_room: called with the link when it may be possible to write more.
        on_lost: called once, with the link and the error; requests left in ``in_flight`` get no reply.

    ``in_flight`` are the pending replies of the requests that are written; ``requests`` is the number of those
    requests, with each request of a window counted. ``active_at`` is the latest of three times: bytes arrived, buffered
    bytes left, or a request was written while none was in flight. ``when_closed`` is done when the socket is closed.

    The rest of a large data block is written although its caller gave up, because half a request cannot be taken back.
    The connection closes the link when that takes too long (`stuck_until`).
    """

    __slots__ = (
        "_has_received",
        "_has_receiver",
        "_is_uncertain",
        "_large",
        "_loop",
        "_max_in_flight",
        "_max_write",
        "_on_answers",
        "_on_lost",
        "_on_room",
        "_paused",
        "_protocol",
        "_transport",
        "_unwritten",
        "active_at",
        "dialled_at",
        "has_sent",
        "in_flight",
        "is_lost",
        "requests",
        "when_closed",
    )

    _transport: asyncio.Transport

    def __init__(
        self,
        settings: Settings,
        on_answers: Callable[[Link, Sequence[AnyPending]], None],
        on_room: Callable[[Link], None],
        on_lost: Callable[[Link, MetacacheError], None],
    ) -> None:
        self._protocol = ProtocolConnection(max_reply_size=settings.max_reply_size, first_opaque=getrandbits(16))
        self._max_in_flight = settings.max_in_flight
        self._max_write = MAX_WRITE if settings.tls is None else MAX_TLS_WRITE
        self._on_answers = on_answers
        self._on_room = on_room
        self._on_lost = on_lost
        self._paused = False
        self._is_uncertain = False  # True while bytes are written or parsed, and after an exception interrupted that
        self.is_lost = False
        self.has_sent = False
        self._has_received = False
        self._has_receiver = False  # the transport calls a BlockReceiver instead of this link
        self._unwritten = 0
        self._large: WriteBuffer[AnyPending] = WriteBuffer()
        self.in_flight: list[AnyPending] = []
        self.requests = 0
        self.dialled_at = self.active_at = monotonic()
        self._loop = asyncio.get_running_loop()
        self.when_closed: asyncio.Future[None] = self._loop.create_future()

    @override
    def __repr__(self) -> str:
        return f"<Link: {'lost' if self.is_lost else f'{self.requests} in flight'}>"

    # --- writing -----------------------------------------------------------------------------------------------------

    def add_tls_hint(self, error: MetacacheError) -> None:
        """Add the hint to try TLS to *error* if no byte was ever received on this link."""
        if not self._has_received and not self._protocol.has_heard:
            add_tls_hint(error, is_tls=self._max_write == MAX_TLS_WRITE)

    @property
    def is_full(self) -> bool:
        """True when ``max_in_flight`` requests are in flight."""
        return self.requests >= self._max_in_flight

    @property
    def has_room(self) -> bool:
        """True when more may be written now."""
        return not (self._paused or self._large.pending or self.is_lost) and self.requests < self._max_in_flight

    def write(self, waiting: list[AnyPending]) -> None:
        """Write the requests of *waiting* that may be written now, and move them to ``in_flight``; drop abandoned ones.

        This is one write, or over TLS one write for each pack of at most `MAX_TLS_WRITE` bytes.
        """
        if self._is_uncertain:
            self.lose(interrupted())
            return
        self._is_uncertain = True
        try:
            self._write(waiting)
        except BaseException as error:
            self._interrupt(error)
            return
        self._is_uncertain = False

    def _write(self, waiting: list[AnyPending]) -> None:
        if not self.in_flight:
            self.active_at = monotonic()
            self.has_sent = True
        elif self._unwritten and self._has_moved():
            self.active_at = monotonic()
        room = 0
        if not (self._paused or self.is_lost or self._large.pending is not None):
            room = self._max_in_flight - self.requests
            room = MAX_REQUESTS if room > MAX_REQUESTS else room  # quicker than `min`
        frame = b""
        if frame_requests is not None and room > 0 and self._max_write == MAX_WRITE:  # over TLS each pack is a frame
            frame, number = self._protocol.move_plain(waiting, self.in_flight, room, MAX_WRITE)
            self.requests += number
            if number and not waiting:  # nearly always: all are plain
                self._transport.write(frame)
                self._unwritten = self._transport.get_write_buffer_size()
                return
            room -= number
        self._write_each(waiting, room, frame)

    def _write_each(self, waiting: list[AnyPending], room: int, before: bytes) -> None:
        """Write *before* and the first of *waiting* until *room* requests are reached, and move them to ``in_flight``.

        Drops abandoned ones.
        """
        send_plain, put_in_flight = self._protocol.send_plain, self.in_flight.append
        frames = [before] if before else []
        size = len(before)
        room_before = room
        taken = 0
        large: bytes | None = None
        for pending in waiting:
            if room <= 0 or size >= MAX_WRITE:
                break
            taken += 1
            waiter = pending.waiter
            if pending.answer is not None or (waiter is not None and waiter.future.cancelled()):
                continue
            put_in_flight(pending)
            plain = pending.plain
            if plain is not None:
                body = plain.body
                if body is not None and len(body) > MAX_WRITE:
                    body, large = None, body
                frame = send_plain(plain.verb.command, plain.head, body)
                room -= 1
            else:
                frame, large = self._frame(pending.work)
                room -= weight_of(pending.work)
            frames.append(frame)
            size += len(frame)
            if large is not None:
                self._large.fill(large, pending)
                break
        del waiting[:taken]  # after they are in flight: if a signal interrupts this, every request is in one list
        self.requests += room_before - room
        if frames:
            for pack in (b"".join(frames),) if size <= self._max_write else packs(frames, self._max_write):
                self._transport.write(pack)
            self._unwritten = self._transport.get_write_buffer_size()
            if large is not None:
                self._write_large()
                self._has_moved()

    def _frame(self, work: Work) -> tuple[bytes, bytes | None]:
        """Return the bytes of *work* and the large data block that follows them; expect its replies from now on."""
        if not isinstance(work, BatchWindow):
            data, _ = self._protocol.send(work.verb.command, work.head, work.body)
            return data, None
        batch, start, stop = work
        bodies = batch.bodies
        if bodies is None or stop - start > 1 or len(bodies[start]) <= MAX_WRITE:
            return build_window(self._protocol, *work)[0], None
        data, _ = self._protocol.send_window(batch.verb.command, batch.heads, None, start, stop)
        return data, bodies[start]

    # --- large data blocks -------------------------------------------------------------------------------------------

    def _write_large(self) -> None:
        """Write as much of the large data block as the socket takes, up to a limit per event loop iteration."""
        try:
            if self._large.write_pieces(self._transport.write, self._may_write):
                self._loop.call_soon(self._write_large)
        except BaseException as error:  # a piece may be lost
            self._interrupt(error)
            return
        if self.has_room:
            self._on_room(self)

    def _may_write(self) -> bool:
        return not self._paused and not self.is_lost

    @property
    def stuck_until(self) -> float:
        """The deadline of the large request that is being written although its caller gave up; else infinity."""
        pending = self._large.pending
        return math.inf if pending is None or pending.answer is None else pending.deadline

    def is_silent(self, now: float, seconds: float) -> bool:
        """Return whether requests are in flight and for *seconds* no byte arrived and no buffered byte left."""
        if not self.in_flight or now < self.active_at + seconds:
            return False
        if self._has_moved():
            self.active_at = now
        return self.active_at < now

    def _has_moved(self) -> bool:
        """Return whether buffered bytes have left since the last call, or since the last write."""
        before, self._unwritten = self._unwritten, self._transport.get_write_buffer_size() + len(self._large)
        return self._unwritten < before

    # --- called by the event loop ------------------------------------------------------------------------------------

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; close it if its dial was cancelled meanwhile."""
        # The loop passes the transport of a socket. No assert: uvloop's is not a subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        if self.is_lost:
            self._transport.abort()

    @override
    def pause_writing(self) -> None:
        """Stop writing: the socket takes no more."""
        self._paused = True

    @override
    def resume_writing(self) -> None:
        """Continue to write: the socket takes bytes again."""
        self._paused = False
        if self._large.pending is None:
            self._on_room(self)
        else:
            self._write_large()

    @override
    def data_received(self, data: bytes) -> None:
        """Parse *data*, and give each complete reply to its pending reply."""
        self._take(self._protocol.answers, data)

    def _take(self, parse: Callable[[A], Sequence[Answer | Expectation]], received: A) -> None:
        """Parse *received* with *parse*, and give each complete reply to its pending reply."""
        if self.is_lost:
            return  # closing: bytes that still arrive are dropped
        if self._is_uncertain:
            self.lose(interrupted())
            return
        self._is_uncertain = True
        try:
            done = self._receive(parse(received))
        except BaseException as error:
            self._interrupt(error)
            return
        self._is_uncertain = False
        self._on_answers(self, done)  # last: it runs tasks, which may call any method of this link

    def _receive(self, answers: Sequence[Answer | Expectation]) -> Sequence[AnyPending]:
        """Return the pending replies that get *answers*."""
        self.active_at = monotonic()
        protocol = self._protocol
        failure: MetacacheError | None = None
        if protocol.must_close:
            failure = protocol.failure or self._why_closed(answers)
        elif protocol.block is not None and not self._has_receiver:
            self._has_receiver = True
            self._transport.set_protocol(BlockReceiver(self))
        done = give_answers(self.in_flight, answers) if give_answers is not None and failure is None else []
        if done:
            self.requests -= len(done)
        else:
            done = self.in_flight[: len(answers)]
            self._answer(done, answers, failure)
        self._has_received = True
        if failure is not None:
            self.lose(failure)
        return done

    def _answer(
        self,
        first: Sequence[AnyPending],
        answers: Sequence[Answer | Expectation],
        failure: MetacacheError | None = None,
    ) -> None:
        """Give *answers* to *first*, the first in flight; *failure* is for requests of a window without a reply."""
        requests = len(answers)
        for pending, answer in zip(first, answers, strict=True):
            if pending.plain is None and type(work := pending.work) is BatchWindow:
                requests += weight_of(work) - 1
                if failure is not None:
                    fail_missing(answer, work, failure)
            if pending.answer is None:  # else it was abandoned
                pending.answer = answer
        self.requests -= requests
        del self.in_flight[: len(answers)]

    # --- large data blocks that arrive -------------------------------------------------------------------------------

    def next_room(self) -> memoryview | None:
        """Return where to receive the next bytes of a large data block; None if no such block is being received."""
        protocol = self._protocol
        if protocol.block is not None and self.in_flight and self.in_flight[0].answer is not None:
            protocol.drop()  # its caller has given it up
        return protocol.room

    def block_received(self, count: int, /) -> None:
        """Parse *count* bytes that were received into `next_room`."""
        self._take(self._fill, count)

    def _fill(self, count: int) -> Sequence[Answer | Expectation]:
        return list(map(answer_of, self._protocol.fill(count)))

    def between_blocks_received(self, data: bytes, /) -> None:
        """Parse *data*, and replace the receiver unless a large data block begins in it."""
        self.data_received(data)
        if self._protocol.block is None and not self.is_lost:
            self._has_receiver = False
            self._transport.set_protocol(self)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """Report that the link is lost: the socket was closed."""
        was_lost, self.is_lost = self.is_lost, True
        if not self.when_closed.done():
            self.when_closed.set_result(None)
        is_of_signal = exc is not None and not is_own(exc)  # a method of the transport or of this link raised it
        if isinstance(exc, OSError) and is_of_signal:  # the loop has reported any other exception
            self._loop.call_soon(throw, exc)
        if was_lost:
            return
        why = "the server closed the connection" if exc is None else _reason_of(exc)
        error = ConnectionLost(f"{why} before the reply was complete")
        error.is_local = is_of_signal
        self._on_lost(self, error)

    def _why_closed(self, answers: Sequence[Answer | Expectation]) -> MetacacheError:
        """Return the error for all in flight after the last of *answers* closed the connection."""
        is_first = len(answers) == 1 and not self._has_received
        return closing_error(answers[-1] if answers else None, is_first=is_first)

    # --- the end -----------------------------------------------------------------------------------------------------

    @property
    def is_broken(self) -> bool:
        """True when a signal's exception interrupted it: its position is uncertain, or its end was not reported."""
        return self._is_uncertain or self._transport.is_closing()

    def _interrupt(self, error: BaseException) -> None:
        """Close after a signal's *error*: the expected replies may not match the requests. The loop reports *error*."""
        self._loop.call_soon(throw, error)
        try:
            self.lose(interrupted())
        except BaseException as another:
            self._loop.call_soon(throw, another)

    def lose(self, error: MetacacheError) -> None:
        """Close immediately because of *error*, and report it to the connection."""
        if self.is_lost:
            return
        try:
            self._lost(error)
        finally:
            self._transport.abort()

    def _lost(self, error: MetacacheError) -> None:
        self.is_lost = True
        self._large.clear()
        self._on_lost(self, error)

    def close(self) -> None:
        """Close without calling *on_lost*. For a link on which no task waits. Idempotent."""
        self.is_lost = True
        self._large.clear()
        if hasattr(self, "_transport"):  # else it is not connected, and `connection_made` closes it
            self._transport.abort()

    def drop(self, error: MetacacheError) -> None:
        """Close because of *error*, in a callback of the loop, or where it does not run and cannot close the socket."""
        if not self.is_lost and not self._loop.is_closed():
            self._lost(error)
        self.is_lost = True
        if self._loop.is_running() or not hasattr(self, "_transport"):
            self.close()
            return
        transport = self._transport
        del self._transport  # this is the last that is done with it
        # Over TLS there is one transport beneath another.
        beneath = getattr(getattr(transport, "_ssl_protocol", None), "_transport", transport)
        # A private name, because no public one serves. asyncio's loop calls this at the end, and a transport that is
        # freed before that warns. abort() and close() only schedule the call, and this loop does not make it. To close
        # or detach the socket itself does not prevent the warning. uvloop has no such warning.
        finish = getattr(beneath, "_call_connection_lost", None)
        is_idle = finish is not None and not transport.is_closing() and not beneath.get_write_buffer_size()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            beneath.pause_reading() if is_idle else transport.abort()
        if finish is not None and (is_idle or self._loop.is_closed()):
            with contextlib.suppress(RuntimeError):  # as above
                finish(None)


def _reason_of(error: Exception) -> str:
    strerror = error.strerror if isinstance(error, OSError) else None
    return f"the connection broke ({strerror or type(error).__name__})"
