"""What the transports and the embedded server share: a session with a server in this process, and the steps of a reply.

A session takes bytes and returns bytes. Only a fault script returns more than bytes: pauses, and the end of the
connection. The transports wait for the pauses and close. This module opens no socket and reads no clock.
"""

from __future__ import annotations

import enum
from typing import Protocol, TypeAlias, final

import attrs

__all__ = ["Ending", "LocalServer", "Pause", "Session", "Step"]


@final
@attrs.frozen
class Pause:
    """A number of seconds for which the server waits before the next step."""

    seconds: float


@final
class Ending(enum.Enum):
    """How a server ends a connection."""

    CLOSE = "close"
    """The server closes the connection after the bytes before it (FIN)."""
    RESET = "reset"
    """The server resets the connection (RST)."""
    SILENCE = "silence"
    """The server reads and sends nothing more, and leaves the connection open."""


Step: TypeAlias = bytes | Pause | Ending


class Session(Protocol):
    """One connection to a server in this process."""

    def receive(self, data: bytes | memoryview, /) -> bytes | list[Step]:
        """Execute the complete requests in *data* and in earlier bytes; return the replies, or the steps of a fault."""
        ...

    def close(self) -> None:
        """End the session. Idempotent."""
        ...


class LocalServer(Protocol):
    """A server in this process, to which transports open sessions instead of sockets."""

    @property
    def name(self) -> str:
        """The name in ``memory://name``; empty for a private server."""
        ...

    def open(self) -> Session:
        """Return a new session."""
        ...
