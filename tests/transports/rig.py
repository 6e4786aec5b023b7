"""Helpers for blocking tests: a client of a scripted server, a common reply, and a check of elapsed time."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from time import monotonic
from typing import Final

from metacache import Client, Connection, Node, Settings
from tests.scripted import ScriptedServer

HIT: Final = (b"VA 5 f0", b"right")

PATIENT: Final = Settings(timeout=5.0)

IDLE: Final = 0.03  # seconds after which a connection is checked before it is used


def client_of(server: ScriptedServer | Node, settings: Settings = PATIENT) -> Client[bytes]:
    """Return a client with its own connection."""
    node = server if isinstance(server, Node) else server.node
    return Client(Connection(node, settings=settings), owns=True)


@contextmanager
def within(low: float, high: float) -> Generator[None]:
    """Check that the code inside takes between *low* and *high* seconds."""
    start = monotonic()
    yield
    taken = monotonic() - start
    assert low <= taken < high, f"it took {taken:.3f} seconds, not {low} to {high}"
