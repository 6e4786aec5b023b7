"""A server that sends exactly what the script of a test says: bytes, pieces of bytes, silence, FIN, RST.

Each accepted connection gets the next script, in its own thread, so blocking tests and asyncio tests use it in the
same way::

    def script(peer: Peer) -> None:
        peer.request().answer(b"VA 5 f0", b"hello")
        peer.expect_end()

    with ScriptedServer(script) as server: ...

The test fails at the end of the ``with`` if a script failed or did not end, or if a connection had no script.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import select
import socket
import ssl
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeAlias, final

from metacache.nodes import Node

__all__ = ["Asked", "Peer", "Script", "ScriptedServer", "answering", "in_turn", "silent"]

PATIENCE: Final = 10.0  # seconds after which a script that waits for bytes fails; much longer than any tested timeout

_size_of_ms = re.compile(rb"(?:ms \S+|set \S+ \d+ -?\d+) (\d+)").match
_opaque_of = re.compile(rb" (O\S*)").search


@final
class Asked:
    """One received request: its line without CRLF, its data block, its opaque (``b"O7"``, empty if it has none)."""

    def __init__(self, peer: Peer, line: bytes, body: bytes | None) -> None:
        self._peer = peer
        self.line = line
        self.body = body
        found = _opaque_of(line)
        self.opaque = found[1] if found else b""

    def reply(self, head: bytes, value: bytes | None = None) -> bytes:
        """Return the reply that begins with *head* and echoes the opaque, with *value* as its data block."""
        line = head + (b" " + self.opaque if self.opaque else b"") + b"\r\n"
        return line if value is None else line + value + b"\r\n"

    def answer(self, head: bytes, value: bytes | None = None) -> None:
        """Send `reply`."""
        self._peer.send(self.reply(head, value))


@final
class Peer:
    """The server's end of one connection, with the methods that a script uses."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        self.sock = sock
        self._arrived = b""

    # --- what the client sends -------------------------------------------------------------------------------------

    def expect(self, data: bytes) -> None:
        """Read *data*; fail if other bytes arrive."""
        found = self._take(len(data))
        assert found == data, f"expected {data!r}, the client sent {found!r}"

    def request(self) -> Asked:
        """Read one request, with its data block."""
        while b"\r\n" not in self._arrived:
            self._arrived += self._received()
        line, _, self._arrived = self._arrived.partition(b"\r\n")
        size = _size_of_ms(line)
        body = self._take(int(size[1]) + 2)[:-2] if size else None
        return Asked(self, line, body)

    def requests(self, count: int) -> list[Asked]:
        """Read *count* requests."""
        return [self.request() for _ in range(count)]

    def expect_end(self) -> None:
        """Read until the client closes the connection, by FIN or RST; fail if it sends something before."""
        with contextlib.suppress(ConnectionResetError, ssl.SSLError):
            rest = self.sock.recv(65536)
            assert not rest, f"expected the end of the connection, the client sent {rest!r}"

    def _take(self, size: int) -> bytes:
        pieces = [self._arrived]
        missing = size - len(self._arrived)
        while missing > 0:
            pieces.append(self._received())
            missing -= len(pieces[-1])
        arrived = b"".join(pieces)
        data, self._arrived = arrived[:size], arrived[size:]
        return data

    def _received(self) -> bytes:
        data = self.sock.recv(65536)
        assert data, "the client ended the connection while the script waited for a request"
        return data

    # --- what the server sends -------------------------------------------------------------------------------------

    def send(self, data: bytes, *, chunks: Iterable[int] | None = None, delay: float = 0.0) -> None:
        """Send *data* in pieces, cut at the offsets *chunks*, with *delay* seconds between them."""
        edges = [0, *sorted(chunks or ()), len(data)]
        for start, stop in itertools.pairwise(edges):
            self.sock.sendall(data[start:stop])
            if delay and stop < len(data):
                time.sleep(delay)

    def fin(self) -> None:
        """Close the connection in order: the client reads all that was sent, and then the end of the stream."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
        self.sock.close()

    def rst(self) -> None:
        """Reset the connection (RST)."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


