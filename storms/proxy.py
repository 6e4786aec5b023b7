"""`CuttingProxy`: a TCP proxy before one server that ends each connection after a random number of bytes.

The bytes of both directions count. Some connections end with FIN, others with RST. It notes every complete request line
of a client, so a request that was sent twice is seen.
"""

from __future__ import annotations

import asyncio
import random
import re
import threading
from collections import Counter
from types import TracebackType
from typing import Final, Self, final

__all__ = ["CuttingProxy"]

BUDGET: Final = (1, 3_000)  # bytes of a connection
STEP: Final = 60.0  # seconds to start and to stop

_requests = re.compile(rb"^(ma|ms|md) ([^ \r\n]+)[^\r\n]*\r\n", re.MULTILINE).findall


@final
class CuttingProxy:
    """Listens on a free loopback port and forwards to *port*, in a thread of its own, until `close`.

    Attributes:
        port: where it listens.
        seen: the complete lines of writing requests that arrived, by command and key.
        connections: connections that it ended.
    """

    def __init__(self, port: int, chance: random.Random) -> None:
        self._target = port
        self._chance = chance
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop
        ).result(STEP)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.seen: Counter[tuple[bytes, bytes]] = Counter()
        self.connections = 0

    def close(self) -> None:
        """End all connections and the thread."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(STEP)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()

    async def _end(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
        budget = _Budget(self._chance.randint(*BUDGET))
        pumps = [
            asyncio.create_task(self._pump(reader, server_writer, budget, is_request=True)),
            asyncio.create_task(self._pump(server_reader, writer, budget, is_request=False)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for each in (writer, server_writer):
                if self._chance.random() < 0.5:
                    each.transport.abort()
                else:
                    each.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, budget: _Budget, *, is_request: bool
    ) -> None:
        """Forward bytes until the budget of the connection is used."""
        partial = b""
        while data := await reader.read(65536):
            if is_request:
                partial += data
                end = partial.rfind(b"\n") + 1
                self.seen.update(_requests(partial[:end]))
                partial = partial[end:]
            writer.write(data[: budget.take(len(data))])
            await writer.drain()
            if not budget.left:
                return


@final
class _Budget:
    """The bytes that a connection may still carry."""

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self, count: int) -> int:
        """Return how many of *count* bytes may pass, and use them up."""
        taken = min(count, self.left)
        self.left -= taken
        return taken
