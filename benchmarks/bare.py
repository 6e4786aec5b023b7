"""The least that can be called a multiplexing client, with asyncio's own futures: for scale beside real ones.

It checks no key, sends no opaque, knows no deadline and no error, and takes a value that holds CRLF for two replies.
"""

from __future__ import annotations

import asyncio
from typing import cast, final

from typing_extensions import override

__all__ = ["BareConnection"]


@final
class BareConnection(asyncio.Protocol):
    """One connection, whose requests of one turn of the loop leave together."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: list[asyncio.Future[bytes | None]] = []
        self._requests: list[bytes] = []
        self._rest = b""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass of asyncio's

    def get(self, key: bytes) -> asyncio.Future[bytes | None]:
        """Return the future value of *key*."""
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
        """Give what came, in order, to those who wait."""
        lines = (self._rest + data).split(b"\r\n")
        at = answered = 0
        while at < len(lines) - 1:
            is_value = lines[at].startswith(b"VA")
            if at + is_value >= len(lines) - 1:
                break  # the value has not come yet
            self._waiting[answered].set_result(lines[at + 1] if is_value else None)
            answered += 1
            at += 1 + is_value
        del self._waiting[:answered]
        self._rest = b"\r\n".join(lines[at:])

    def close(self) -> None:
        """Close it."""
        self._transport.close()
