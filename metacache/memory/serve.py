"""Serve an embedded server on a TCP port or a unix socket, with asyncio.

It carries bytes and the steps of faults between sockets and the sessions of a `MemoryServer`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final, final

from metacache.errors import InvalidArgumentError
from metacache.marks import override
from metacache.memory.server import MemoryServer
from metacache.sessions import Ending, Pause, Step

__all__ = ["Listener"]

READ: Final = 65536  # bytes of one read
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER with 0 seconds: close() sends RST


@final
class Listener:
    """Listens for one `MemoryServer`, in one event loop.

    Args:
        server: executes the requests.
        host: the address to listen on.
        port: the TCP port; 0: a free one.
        unix: the path of a unix socket to listen on instead. A stale socket file there is replaced.
    """

    def __init__(
        self, server: MemoryServer, *, host: str = "127.0.0.1", port: int = 0, unix: str | None = None
    ) -> None:
        self._server = server
        self._host = host
        self._port = port
        self._unix = unix
        self._listening: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @override
    def __repr__(self) -> str:
        return f"<Listener {self.url}: {len(self._connections)} connections>"

    @property
    def url(self) -> str:
        """The URL for `connect`."""
        if self._unix is not None:
            return f"memcached+unix://{self._unix}"
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"memcached://{host}:{self._port}"

    async def start(self) -> None:
        """Listen. Raises OSError if the address is in use or cannot be used, InvalidArgumentError for a used path."""
        if self._unix is None:
            self._listening = await asyncio.start_server(self._accept, self._host, self._port)
            self._port = self._listening.sockets[0].getsockname()[1]
            return
        if _is_answered(self._unix):
            raise InvalidArgumentError(f"a server listens on {self._unix} already")
        self._listening = await asyncio.start_unix_server(self._accept, self._unix)

    async def aclose(self) -> None:
        """Stop listening, and close all connections. Idempotent."""
        listening, self._listening = self._listening, None
        if listening is None:
            return
        listening.close()
        for connection in tuple(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await listening.wait_closed()
        if self._unix is not None:
            Path(self._unix).unlink(missing_ok=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "asyncio calls this in a task"
        self._connections.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._converse(reader, writer)
        finally:
            self._connections.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = self._server.open()
        try:
            while data := await reader.read(READ):
                counts = self._server.store.counts
                counts.bytes_read += len(data)
                replied = session.receive(data)
                steps: list[Step] = [replied] if isinstance(replied, bytes) else replied
                counts.bytes_written += sum(len(step) for step in steps if isinstance(step, bytes))
                if not await _send(steps, writer):
                    return
        finally:
            session.close()


async def _send(steps: Sequence[Step], writer: asyncio.StreamWriter) -> bool:
    """Carry out *steps*; return False when the connection has ended."""
    for step in steps:
        if isinstance(step, bytes):
            writer.write(step)
            await writer.drain()
        elif isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
        elif step is Ending.SILENCE:
            await asyncio.get_running_loop().create_future()  # until the listener closes
        else:
            _end(writer, step)
            return False
    return True


def _end(writer: asyncio.StreamWriter, ending: Ending) -> None:
    sock: socket.socket | None = writer.get_extra_info("socket")
    if ending is Ending.RESET and sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()
    else:
        writer.close()


def _is_answered(path: str) -> bool:
    """Return whether a server accepts connections on the unix socket *path*."""
    with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(OSError):
        sock.connect(path)
        return True
    return False
