"""Dial a node under an event loop: try each address in turn, with the TLS handshake, all within one deadline.

`resolving` finds the addresses and describes failures. This module opens sockets and knows nothing of the protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TypeVar

from metacache.interrupts import ignoring, is_from_handler, is_own
from metacache.nodes import MemoryAddress, Node, TcpAddress, UnixAddress
from metacache.settings import Settings
from metacache.transports.aio.local import open_local
from metacache.transports.aio.timing import time_limit
from metacache.transports.resolving import Resolver, Target, is_tls_refusal, set_tcp_options, share_of, tls_refused

__all__ = ["dial"]

L = TypeVar("L", bound=asyncio.Protocol)


async def dial(node: Node, settings: Settings, resolver: Resolver, deadline: float, make: Callable[[], L]) -> L:
    """Return a protocol of *make*, connected to *node*, with TCP_NODELAY set and the TLS handshake done.

    Raises ConnectError when no address answers by *deadline* (``time.monotonic()``).
    """
    if isinstance(node.address, MemoryAddress):
        return open_local(node.address.server, make())
    targets = await _targets(resolver, deadline)
    failures: list[OSError] = []
    for position, target in enumerate(targets):
        seconds = share_of(deadline - monotonic(), len(targets) - position)
        if seconds <= 0.0:
            break
        try:
            async with time_limit(seconds):
                return await _connect(node, settings, target, make)
        except OSError as error:
            if not _is_of_network(error):
                raise
            failures.append(error)
    raise resolver.dial_error(failures)


async def _targets(resolver: Resolver, deadline: float) -> Sequence[Target]:
    known = resolver.known()
    if known is not None:
        return known
    loop = asyncio.get_running_loop()
    seconds = resolver.seconds_to_wait(deadline - monotonic())
    lookup = resolver.start_lookup()
    answered = asyncio.Event()

    def notify() -> None:
        # The lookup has a thread of its own. In the loop's executor, a resolver that hangs would block its shutdown.
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(answered.set)

    lookup.on_answer(notify)
    try:
        async with time_limit(seconds):
            await answered.wait()
    except TimeoutError as error:
        if not is_own(error):
            raise
        # `addresses_after` returns the kept addresses, or raises.
    return resolver.addresses_after(lookup)


async def _connect(node: Node, settings: Settings, target: Target, make: Callable[[], L]) -> L:
    loop = asyncio.get_running_loop()
    is_handed_over = False
    made = make()

    def hand_over() -> L:
        nonlocal is_handed_over
        is_handed_over = True
        return made

    family, address = target
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(0.0)
        await loop.sock_connect(sock, address)
        set_tcp_options(sock, settings)
        await _open(node, settings, sock, hand_over)
    except BaseException as error:
        # After `hand_over` the loop closes the socket, but only after errors that it expects.
        is_refused = is_tls_refusal(error)
        if not is_handed_over or is_refused or not _is_expected(error):
            with ignoring(OSError):  # uvloop closes the descriptor, and a signal may interrupt it before it says so
                sock.close()
        if is_refused and is_own(error):
            raise tls_refused(error) from error
        raise
    return made


async def _open(node: Node, settings: Settings, sock: socket.socket, make: Callable[[], asyncio.Protocol]) -> None:
    loop = asyncio.get_running_loop()
    if isinstance(node.address, UnixAddress):
        # A unix socket has no host name that a certificate could be for.
        name = None if settings.tls is None else ""
        await loop.create_unix_connection(make, sock=sock, ssl=settings.tls, server_hostname=name)
    else:
        assert isinstance(node.address, TcpAddress)
        name = None if settings.tls is None else node.address.certificate_name
        await loop.create_connection(make, sock=sock, ssl=settings.tls, server_hostname=name)


def _is_expected(error: BaseException) -> bool:
    """Return whether *error* is one after which the loop closes a socket."""
    return isinstance(error, asyncio.CancelledError) or (isinstance(error, OSError) and _is_of_network(error))


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
