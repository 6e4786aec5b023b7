"""A minimal multiplexing client with asyncio's futures, as a lower bound for the cost of real clients.

It checks no key, sends no opaque, and has no timeout and no error handling. A value with CRLF looks like two replies.
"""

from __future__ import annotations

import asyncio
from typing import cast, final

from typing_extensions import override

__all__ = ["BareConnection"]


@final
class BareConnection(asyncio.Protocol):
    """One connection. It sends the requests of one event loop iteration together."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: list[asyncio.Future[bytes | None]] = []
        self._requests: list[bytes] = []
        self._rest = b""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        # cast: the transports of uvloop are not subclasses of asyncio.Transport.
        self._transport = cast("asyncio.Transport", transport)

    def get(self, key: bytes) -> asyncio.Future[bytes | None]:
        """Return a future for the value of *key*."""
        if not self._requests:
            self._loop.call_soon(self._flush)
        future: asyncio.Future[bytes | None] = self._loop.create_future()
        self._requests.append(b"mg %b v\r\n" % key)
        self._waiting.append(future)
        return future

    def _flush(self) -> None:
        self._transport.write(b"".join(self._requests))
        self._requests.clear()

    @override
    def data_received(self, data: bytes) -> None:
        """Resolve the futures of the replies in *data*, in the order of the requests."""
        lines = (self._rest + data).split(b"\r\n")
        at = answered = 0
        while at < len(lines) - 1:
            is_value = lines[at].startswith(b"VA")
            if at + is_value >= len(lines) - 1:
                break  # the value has not arrived yet
            self._waiting[answered].set_result(lines[at + 1] if is_value else None)
            answered += 1
            at += 1 + is_value
        del self._waiting[:answered]
        self._rest = b"\r\n".join(lines[at:])

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()
