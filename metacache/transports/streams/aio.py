"""A link: one socket of an event loop and the protocol connection on it, shared by many callers.

Writes what its connection has waiting, gives each reply to the future it belongs to, and tells when it is lost. Knows no
dialling, no deadline and no retry; it changes over time, and what guards it is that one event loop runs it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from random import getrandbits
from time import monotonic
from typing import Any, Final, NamedTuple, TypeAlias, final

from typing_extensions import override

from metacache.errors import ConnectionLost, MetacacheError
from metacache.protocol.commands import Request
from metacache.protocol.connection import ProtocolConnection
from metacache.settings import Settings
from metacache.transports import Batch, Operation

__all__ = ["BatchWindow", "Link", "Place"]

# One write an event-loop turn takes so much at most, that a flood of small requests leaves while more are being made.
MAX_REQUESTS: Final = 256
MAX_WRITE: Final = 65536  # bytes
# More of several commands in one TLS write makes the server sleep on bytes it has decrypted (memcached up to 1.6.45).
MAX_TLS_WRITE: Final = 16384


class BatchWindow(NamedTuple):
    """The requests of a batch from *start* to *stop*, which go out together."""

    batch: Batch
    start: int
    stop: int


Work: TypeAlias = "Operation[Any] | BatchWindow | Request"  # Any: whatever it is, its reader knows


class Place(NamedTuple):
    """A request's place in the queue. Its caller waits for the future; a future that is done was abandoned, and its reply is
    dropped.

    ``asked``: when it was asked for; minus infinity once it was sent a second time.
    """

    future: asyncio.Future[Any]  # Any: an Answer for one request, Replies for a window
    work: Work
    deadline: float
    asked: float


@final
class Link(asyncio.Protocol):
    """See the module.

    Args:
        settings: limits, and whether it is TLS.
        on_room: called when replies or the socket made room to write more.
        on_lost: called once, with the link and what went wrong; what is left in ``in_flight`` gets no reply.

    ``in_flight`` are the places written and not answered, ``requests`` how many requests they are; ``heard``: when bytes came last, or
    the first of those in flight was written.
    """

    __slots__ = (
        "_is_lost",
        "_max_in_flight",
        "_max_write",
        "_on_lost",
        "_on_room",
        "_paused",
        "_protocol",
        "_transport",
        "dialled",
        "heard",
        "in_flight",
        "requests",
        "when_closed",
    )

    _transport: asyncio.Transport

    def __init__(
        self, settings: Settings, on_room: Callable[[], None], on_lost: Callable[[Link, MetacacheError], None]
    ) -> None:
        self._protocol = ProtocolConnection(max_reply_size=settings.max_reply_size, first_opaque=getrandbits(16))
        self._max_in_flight = settings.max_in_flight
        self._max_write = MAX_WRITE if settings.tls is None else MAX_TLS_WRITE
        self._on_room = on_room
        self._on_lost = on_lost
        self._paused = False
        self._is_lost = False
        self.in_flight: deque[Place] = deque()
        self.requests = 0
        self.dialled = self.heard = monotonic()
        self.when_closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @override
    def __repr__(self) -> str:
        return f"<Link: {'lost' if self._is_lost else f'{self.requests} in flight'}>"

    # --- writing -----------------------------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """True when more may be written now."""
        return not self._paused and not self._is_lost and self.requests < self._max_in_flight

    def write(self, waiting: deque[Place]) -> None:
        """Write what of *waiting* may be written now, in one write, and move it in flight. The abandoned are left out."""
        if not self.in_flight:
            self.heard = monotonic()
        pieces: list[bytes] = []
        size, most = 0, self.requests + MAX_REQUESTS
        while waiting and self.has_room and size < self._max_write and self.requests < most:
            place = waiting[0]
            if place.future.done():
                waiting.popleft()
                continue
            data = self._frame(place)
            waiting.popleft()
            if pieces and size + len(data) > self._max_write:
                self._transport.write(b"".join(pieces))
                pieces, size = [], 0
            pieces.append(data)
            size += len(data)
        if pieces:
            self._transport.write(b"".join(pieces) if len(pieces) > 1 else pieces[0])

    def _frame(self, place: Place) -> bytes:
        """Return the bytes of a request, which is in flight from now on."""
        work = place.work
        if isinstance(work, BatchWindow):
            batch, start, stop = work
            bodies = None if batch.bodies is None else batch.bodies[start:stop]
            send = self._protocol.send_quiet if batch.quiet else self._protocol.send_window
            data, _ = send(batch.verb.command, batch.heads[start:stop], bodies)
            self.requests += stop - start
        else:
            command = work.command if isinstance(work, Request) else work.verb.command
            data, _ = self._protocol.send(command, work.head, work.body)
            self.requests += 1
        self.in_flight.append(place)
        return data

    # --- what the loop calls -----------------------------------------------------------------------------------------

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    @override
    def pause_writing(self) -> None:
        """Stop writing: the socket takes no more."""
        self._paused = True

    @override
    def resume_writing(self) -> None:
        """Go on writing."""
        self._paused = False
        self._on_room()

    @override
    def data_received(self, data: bytes) -> None:
        """Give the replies that are complete to those who wait for them."""
        self.heard = monotonic()
        protocol, in_flight = self._protocol, self.in_flight
        for expectation in protocol.receive(data):
            future, work, _, _ = in_flight.popleft()
            if isinstance(work, BatchWindow):
                self.requests -= work.stop - work.start
            else:
                self.requests -= 1
            if not future.done():
                future.set_result(expectation)
        if protocol.must_close:
            told = "the connection was closed after an error that leaves unclear what the server takes for requests"
            self.lose(protocol.failure or ConnectionLost(told))
        else:
            self._on_room()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """Tell that the link is lost."""
        if not self.when_closed.done():
            self.when_closed.set_result(None)
        self.end(exc)
