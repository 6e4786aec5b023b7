"""`dump`: streams the lines of ``lru_crawler metadump all`` from one node, over a connection of its own.

memcached hands the connection of a dump to another thread, so it is never one of a pool. Memory is bounded: only the
lines of one read are kept. While the caller does not read, the server waits.
"""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from typing import Final

from metacache.errors import ClientError, ConnectionLost, OperationTimeout, ProtocolError, ServerError
from metacache.nodes import Node
from metacache.protocol.replies import MAX_HEADER
from metacache.settings import Settings
from metacache.transports.blocking.stream import Stream

__all__ = ["dump"]

REQUEST: Final = b"lru_crawler metadump all\r\n"
# Seconds. Another dump, or the crawler's own search for expired items, makes the server busy.
BUSY_FOR: Final = 10.0
BUSY_PAUSE: Final = 0.2
END: Final = b"END"


def dump(node: Node, settings: Settings) -> Iterator[list[bytes]]:
    """Yield the lines of all items of *node*, many at a time.

    Raises ConnectError, AuthenticationError, ConnectionLost, OperationTimeout (nothing was received for
    ``settings.timeout``), ServerError (busy with another dump), ClientError (dumps are disabled) and ProtocolError.
    """
    give_up_at = time.monotonic() + BUSY_FOR
    while True:
        stream = Stream(node, settings)
        try:
            lines = _lines(stream, node, settings.timeout)
            first = next(lines)
            if not first or not first[0].startswith(b"BUSY"):
                yield first
                yield from lines
                return
        finally:
            stream.close()
        if time.monotonic() >= give_up_at:
            raise ServerError(
                "the server is busy with another crawl (lru_crawler); try again later",
                node=node.name,
                operation="keys",
            )
        time.sleep(BUSY_PAUSE)


def _lines(stream: Stream, node: Node, timeout: float) -> Iterator[list[bytes]]:
    stream.prepare(time.monotonic() + timeout)
    stream.write(memoryview(REQUEST))  # 26 bytes always fit into the buffer of a new socket
    poll = select.poll()
    poll.register(stream.fileno(), select.POLLIN)
    rest = b""
    while True:
        data = _receive(stream, poll, node, timeout)
        *lines, rest = (rest + data).replace(b"\r\n", b"\n").split(b"\n")
        if len(rest) > MAX_HEADER:
            raise ProtocolError("no end of line in a dump of keys", node=node.name, operation="keys")
        if lines and not lines[0].startswith(b"key=") and lines[0] != END:
            _check_refusal(lines[0], node)
        if END in lines[-1:]:
            yield lines[:-1]
            return
        if lines and lines[0].startswith(b"NOTSTARTED"):  # the server is empty
            yield []
            return
        yield lines


def _receive(stream: Stream, poll: select.poll, node: Node, timeout: float) -> bytes:
    while (data := stream.read_unparsed()) is None:
        if not poll.poll(timeout * 1000):
            raise OperationTimeout(
                f"the dump of keys stopped: nothing was received for {timeout:g} seconds",
                node=node.name,
                operation="keys",
            )
    if not data:
        raise ConnectionLost(
            "the server closed the connection before the end of the dump", node=node.name, operation="keys"
        )
    return data


def _check_refusal(line: bytes, node: Node) -> None:
    """Raise ClientError if *line* is an error line: dumps of keys are disabled, or a proxy does not know them."""
    if line.startswith((b"ERROR", b"CLIENT_ERROR", b"SERVER_ERROR")):
        raise ClientError(
            "the server refused to list its keys; is it a proxy, or started with -X or without its lru_crawler?",
            node=node.name,
            operation="keys",
        )
