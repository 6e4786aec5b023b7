"""`ServedMemory`: an embedded server on a real socket, in a thread of its own, for tests.

`private_server` starts a memcached, or this where memcached is not installed.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeAlias, final

from metacache.marks import override
from metacache.memory.serve import Listener
from metacache.memory.server import MemoryServer
from metacache.nodes import Node
from metacache.testing.memcached import Memcached, MemcachedNotFound

__all__ = ["PrivateServer", "ServedMemory", "private_server"]


@final
class ServedMemory:
    """An embedded server on a free loopback port or a unix socket. A thread serves it until `close`.

    Args:
        server: executes the requests; None: a new one. Its ``faults`` act on the sockets.
        unix: listen on a unix socket instead of a loopback port.

    ``url`` and ``node`` are its address. Raises OSError if it cannot listen.
    """

    def __init__(self, server: MemoryServer | None = None, *, unix: bool = False) -> None:
        self.server = server or MemoryServer()
        self._directory = tempfile.TemporaryDirectory(prefix="metacache-")
        path = str(Path(self._directory.name) / "memory.sock") if unix else None
        self._listener = Listener(self.server, unix=path)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="metacache-memory", daemon=True)
        self._thread.start()
        started: Future[None] = asyncio.run_coroutine_threadsafe(self._listener.start(), self._loop)
        try:
            started.result()
        except BaseException:
            self.close()
            raise

    def _run(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    @override
    def __repr__(self) -> str:
        return f"<ServedMemory {self.url}>"

    @property
    def kind(self) -> Literal["embedded"]:
        """What this server is; a `Memcached` is "memcached"."""
        return "embedded"

    @property
    def url(self) -> str:
        """The URL for `connect`."""
        return self._listener.url

    @property
    def node(self) -> Node:
        """The address, as a Node."""
        return Node(self.url.replace("memcached+unix://", "unix:").removeprefix("memcached://"))

    def close(self) -> None:
        """Close all connections and end the thread. Idempotent."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._listener.aclose(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._directory.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()


PrivateServer: TypeAlias = Memcached | ServedMemory


def private_server() -> PrivateServer:
    """Start a private memcached; where memcached is not installed, an embedded server that listens on loopback."""
    try:
        return Memcached()
    except MemcachedNotFound:
        return ServedMemory()
