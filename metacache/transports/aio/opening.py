"""Open a link: dial, and give user and password before anything else.

Knows how a link is made ready; who uses it, and what becomes of those who wait for it, is its connection's.
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
from metacache.settings import Settings
from metacache.transports.aio.dialer import dial
from metacache.transports.aio.link import Link
from metacache.transports.aio.pending import PendingReply, RequestQueue, throw
from metacache.transports.aio.timing import patience
from metacache.transports.base import Operation, Verb
from metacache.transports.counters import CloseReason, SocketCounts
from metacache.transports.resolving import Resolver
from metacache.transports.timeouts import failed_dial, late_reply

__all__ = ["CLOSED_AT_ONCE", "LinkOpener", "open_link"]

CLOSED_AT_ONCE: Final = "connected, and the server closed the connection at once; has it free connections (-c)?"
AUTHENTICATE: Final = Verb("authenticate", commands.AUTHENTICATE, is_read=True)


@final
class LinkOpener:
    """Opens the links of one connection, one at a time, in a task of its own.

    Whoever waits for a link may be cancelled, and the others still wait.

    Args:
        line: whose links they are.
        settings: timeouts, credentials.
        tally: what counts them.
        make: makes a link.
        opened: called with each link that is ready.
        failed: called with the error when there is none, and with the time when the dial began.
        ended: called after either, and when it was cancelled.
    """

    __slots__ = (
        "_ended",
        "_failed",
        "_line",
        "_made",
        "_make",
        "_opened",
        "_resolver",
        "_settings",
        "_tally",
        "_task",
    )

    def __init__(
        self,
        line: RequestQueue,
        settings: Settings,
        tally: SocketCounts,
        make: Callable[[], Link],
        opened: Callable[[Link], None],
        failed: Callable[[MetacacheError, float], None],
        ended: Callable[[], None],
    ) -> None:
        self._line = line
        self._settings = settings
        self._tally = tally
        self._make = make
        self._opened = opened
        self._failed = failed
        self._ended = ended
        self._resolver = Resolver(line.node)
        self._task: asyncio.Task[None] | None = None
        self._made: list[Link] = []  # in the dial that is under way

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Dial, unless that is under way."""
        if self._task is None or self._task.done():
            self._drop_made()
            self._task = loop.create_task(self._dial())
            # Not at the end of the task: one that is cancelled before its first step never comes there.
            self._task.add_done_callback(self._end)

    async def _dial(self) -> None:
        began = monotonic()
        deadline = began + self._settings.connect_timeout
        try:
            link = await open_link(
                self._line, self._settings, self._tally, self._resolver, deadline, self._make_and_keep
            )
            self._opened(link)
            self._made.clear()
        except BaseException as error:  # no request may wait for ever, and a further dial would be a storm
            self._drop_made()
            if not isinstance(error, Exception):
                raise
            if is_own(error):
                self._failed(failed_dial(error, monotonic() - deadline), began)
                return
            self._failed(_interrupted(error), began)
            raise

    def _make_and_keep(self) -> Link:
        self._made.append(self._make())
        return self._made[-1]

    def _drop_made(self) -> None:
        """Close the links that no connection uses. Idempotent: a signal's exception may come in between."""
        for link in self._made:
            link.close()
        self._made.clear()

    def _end(self, task: asyncio.Task[None]) -> None:
        if self._task is task:  # else another dial was begun meanwhile
            self._task = None
            self._drop_made()
        self._ended()
        error = None if task.cancelled() else task.exception()
        # The loop reports an exception of a signal handler. These two have ended the loop already.
        if error is not None and not isinstance(error, KeyboardInterrupt | SystemExit):
            throw(error)

    def cancel(self) -> None:
        """Give up the dial that is under way, if any."""
        if self._task is not None:
            self._task.cancel()

    async def aclose(self) -> None:
        """Give it up, and wait until it has ended."""
        self.cancel()
        if self._task is not None:
            await asyncio.wait((self._task,))
        self._drop_made()


async def open_link(
    line: RequestQueue,
    settings: Settings,
    tally: SocketCounts,
    resolver: Resolver,
    deadline: float,
    make: Callable[[], Link],
) -> Link:
    """Return the link of *line* that *make* makes, connected and authenticated by *deadline*; *tally* counts it.

    Raises ConnectError and AuthenticationError; nothing is left open then.
    """
    link = await dial(line.node, settings, resolver, deadline, make)
    tally.dialled += 1
    username, password = settings.username, settings.password
    try:
        if username is not None and password is not None:
            await _authenticate(link, line, _credentials(username, password), deadline)
    except BaseException:
        if not link.is_lost:  # else it was counted
            tally.discarded[CloseReason.BROKEN] += 1
        link.close()
        raise
    if link.is_lost:
        raise ConnectError(CLOSED_AT_ONCE, node=line.node.name)
    return link


async def _authenticate(link: Link, line: RequestQueue, credentials: Operation[bool], deadline: float) -> None:
    place: PendingReply[bool] = PendingReply()
    place.line, place.work, place.plain, place.read = line, credentials, None, bool
    place.deadline, place.asked = math.inf, -math.inf
    place.answer = place.waiter = None
    link.write([place])
    try:
        async with patience(deadline - monotonic()):
            await place
    except AuthenticationError as error:
        error.operation = None  # those who wait for the link have operations of their own
        raise
    except (TimeoutError, ConnectionLost, ProtocolError) as error:
        if not is_own(error):
            raise
        failure = error if isinstance(error, MetacacheError) else late_reply()
        link.advise(failure)
        why = f"connected, but the server did not answer the authentication: {failure.message}"
        failed = ConnectError(why, node=line.node.name)
        failed.is_local = isinstance(error, ConnectionLost) and error.is_local
        raise failed from error


def _interrupted(error: Exception) -> ConnectError:
    """Return the error for the requests that wait for a dial which a signal's handler ended with *error*."""
    interrupted = ConnectError(f"the dial was interrupted by {type(error).__name__}; nothing was sent, try again")
    interrupted.is_local = True
    interrupted.__cause__ = error
    return interrupted


def _credentials(username: str, password: str) -> Operation[bool]:
    request = commands.authenticate(username, password)
    op: Operation[bool] = Operation()
    op.verb, op.given, op.key, op.head, op.body = AUTHENTICATE, None, b"", request.head, request.body
    op.read = bool
    return op
