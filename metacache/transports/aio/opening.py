"""Open a link: dial, then send user and password before any other request.

It makes links ready for use. Its connection decides what happens to the requests that wait for a link.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from time import monotonic
from typing import Final, final

from metacache.errors import AuthenticationError, ConnectError, ConnectionLost, MetacacheError, ProtocolError
from metacache.interrupts import is_own
from metacache.protocol import commands
from metacache.protocol.commands import Request
from metacache.settings import Settings
from metacache.transports.aio.dialer import dial
from metacache.transports.aio.link import Link
from metacache.transports.aio.pending import PendingReply, RequestQueue, new_pending, throw
from metacache.transports.aio.timing import time_limit
from metacache.transports.base import Operation, Verb
from metacache.transports.counters import CloseReason, SocketCounts
from metacache.transports.resolving import Resolver
from metacache.transports.timeouts import authentication_unanswered, late_reply, typed_dial_error

__all__ = ["CLOSED_IMMEDIATELY", "LinkOpener", "open_link"]

CLOSED_IMMEDIATELY: Final = "connected, but the server closed the connection immediately; has it free connections (-c)?"
AUTHENTICATE: Final = Verb("authenticate", commands.AUTHENTICATE, is_read=True)


@final
class LinkOpener:
    """Opens the links of one connection, one at a time, in a task of its own.

    A task, because the caller that needed the link may be cancelled while other callers still wait for it.

    Args:
        queue: the request queue of the connection.
        settings: timeouts, credentials.
        counts: counts the sockets.
        make: makes a link.
        opened: called with each link that is ready.
        failed: called with the error when there is no link, and with the time when the dial began.
        ended: called after either, and after a cancelled dial.
    """

    __slots__ = (
        "_counts",
        "_ended",
        "_failed",
        "_made",
        "_make",
        "_opened",
        "_queue",
        "_resolver",
        "_settings",
        "_task",
    )

    def __init__(
        self,
        queue: RequestQueue,
        settings: Settings,
        counts: SocketCounts,
        make: Callable[[], Link],
        opened: Callable[[Link], None],
        failed: Callable[[MetacacheError, float], None],
        ended: Callable[[], None],
    ) -> None:
        self._queue = queue
        self._settings = settings
        self._counts = counts
        self._make = make
        self._opened = opened
        self._failed = failed
        self._ended = ended
        self._resolver = Resolver(queue.node)
        self._task: asyncio.Task[None] | None = None
        self._made: list[Link] = []  # the links of the current dial, which no connection uses yet

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start a dial, unless one is running."""
        if self._task is None or self._task.done():
            self._close_made()
            self._task = loop.create_task(self._dial())
            # A callback, not code at the end of the task: a task that is cancelled before its first step runs no code.
            self._task.add_done_callback(self._end)

    async def _dial(self) -> None:
        began = monotonic()
        deadline = began + self._settings.connect_timeout
        try:
            link = await open_link(
                self._queue, self._settings, self._counts, self._resolver, deadline, self._make_and_keep
            )
            self._opened(link)
            self._made.clear()
        except BaseException as error:  # fail the waiting requests, so that they neither hang nor dial in a loop
            self._close_made()
            if not isinstance(error, Exception):
                raise
            if is_own(error):
                self._failed(typed_dial_error(error, monotonic() - deadline), began)
                return
            self._failed(_interrupted(error), began)
            raise

    def _make_and_keep(self) -> Link:
        self._made.append(self._make())
        return self._made[-1]

    def _close_made(self) -> None:
        """Close the links that no connection uses. Idempotent: a signal's exception may interrupt it."""
        for link in self._made:
            link.close()
        self._made.clear()

    def _end(self, task: asyncio.Task[None]) -> None:
        if self._task is task:  # else another dial was started meanwhile
            self._task = None
            self._close_made()
        self._ended()
        error = None if task.cancelled() else task.exception()
        # The loop reports an exception of a signal handler. The two classes below have ended the loop already.
        if error is not None and not isinstance(error, KeyboardInterrupt | SystemExit):
            throw(error)

    def cancel(self) -> None:
        """Cancel the dial that is running, if any."""
        if self._task is not None:
            self._task.cancel()

    async def aclose(self) -> None:
        """Cancel the dial that is running, and wait until it has ended."""
        self.cancel()
        if self._task is not None:
            await asyncio.wait((self._task,))
        self._close_made()


async def open_link(
    queue: RequestQueue,
    settings: Settings,
    counts: SocketCounts,
    resolver: Resolver,
    deadline: float,
    make: Callable[[], Link],
) -> Link:
    """Return a link of *make*, connected and authenticated by *deadline*; *counts* counts its socket.

    Raises ConnectError and AuthenticationError. Then the link is closed.
    """
    link = await dial(queue.node, settings, resolver, deadline, make)
    counts.dialled += 1
    request = commands.authentication(settings.username, settings.password)
    try:
        if request is not None:
            await _authenticate(link, queue, _credentials(request), deadline)
    except BaseException:
        if not link.is_lost:  # else it was counted
            counts.discarded[CloseReason.BROKEN] += 1
        link.close()
        raise
    if link.is_lost:
        raise ConnectError(CLOSED_IMMEDIATELY, node=queue.node.name)
    return link


async def _authenticate(link: Link, queue: RequestQueue, credentials: Operation[bool], deadline: float) -> None:
    pending: PendingReply[bool] = new_pending()
    pending.queue, pending.work, pending.plain, pending.read = queue, credentials, None, bool
    pending.deadline, pending.made_at = math.inf, -math.inf
    pending.answer = pending.waiter = None
    link.write([pending])
    try:
        async with time_limit(deadline - monotonic()):
            await pending
    except AuthenticationError as error:
        error.operation = None  # the requests that wait for the link put their own operations in
        raise
    except (TimeoutError, ConnectionLost, ProtocolError) as error:
        if not is_own(error):
            raise
        failure = error if isinstance(error, MetacacheError) else late_reply()
        link.add_tls_hint(failure)
        failed = authentication_unanswered(failure, queue.node)
        failed.is_local = isinstance(error, ConnectionLost) and error.is_local
        raise failed from error


def _interrupted(error: Exception) -> ConnectError:
    """Return the error for requests that wait for a dial which a signal handler's *error* interrupted."""
    interrupted = ConnectError(f"the dial was interrupted by {type(error).__name__}; nothing was sent, try again")
    interrupted.is_local = True
    interrupted.__cause__ = error
    return interrupted


def _credentials(request: Request) -> Operation[bool]:
    op: Operation[bool] = Operation()
    op.verb, op.given, op.key, op.head, op.body = AUTHENTICATE, None, b"", request.head, request.body
    op.read = bool
    return op
