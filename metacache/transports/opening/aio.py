"""Open a link: dial, and give user and password before anything else.

Knows how a link is made ready; who uses it, and what becomes of those who wait for it, is its connection's.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from metacache.errors import ConnectError, ConnectionLost, ProtocolError
from metacache.nodes import Node
from metacache.protocol import commands
from metacache.protocol.replies import Refusal
from metacache.settings import Settings
from metacache.transports import Operation, Verb
from metacache.transports.account import Discard, Tally
from metacache.transports.dialing.aio import dial
from metacache.transports.dialing.blocking import Resolver
from metacache.transports.streams.aio import Link
from metacache.transports.waiting.aio import patience, unsent

__all__ = ["CLOSED_AT_ONCE", "open_link"]

CLOSED_AT_ONCE: Final = "connected, and the server closed the connection at once; has it free connections (-c)?"
AUTHENTICATE: Final = Verb("authenticate", commands.AUTHENTICATE, is_read=True)


async def open_link(
    node: Node,
    settings: Settings,
    resolver: Resolver,
    deadline: float,
    make: Callable[[], Link],
    tally: Tally,
) -> Link:
    """Return the link that *make* makes, connected and authenticated by *deadline*; *tally* counts it.

    Raises ConnectError and AuthenticationError; nothing is left open then.
    """
    link = await dial(node, settings, resolver, deadline, make)
    tally.dialled += 1
    username, password = settings.username, settings.password
    try:
        if username is not None and password is not None:
            await _authenticate(link, node, _credentials(username, password), deadline)
    except BaseException:
        if not link.is_lost:  # else it was counted
            tally.discarded[Discard.BROKEN] += 1
        link.close()
        raise
    if link.is_lost:
        raise ConnectError(CLOSED_AT_ONCE, node=node.name)
    return link


async def _authenticate(link: Link, node: Node, credentials: Operation[bool], deadline: float) -> None:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()  # Any: as in Place
    link.write(deque([(future, credentials, math.inf, -math.inf)]))
    try:
        async with patience(deadline - monotonic()):
            answer = await future
    except (TimeoutError, ConnectionLost, ProtocolError) as error:
        told = "connected, but the server did not answer the authentication"
        raise ConnectError(told, node=node.name) from error
    if isinstance(answer, Refusal):
        raise unsent(answer.error).locate(node=node.name)


def _credentials(username: str, password: str) -> Operation[bool]:
    request = commands.authenticate(username, password)
    op: Operation[bool] = Operation()
    op.verb, op.given, op.key, op.head, op.body = AUTHENTICATE, None, b"", request.head, request.body
    op.read = bool
    return op
