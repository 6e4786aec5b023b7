"""Dial a node: try each of its addresses, and shake hands over TLS, all within one deadline."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from time import monotonic
from typing import final

from metacache.interrupts import is_own
from metacache.nodes import Node, UnixAddress
from metacache.settings import Settings
from metacache.transports.resolving import Resolver, Target, dial_failed, set_tcp_options

__all__ = ["Dialer"]


@final
class Dialer:
    """Makes connected sockets to one node."""

    __slots__ = ("_node", "_resolver", "_settings")

    def __init__(self, node: Node, settings: Settings) -> None:
        self._node = node
        self._settings = settings
        self._resolver = Resolver(node)

    def forget(self) -> None:
        """Drop a lookup whose thread a fork left behind."""
        self._resolver.forget()

    def dial(self, deadline: float) -> socket.socket:
        """Return a connected socket with TCP_NODELAY set and the TLS handshake done.

        Raises ConnectError when no address answers by *deadline* (``time.monotonic()``).
        """
        targets = self._targets(deadline)
        failures: list[OSError] = []
        for position, target in enumerate(targets):
            # A dead address must not use up the time of those behind it.
            share = (deadline - monotonic()) / (len(targets) - position)
            if share <= 0:
                break
            try:
                return self._connect(target, share)
            except OSError as error:
                if not is_own(error):
                    raise
                failures.append(error)
        failed = dial_failed(self._node, failures)
        if not failed.is_local:
            self._resolver.drop()
        raise failed from (failures[-1] if failures else None)

    def _targets(self, deadline: float) -> Sequence[Target]:
        known = self._resolver.known()
        if known is not None:
            return known
        patience = self._resolver.patience(deadline - monotonic())
        asked = self._resolver.ask()
        asked.wait(patience)
        return self._resolver.learn(asked)

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
            name = None if isinstance(self._node.address, UnixAddress) else self._node.address.certificate_name
            return self._settings.tls.wrap_socket(sock, server_hostname=name)
        except BaseException as error:
            sock.close()
            # A refused certificate is a ValueError and an OSError.
            if isinstance(error, ValueError) and not isinstance(error, OSError) and is_own(error):
                # The context wants a host name, a unix socket has none.
                raise OSError(f"TLS is not possible here: {error}") from error
            raise
