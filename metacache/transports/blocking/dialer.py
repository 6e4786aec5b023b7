"""Dial a node: try each address in turn, with the TLS handshake, all within one deadline.

`resolving` finds the addresses and describes failures. This module opens sockets and knows nothing of the protocol.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from time import monotonic
from typing import final

from metacache.interrupts import is_own
from metacache.nodes import MemoryAddress, Node, TcpAddress
from metacache.settings import Settings
from metacache.transports.blocking.local import LocalSocket
from metacache.transports.resolving import Resolver, Target, is_tls_refusal, set_tcp_options, share_of, tls_refused

__all__ = ["Dialer"]


@final
class Dialer:
    """Makes connected sockets to one node."""

    __slots__ = ("_node", "_resolver", "_settings")

    def __init__(self, node: Node, settings: Settings) -> None:
        self._node = node
        self._settings = settings
        self._resolver = Resolver(node)

    def reset_after_fork(self) -> None:
        """In a forked child: drop a lookup, because its thread runs in the parent only."""
        self._resolver.reset_after_fork()

    def dial(self, deadline: float) -> socket.socket | LocalSocket:
        """Return a connected socket with TCP_NODELAY set and the TLS handshake done.

        For a server in this process, it returns a session in the shape of a socket.

        Raises ConnectError when no address answers by *deadline* (``time.monotonic()``).
        """
        address = self._node.address
        if isinstance(address, MemoryAddress):
            return LocalSocket(address.server.open())
        targets = self._targets(deadline)
        failures: list[OSError] = []
        for position, target in enumerate(targets):
            seconds = share_of(deadline - monotonic(), len(targets) - position)
            if seconds <= 0.0:
                break
            try:
                return self._connect(target, seconds)
            except OSError as error:
                if not is_own(error):
                    raise
                failures.append(error)
        raise self._resolver.dial_error(failures)

    def _targets(self, deadline: float) -> Sequence[Target]:
        known = self._resolver.known()
        if known is not None:
            return known
        seconds = self._resolver.seconds_to_wait(deadline - monotonic())
        lookup = self._resolver.start_lookup()
        lookup.wait(seconds)
        return self._resolver.addresses_after(lookup)

    def _connect(self, target: Target, seconds: float) -> socket.socket:
        family, address = target
        start = monotonic()
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(seconds)
            sock.connect(address)
            set_tcp_options(sock, self._settings)
            if self._settings.tls is None:
                return sock
            sock.settimeout(max(seconds - (monotonic() - start), 0.001))
            name = self._node.address.certificate_name if isinstance(self._node.address, TcpAddress) else None
            return self._settings.tls.wrap_socket(sock, server_hostname=name)
        except BaseException as error:
            _close(sock, error)
            if is_tls_refusal(error) and is_own(error):
                raise tls_refused(error) from error
            raise


def _close(sock: socket.socket, error: BaseException) -> None:
    """Close *sock* because of *error*.

    If a signal interrupted the `ssl` module, another socket in the traceback has the same descriptor, or has taken it
    over. It would stay open, or close the descriptor a second time, when that already belongs to another connection.
    """
    trace = error.__traceback__
    while trace is not None:
        other = trace.tb_frame.f_locals.get("self")
        if isinstance(other, socket.socket) and other is not sock:
            if other.fileno() == sock.fileno():
                sock.detach()
            # Not its own `close`: a signal may have interrupted its constructor before it set what that method reads.
            socket.SocketType.close(other)
        trace = trace.tb_next
    sock.close()
