"""A memcached without free connections, and the clients that occupy them."""

from __future__ import annotations

import contextlib
import socket
from typing import Final, final

from metacache.testing import Memcached

__all__ = ["FEW", "Crowd"]

# memcached derives its limit of open files from -c. With -c 2 it could not start.
FEW: Final = ("-c", "40", "-t", "1")
MOST: Final = 200


@final
class Crowd:
    """Clients that occupy all connections of a server."""

    def __init__(self, server: Memcached) -> None:
        self._server = server
        self._all: list[socket.socket] = []

    def fill(self) -> None:
        """Open connections until the server has none left."""
        while self._join():
            assert len(self._all) < MOST, "the server is never full"

    def _join(self) -> bool:
        sock = socket.create_connection(("127.0.0.1", self._server.port), 10.0)
        with contextlib.suppress(ConnectionResetError):
            sock.sendall(b"mn\r\n")
            if sock.recv(100) == b"MN\r\n":
                self._all.append(sock)
                return True
        sock.close()
        return False

    def leave(self, count: int = MOST) -> None:
        """Close *count* connections."""
        leaving, self._all = self._all[:count], self._all[count:]
        for sock in leaving:
            sock.close()
