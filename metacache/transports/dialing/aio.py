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

from metacache.nodes import Node, UnixAddress
from metacache.settings import Settings
from metacache.transports.dialing.blocking import Resolver, Target, dial_failed, set_tcp_options
from metacache.transports.timing.aio import patience

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
    except TimeoutError:
        pass  # the answer kept from before is still good
    return resolver.learn(asked)


async def _connect(node: Node, settings: Settings, target: Target, make: Callable[[], L]) -> L:
    sock = await _connected(target, settings)
    loop = asyncio.get_running_loop()
    try:
        if isinstance(node.address, UnixAddress):
            # A unix socket has no host name that a certificate could be for.
            name = None if settings.tls is None else ""
            _, made = await loop.create_unix_connection(make, sock=sock, ssl=settings.tls, server_hostname=name)
        else:
            name = None if settings.tls is None else node.address.host
            _, made = await loop.create_connection(make, sock=sock, ssl=settings.tls, server_hostname=name)
    except OSError:  # also a refused certificate, which is a ValueError besides
        raise
    except ValueError as error:
        sock.close()
        raise OSError(f"TLS is not possible here: {error}") from error
    except Exception:
        sock.close()
        raise
    return made


async def _connected(target: Target, settings: Settings) -> socket.socket:
    family, address = target
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(0.0)
        await asyncio.get_running_loop().sock_connect(sock, address)
        set_tcp_options(sock, settings)
    except BaseException:
        sock.close()
        raise
    return sock
