"""`Fleet`: the servers of a storm, with TLS or without, and what is left on them afterwards."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, final

import attrs

from metacache import Node, Settings
from metacache.testing import Memcached
from storms.raw import leaked_connections, leases, open_connections
from tests.certificates import options_of_a_server, trusting

__all__ = ["SETTINGS", "Fleet", "fleet", "has_tls"]

SERVERS: Final = 5
SETTINGS: Final = Settings(timeout=0.5, connect_timeout=0.5, pool_size=8, max_reply_size=1 << 20)
# On a busy machine, many handshakes at the same time take longer than one operation may.
HANDSHAKE: Final = 5.0  # seconds


@final
@attrs.frozen
class Fleet:
    """Servers, and the settings for their clients. *alone* are the connections of each server before the storm."""

    servers: Sequence[Memcached]
    settings: Settings
    alone: Sequence[int]

    @property
    def nodes(self) -> list[Node]:
        """The nodes of all servers."""
        return [server.node for server in self.servers]

    def leaked_connections(self) -> int:
        """Return how many more connections the servers have than before the storm."""
        return leaked_connections(self.servers, self.alone, self.settings.tls)

    def leases(self, keys: Sequence[str]) -> int:
        """Return how many placeholders of leases the servers have at *keys*."""
        return sum(len(leases(server, keys, self.settings.tls)) for server in self.servers)


@contextmanager
def fleet(*, is_tls: bool) -> Generator[Fleet]:
    """Start the servers, and end them after the block."""
    with ExitStack() as stack:
        where = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="storms-")))
        settings = attrs.evolve(SETTINGS, tls=trusting(), connect_timeout=HANDSHAKE) if is_tls else SETTINGS
        options = options_of_a_server(where) if is_tls else ()
        servers = [stack.enter_context(Memcached(["-m", "64", *options])) for _ in range(SERVERS)]
        alone = [open_connections(server, settings.tls) for server in servers]
        yield Fleet(servers, settings, alone)


def has_tls() -> bool:
    """Return whether the memcached on this machine can use TLS."""
    with tempfile.TemporaryDirectory(prefix="storms-") as where:
        try:
            Memcached(options_of_a_server(Path(where))).close()
        except RuntimeError:
            return False
    return True
