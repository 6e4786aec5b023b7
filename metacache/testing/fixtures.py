"""What the fixtures of the pytest plugin consist of: the private server of a run, and an embedded server of a test."""

from __future__ import annotations

import itertools
import os
from types import TracebackType
from typing import Final, Self, final

from metacache.cluster.blocking import Cluster
from metacache.errors import MetacacheError
from metacache.marks import override
from metacache.memory.registry import forget_server, server_named
from metacache.settings import Settings
from metacache.testing.clock import MovableClock
from metacache.testing.memcached import Memcached
from metacache.testing.served import PrivateServer, ServedMemory, private_server

__all__ = ["EmbeddedServer", "make_ready", "start_server"]

_PATIENT: Final = Settings(timeout=5.0, connect_timeout=5.0)
_numbers: Final = itertools.count(1)


def start_server(choice: str) -> PrivateServer:
    """Start a memcached (*choice* is ``memcached``), an embedded server (``embedded``), or what there is (``auto``).

    Raises MemcachedNotFound if memcached is required and not installed.
    """
    if choice == "auto":
        return private_server()
    return Memcached() if choice == "memcached" else ServedMemory()


def make_ready(server: PrivateServer) -> None:
    """Delete all items and disarm all faults. Restart a memcached that a test left frozen or killed."""
    if isinstance(server, ServedMemory):
        server.server.faults.clear()
        server.server.answer(b"flush_all\r\n")
    elif not _flush(server):
        server.restart()


def _flush(server: Memcached) -> bool:
    """Return whether *server* runs and has deleted all of its items."""
    if not server.is_running:
        return False
    server.thaw()
    with Cluster([server.node], settings=_PATIENT) as cluster:
        return not any(isinstance(result, MetacacheError) for result in cluster.flush_all().values())


@final
class EmbeddedServer:
    """An embedded server behind a ``memory://`` URL of its own, with a clock that can be moved."""

    def __init__(self) -> None:
        self._name = f"pytest-{os.getpid()}-{next(_numbers)}"
        self.clock = MovableClock()
        self.server = server_named(self._name)
        self.server.clock = self.clock
        self._served: ServedMemory | None = None

    @override
    def __repr__(self) -> str:
        return f"<EmbeddedServer {self.url}>"

    @property
    def url(self) -> str:
        """The URL for clients in this process."""
        return f"memory://{self._name}"

    def listen(self) -> str:
        """Listen on a free loopback port; return its URL."""
        self._served = self._served or ServedMemory(self.server)
        return self._served.url

    def close(self) -> None:
        """Stop listening and forget the name. Idempotent."""
        if self._served is not None:
            self._served.close()
        forget_server(self._name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()
