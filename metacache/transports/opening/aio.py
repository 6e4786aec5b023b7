"""Open a link: dial, and give user and password before anything else.

Knows how a link is made ready; who uses it, and what becomes of those who wait for it, is its connection's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from time import monotonic
from typing import Final, Protocol

from metacache.errors import AuthenticationError, ConnectError, ConnectionLost, ProtocolError
from metacache.protocol import commands
from metacache.settings import Settings
from metacache.transports import Operation, Verb
from metacache.transports.account import Discard, Tally
from metacache.transports.dialing.aio import dial
from metacache.transports.dialing.blocking import Resolver
from metacache.transports.streams.aio import Link
from metacache.transports.waiting.aio import Line, Place, patience, wait

__all__ = ["CLOSED_AT_ONCE", "open_link"]

CLOSED_AT_ONCE: Final = "connected, and the server closed the connection at once; has it free connections (-c)?"
AUTHENTICATE: Final = Verb("authenticate", commands.AUTHENTICATE, is_read=True)


class Opener(Line, Protocol):
    """Whose link it is."""

    @property
    def tally(self) -> Tally:
        """What counts it."""
        ...


async def open_link(
    line: Opener, settings: Settings, resolver: Resolver, deadline: float, make: Callable[[], Link]
) -> Link:
    """Return the link of *line* that *make* makes, connected and authenticated by *deadline*.

    Raises ConnectError and AuthenticationError; nothing is left open then.
    """
    link = await dial(line.node, settings, resolver, deadline, make)
    line.tally.dialled += 1
    username, password = settings.username, settings.password
    try:
        if username is not None and password is not None:
            await _authenticate(link, line, _credentials(username, password), deadline)
    except BaseException:
        if not link.is_lost:  # else it was counted
            line.tally.discarded[Discard.BROKEN] += 1
        link.close()
        raise
    if link.is_lost:
        raise ConnectError(CLOSED_AT_ONCE, node=line.node.name)
    return link


async def _authenticate(link: Link, line: Line, credentials: Operation[bool], deadline: float) -> None:
    place: Place[bool] = Place()
    place.line, place.work, place.plain = line, credentials, None
    place.deadline, place.asked, place.answer, place.wakeup = math.inf, -math.inf, None, None
    link.write([place])
    try:
        async with patience(deadline - monotonic()):
            await wait(place)
    except AuthenticationError as error:
        error.operation = None  # those who wait for the link have operations of their own
        raise
    except (TimeoutError, ConnectionLost, ProtocolError) as error:
        told = "connected, but the server did not answer the authentication"
        raise ConnectError(told, node=line.node.name) from error


def _credentials(username: str, password: str) -> Operation[bool]:
    request = commands.authenticate(username, password)
    op: Operation[bool] = Operation()
    op.verb, op.given, op.key, op.head, op.body = AUTHENTICATE, None, b"", request.head, request.body
    op.read = bool
    return op