Script: TypeAlias = Callable[[Peer], object]


def silent(peer: Peer) -> None:
    """Read everything and send nothing until the client closes the connection."""
    with contextlib.suppress(ConnectionResetError):
        while peer.sock.recv(65536):
            pass


def answering(*answers: tuple[bytes, bytes | None]) -> Script:
    """Return a script that replies to one request with each of *answers* (head, value), and then waits for the end."""

    def script(peer: Peer) -> None:
        for head, value in answers:
            peer.request().answer(head, value)
        peer.expect_end()

    return script


def in_turn(*steps: Script) -> Script:
    """Return a script that runs the given scripts one after another."""

    def script(peer: Peer) -> None:
        for step in steps:
            step(peer)

    return script


@final
class ScriptedServer:
    """Accepts connections and runs one of *scripts* for each, in order.

    Args:
        scripts: the script of the first connection, of the second, …
        host: the loopback address to listen on (``"::1"``); unix: listen on a unix socket instead.
        tls: use TLS with this context.

    ``node`` is its address. ``accepted`` is the number of connections. The end of the ``with`` ends the server, and
    raises if a script failed.
    """

    def __init__(
        self, *scripts: Script, host: str = "127.0.0.1", unix: bool = False, tls: ssl.SSLContext | None = None
    ) -> None:
        self._scripts = list(scripts)
        self._tls = tls
        self._directory = tempfile.TemporaryDirectory(prefix="metacache-") if unix else None
        self._listener = self._listen(host)
        self.node = self._node()
        self.accepted = 0
        self._failures: list[BaseException] = []
        self._peers: list[Peer] = []
        self._players: list[threading.Thread] = []
        self._ended, self._end = socket.socketpair()
        self._acceptor = threading.Thread(target=self._accept, name="scripted-accept", daemon=True)
        self._acceptor.start()

    def _listen(self, host: str) -> socket.socket:
        if self._directory is not None:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(Path(self._directory.name) / "sock"))
            listener.listen()
            return listener
        # Looked up, because `create_server` drops a zone (fe80::1%eth0).
        family, _, _, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family)

    def _node(self) -> Node:
        name = self._listener.getsockname()
        if isinstance(name, str):
            return Node(f"unix:{name}")
        host, port = name[:2]
        return Node(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")

    @property
    def port(self) -> int:
        """The TCP port."""
        return int(self._listener.getsockname()[1])

    def drop_scripts(self) -> None:
        """Let the test end although some scripts were not played."""
        self._scripts.clear()

    # --- the threads -----------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        while True:
            ready, _, _ = select.select([self._listener, self._ended], [], [])
            if self._listener not in ready:  # connections from before the end still get their scripts
                return
            sock, _ = self._listener.accept()
            self.accepted += 1
            if not self._scripts:
                self._failures.append(AssertionError(f"there is no script for connection {self.accepted}"))
                sock.close()
                continue
            player = threading.Thread(target=self._play, args=(self._scripts.pop(0), sock), daemon=True)
            self._players.append(player)
            player.start()

    def _play(self, script: Script, sock: socket.socket) -> None:
        try:
            if self._tls is not None:
                sock.settimeout(PATIENCE)
                sock = self._tls.wrap_socket(sock, server_side=True)
            peer = Peer(sock)
            self._peers.append(peer)
            script(peer)
        except BaseException as failure:
            self._failures.append(failure)
            sock.close()

    # --- the end ---------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._stop()
        if self._failures and error is None:
            raise self._failures[0]

    def _stop(self) -> None:
        """Wait for the scripts to end, then close their connections."""
        self._end.close()
        self._acceptor.join(PATIENCE)
        self._ended.close()
        self._listener.close()
        for player in self._players:
            player.join(PATIENCE)
            if player.is_alive():
                self._failures.append(AssertionError("a script did not come to its end"))
        for peer in self._peers:
            peer.sock.close()
        if self._scripts:
            self._failures.append(AssertionError(f"{len(self._scripts)} scripts were never played"))
        if self._directory is not None:
            self._directory.cleanup()
