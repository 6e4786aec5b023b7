"""A link: one socket of an event loop and the protocol connection on it, shared by many callers.

Writes what its connection has waiting, gives each reply to the place it belongs to, and tells when it is lost. Knows
no dialling, no deadline and no retry. It changes over time; what guards it is that one event loop runs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Sequence
from random import getrandbits
from time import monotonic
from typing import Any, Final, TypeAlias, cast, final

from typing_extensions import override

from metacache.errors import ConnectionLost, MetacacheError
from metacache.interrupts import is_own
from metacache.protocol.connection import ProtocolConnection
from metacache.protocol.expectations import Answer, Expectation
from metacache.protocol.windows import closing_error
from metacache.settings import Settings
from metacache.transports.aio.batch import complete
from metacache.transports.aio.pending import BatchWindow, PendingReply, Work, throw, weight_of
from metacache.transports.aio.pieces import WriteBuffer, packs
from metacache.transports.batch_windows import send_window
from metacache.transports.timeouts import advise, interrupted

__all__ = ["Link"]

# One write an event-loop turn takes so much at most, that a flood of small requests leaves while more are being made.
MAX_REQUESTS: Final = 256
MAX_WRITE: Final = 65536  # bytes
# More of several commands in one TLS write makes the server sleep on bytes it has decrypted (memcached up to 1.6.45).
MAX_TLS_WRITE: Final = 16384

Places: TypeAlias = Sequence[PendingReply[Any]]  # Any: whatever each waits for


@final
class Link(asyncio.Protocol):
    """See the module.

    Args:
        settings: limits, and whether it is TLS.
        on_answers: called with the link and the places that have their answers, whose tasks it is to wake.
        on_room: called with the link when there may be room to write more.
        on_lost: called once, with the link and what went wrong; what is left in ``in_flight`` gets no reply.

    ``in_flight`` are the places written and not answered, ``requests`` how many requests they are; ``heard``: when
    bytes came last, or some that were held back left, or the first of those in flight was written; ``when_closed`` is
    done when the socket is closed.

    The rest of a large data block is written although its caller gave up: half a request cannot be taken back. Its
    connection closes the link when that takes too long (`clogged_until`).
    """

    __slots__ = (
        "_in_doubt",
        "_loop",
        "_max_in_flight",
        "_max_write",
        "_on_answers",
        "_on_lost",
        "_on_room",
        "_outlet",
        "_paused",
        "_protocol",
        "_transport",
        "_unwritten",
        "_was_answered",
        "dialled",
        "heard",
        "in_flight",
        "is_lost",
        "requests",
        "was_asked",
        "when_closed",
    )

    _transport: asyncio.Transport

    def __init__(
        self,
        settings: Settings,
        on_answers: Callable[[Link, Places], None],
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
        self._in_doubt = False  # True also while bytes are written or taken in, which a signal may interrupt
        self.is_lost = False
        self.was_asked = False
        self._was_answered = False
        self._unwritten = 0
        self._outlet: WriteBuffer[PendingReply[Any]] = WriteBuffer()  # Any: as below
        self.in_flight: list[PendingReply[Any]] = []  # Any: whatever each waits for
        self.requests = 0
        self.dialled = self.heard = monotonic()
        self._loop = asyncio.get_running_loop()
        self.when_closed: asyncio.Future[None] = self._loop.create_future()

    @override
    def __repr__(self) -> str:
        return f"<Link: {'lost' if self.is_lost else f'{self.requests} in flight'}>"

    # --- writing -----------------------------------------------------------------------------------------------------

    def advise(self, error: MetacacheError) -> None:
        """Add advice to *error* if no byte ever came on this link."""
        if not self._was_answered and not self._protocol.has_heard:
            advise(error, is_tls=self._max_write == MAX_TLS_WRITE)

    @property
    def is_full(self) -> bool:
        """True when as many requests are in flight as may be."""
        return self.requests >= self._max_in_flight

    @property
    def has_room(self) -> bool:
        """True when more may be written now."""
        return not (self._paused or self._outlet.place or self.is_lost) and self.requests < self._max_in_flight

    def write(self, waiting: list[PendingReply[Any]]) -> None:  # Any: whatever each waits for
        """Write the requests of *waiting* that may be written now, and move them in flight; drop those given up.

        One write, or over TLS one for each pack that the server can take at once.
        """
        if self._in_doubt:
            self.lose(interrupted())
            return
        self._in_doubt = True
        try:
            self._write(waiting)
        except BaseException as error:
            self._interrupt(error)
            return
        self._in_doubt = False

    def _write(self, waiting: list[PendingReply[Any]]) -> None:  # Any: as above
        if not self.in_flight:
            self.heard = monotonic()
            self.was_asked = True
        elif self._unwritten and self._has_moved():
            self.heard = monotonic()
        room = room_before = min(MAX_REQUESTS, self._max_in_flight - self.requests) if self.has_room else 0
        send_plain, put_in_flight = self._protocol.send_plain, self.in_flight.append
        frames: list[bytes] = []
        size = taken = 0
        large: bytes | None = None
        for place in waiting:
            if room <= 0 or size >= MAX_WRITE:
                break
            taken += 1
            waiter = place.waiter
            if place.answer is not None or (waiter is not None and waiter.future.cancelled()):
                continue
            put_in_flight(place)
            plain = place.plain
            if plain is not None:
                body = plain.body
                if body is not None and len(body) > MAX_WRITE:
                    body, large = None, body
                frame = send_plain(plain.verb.command, plain.head, body)
                room -= 1
            else:
                frame, large = self._frame(place.work)
                room -= weight_of(place.work)
            frames.append(frame)
            size += len(frame)
            if large is not None:
                self._outlet.fill(large, place)
                break
        del waiting[:taken]  # in flight by now: whatever strikes, nobody is lost
        self.requests += room_before - room
        if frames:
            for pack in (b"".join(frames),) if size <= self._max_write else packs(frames, self._max_write):
                self._transport.write(pack)
            self._unwritten = self._transport.get_write_buffer_size()
            if large is not None:
                self._pour()
                self._has_moved()

    def _frame(self, work: Work) -> tuple[bytes, bytes | None]:
        """Return the bytes of *work*, whose replies are expected from now on, and the large data block to follow."""
        if not isinstance(work, BatchWindow):
            data, _ = self._protocol.send(work.verb.command, work.head, work.body)
            return data, None
        batch, start, stop = work
        bodies = batch.bodies
        if bodies is None or stop - start > 1 or len(bodies[start]) <= MAX_WRITE:
            return send_window(self._protocol, *work)[0], None
        data, _ = self._protocol.send_window(batch.verb.command, batch.heads[start:stop], None)
        return data, bodies[start]

    # --- large data blocks -------------------------------------------------------------------------------------------

    def _pour(self) -> None:
        """Write as much of the large data block as the socket takes, with a limit for each turn of the loop."""
        try:
            if self._outlet.pour(self._transport.write, self._may_write):
                self._loop.call_soon(self._pour)
        except BaseException as error:  # a piece may be lost
            self._interrupt(error)
            return
        if self.has_room:
            self._on_room(self)

    def _may_write(self) -> bool:
        return not self._paused and not self.is_lost

    @property
    def clogged_until(self) -> float:
        """The deadline of the large request that is being written though its caller gave up; else infinity."""
        place = self._outlet.place
        return math.inf if place is None or place.answer is None else place.deadline

    def is_silent(self, now: float, seconds: float) -> bool:
        """Tell whether requests wait and for so many *seconds* no byte came, and none left that was held back."""
        if not self.in_flight or now < self.heard + seconds:
            return False
        if self._has_moved():
            self.heard = now
        return self.heard < now

    def _has_moved(self) -> bool:
        """Tell whether something of what was held back has left since the last look, or write."""
        before, self._unwritten = self._unwritten, self._transport.get_write_buffer_size() + len(self._outlet)
        return self._unwritten < before

    # --- what the loop calls -----------------------------------------------------------------------------------------

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; close it if its dial was given up meanwhile."""
        # The loop gives a TCP or unix socket's transport; uvloop's are no subclass of asyncio's, so no assert can tell.
        self._transport = cast("asyncio.Transport", transport)
        if self.is_lost:
            self._transport.abort()

    @override
    def pause_writing(self) -> None:
        """Stop writing: the socket takes no more."""
        self._paused = True

    @override
    def resume_writing(self) -> None:
        """Go on writing."""
        self._paused = False
        if self._outlet.place is None:
            self._on_room(self)
        else:
            self._pour()

    @override
    def data_received(self, data: bytes) -> None:
        """Give the replies that are complete to those who wait for them."""
        if self.is_lost:
            return  # closing: the bytes that still come are dropped
        if self._in_doubt:
            self.lose(interrupted())
            return
        self._in_doubt = True
        try:
            done = self._receive(data)
        except BaseException as error:
            self._interrupt(error)
            return
        self._in_doubt = False
        self._on_answers(self, done)  # last: tasks go on in there, and may do anything

    def _receive(self, data: bytes) -> Places:
        """Take *data* in; return the places that have their answers now."""
        self.heard = monotonic()
        protocol = self._protocol
        failure: MetacacheError | None = None
        answers = protocol.answers(data)
        if protocol.must_close:
            failure = protocol.failure or self._why_closed(answers)
        done = self.in_flight[: len(answers)]
        self._answer(done, answers, failure)
        self._was_answered = True
        if failure is not None:
            self.lose(failure)
        return done

    def _answer(self, places: Places, answers: Sequence[Answer | Expectation], failure: MetacacheError | None) -> None:
        """Give *answers* to *places*, the first in flight; *failure*: what they have that follow the last of them."""
        requests = len(answers)
        for place, answer in zip(places, answers, strict=True):
            if place.plain is None and type(work := place.work) is BatchWindow:
                requests += weight_of(work) - 1
                if failure is not None:
                    complete(answer, work, failure)
            if place.answer is None:  # else it was abandoned
                place.answer = answer
        self.requests -= requests
        del self.in_flight[: len(answers)]

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """Tell that the link is lost."""
        was_lost, self.is_lost = self.is_lost, True
        if not self.when_closed.done():
            self.when_closed.set_result(None)
        is_of_signal = exc is not None and not is_own(exc)  # it came out of `data_received`
        if exc is not None and is_of_signal:
            self._loop.call_soon(throw, exc)
        if was_lost:
            return
        why = "the server closed the connection" if exc is None else _reason_of(exc)
        error = ConnectionLost(f"{why} before the reply was complete")
        error.is_local = is_of_signal
        self._on_lost(self, error)

    def _why_closed(self, answers: Sequence[Answer | Expectation]) -> MetacacheError:
        """Return what the last of *answers*, after which the connection is closed, means for all in flight."""
        is_first = len(answers) == 1 and not self._was_answered
        return closing_error(answers[-1] if answers else None, is_first=is_first)

    # --- the end -----------------------------------------------------------------------------------------------------

    @property
    def is_broken(self) -> bool:
        """True when a signal's exception hit it: its position is uncertain, or its end went unnoticed."""
        return self._in_doubt or self._transport.is_closing()

    def _interrupt(self, error: BaseException) -> None:
        """Close after *error*, a signal's: the expected replies may not fit the requests. The loop reports *error*."""
        self._loop.call_soon(throw, error)
        try:
            self.lose(interrupted())
        except BaseException as another:
            self._loop.call_soon(throw, another)

    def lose(self, error: MetacacheError) -> None:
        """Close at once because of *error*, and tell."""
        if self.is_lost:
            return
        try:
            self._lost(error)
        finally:
            self._transport.abort()

    def _lost(self, error: MetacacheError) -> None:
        self.is_lost = True
        self._outlet.drop()
        self._on_lost(self, error)

    def close(self) -> None:
        """Close without calling *on_lost*: nothing is in flight, or no task waits for it. Idempotent."""
        self.is_lost = True
        self._outlet.drop()
        if hasattr(self, "_transport"):  # else it is not connected; `connection_made` closes it
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
