"""Questions to a server over a plain socket, past the client: its open connections, and leases that stayed behind."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Sequence
from time import monotonic, sleep
from typing import Final

from metacache.testing import Memcached

__all__ = ["leaked_connections", "leases", "open_connections"]

PATIENCE: Final = 10.0  # seconds in which a busy server notices that a connection was closed

_is_lease = re.compile(rb"HD (?=.*\bs0\b)(?=.*\bf0\b)(?=.*\b[WZ]\b)").match


def _ask(server: Memcached, tls: ssl.SSLContext | None, request: bytes, last: bytes) -> bytes:
    """Return the reply to *request*, which ends with *last*."""
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as plain:
        connection = plain if tls is None else tls.wrap_socket(plain, server_hostname="127.0.0.1")
        with connection:
            connection.sendall(request)
            received = b""
            while not received.endswith(last):
                data = connection.recv(1 << 20)
                assert data, "the server closed the connection"
                received += data
            return received


def open_connections(server: Memcached, tls: ssl.SSLContext | None = None) -> int:
    """Return the number of connections to *server*, with the one that asks. *tls*: None for a server without TLS."""
    found = re.search(rb"STAT curr_connections (\d+)", _ask(server, tls, b"stats\r\n", b"END\r\n"))
    assert found is not None
    return int(found[1])


def leaked_connections(servers: Sequence[Memcached], alone: Sequence[int], tls: ssl.SSLContext | None = None) -> int:
    """Return how many more connections *servers* have than *alone*, before the storm. A real leak does not go away."""
    end = monotonic() + PATIENCE
    while True:
        leaked = sum(open_connections(server, tls) for server in servers) - sum(alone)
        if leaked <= 0 or monotonic() > end:
            return leaked
        sleep(0.05)


def leases(server: Memcached, keys: Sequence[str], tls: ssl.SSLContext | None = None) -> list[str]:
    """Return those of *keys* that are placeholders of a lease on *server*."""
    # Without their values, which may look like replies.
    request = b"".join(b"mg %b s f\r\n" % key.encode() for key in keys)
    lines = _ask(server, tls, request + b"mn\r\n", b"MN\r\n").split(b"\r\n")
    return [key for key, line in zip(keys, lines, strict=False) if _is_lease(line)]
