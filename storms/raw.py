"""Questions to a server over a plain socket, past the client: its open connections, and leases that stayed behind."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from time import monotonic, sleep
from typing import Final

from metacache.testing import Memcached

__all__ = ["leaked_connections", "leases", "open_connections"]

PATIENCE: Final = 10.0  # seconds in which a busy server notices that a connection was closed

_is_lease = re.compile(rb"VA 0 (?=.*\bf0\b)(?=.*\b[WZ]\b)").match


def _ask(server: Memcached, request: bytes, last: bytes) -> bytes:
    """Return the reply to *request*, which ends with *last*."""
    with socket.create_connection(("127.0.0.1", server.port), 10.0) as connection:
        connection.sendall(request)
        received = b""
        while not received.endswith(last):
            data = connection.recv(1 << 20)
            assert data, "the server closed the connection"
            received += data
        return received


def open_connections(server: Memcached) -> int:
    """Return the number of connections to *server*, with the one that asks."""
    found = re.search(rb"STAT curr_connections (\d+)", _ask(server, b"stats\r\n", b"END\r\n"))
    assert found is not None
    return int(found[1])


def leaked_connections(servers: Sequence[Memcached], alone: Sequence[int]) -> int:
    """Return how many more connections *servers* have than *alone*, before the storm. A real leak does not go away."""
    end = monotonic() + PATIENCE
    while True:
        leaked = sum(map(open_connections, servers)) - sum(alone)
        if leaked <= 0 or monotonic() > end:
            return leaked
        sleep(0.05)


def leases(server: Memcached, keys: Sequence[str]) -> list[str]:
    """Return those of *keys* that are placeholders of a lease on *server*."""
    found: list[str] = []
    for key in keys:
        reply = _ask(server, b"mg %b s f v k\r\nmn\r\n" % key.encode(), b"MN\r\n")
        if _is_lease(reply.partition(b"\r\n")[0]):
            found.append(key)
    return found
