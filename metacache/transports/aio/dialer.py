"""Dial a node under an event loop: every address in turn, TLS included, all within one deadline.

Knows sockets and certificates; names are resolved, and failures told, as in `blocking`. Knows nothing of the protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TypeVar

from metacache.interrupts import is_from_handler, is_own
from metacache.nodes import Node, UnixAddress
from metacache.settings import Settings
from metacache.transports.aio.timing import patience
from metacache.transports.resolving import Resolver, Target, dial_failed, set_tcp_options

__all__ = ["dial"]

L = TypeVar("L", bound=asyncio.Protocol)


async def dial(node: Node, settings: Settings, resolver: Resolver, deadline: float, make: Callable[[], L]) -> L:
    """Return what *make* makes, connected to *node*, with TCP_NODELAY set and the TLS handshake done.

    Raises ConnectError when no address answers by *deadline* (``time.monotonic()``).
    """
    targets = await _targets(resolver, deadline)
    failures: list[OSError] = []
    for position, target in enumerate(targets):
        # A dead address must not use up the time of those behind it.
        share = (deadline - monotonic()) / (len(targets) - position)
        if share <= 0:
            break
        try:
            async with patience(share):
                return await _connect(node, settings, target, make)
        except OSError as error:
            if not _is_of_network(error):
                raise
            failures.append(error)
    failed = dial_failed(node, failures)
    if not failed.is_local:
        resolver.drop()
    raise failed from (failures[-1] if failures else None)


async def _targets(resolver: Resolver, deadline: float) -> Sequence[Target]:
    known = resolver.known()
    if known is not None:
        return known
    loop = asyncio.get_running_loop()
    seconds = resolver.patience(deadline - monotonic())
    asked = resolver.ask()
    answered = asyncio.Event()

    def tell() -> None:
        # Not the loop's own executor: a resolver that hangs there would keep the loop from shutting down.
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(answered.set)

    asked.tell(tell)
    try:
        async with patience(seconds):
            await answered.wait()
    except TimeoutError as error:
        if not is_own(error):
            raise
        # else the answer kept from before is still good
    return resolver.learn(asked)


async def _connect(node: Node, settings: Settings, target: Target, make: Callable[[], L]) -> L:
    loop = asyncio.get_running_loop()
    is_theirs = False
    made = make()

    def hand_over() -> L:
        nonlocal is_theirs
        is_theirs = True
        return made

    family, address = target
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(0.0)
        await loop.sock_connect(sock, address)
        set_tcp_options(sock, settings)
        await _open(node, settings, sock, hand_over)
    except BaseException as error:
        # From `hand_over` on the loop closes the socket, but not after an error that it does not expect.
        is_refused = isinstance(error, ValueError) and not isinstance(error, OSError)  # a refused certificate is both
        if not is_theirs or is_refused or not isinstance(error, OSError | asyncio.CancelledError):
            sock.close()
        if is_refused and is_own(error):
            raise OSError(f"TLS is not possible here: {error}") from error
        raise
    return made


async def _open(node: Node, settings: Settings, sock: socket.socket, make: Callable[[], asyncio.Protocol]) -> None:
    loop = asyncio.get_running_loop()
    if isinstance(node.address, UnixAddress):
        # A unix socket has no host name that a certificate could be for.
        name = None if settings.tls is None else ""
        await loop.create_unix_connection(make, sock=sock, ssl=settings.tls, server_hostname=name)
    else:
        name = None if settings.tls is None else node.address.certificate_name
        await loop.create_connection(make, sock=sock, ssl=settings.tls, server_hostname=name)


def _is_of_network(error: OSError) -> bool:
    """Return whether a system call or asyncio raised *error*, and not a signal handler.

    Some errors of asyncio have no arguments, for example when the server ends a TLS handshake.
    """
    if is_own(error):
        return True
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    innermost = "" if trace is None else str(trace.tb_frame.f_globals.get("__name__"))
    return not error.args and innermost.partition(".")[0] in ("asyncio", "uvloop") and not is_from_handler(error)
