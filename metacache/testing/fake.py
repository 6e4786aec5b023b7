"""A fake memcached in memory, and two transports that use it, for tests without a server and without a network.

The fake is the embedded server behind ``memory://``, and a transport is a connection to it that records its operations.
"""

from __future__ import annotations

import asyncio
from typing import TypeVar, final

from metacache.errors import ClosedError
from metacache.marks import override
from metacache.memory.server import MemoryServer
from metacache.nodes import MemoryAddress, Node
from metacache.pool.blocking import Pool
from metacache.protocol.windows import Replies
from metacache.transports.base import Batch, Operation

__all__ = ["AsyncFakeTransport", "FakeServer", "FakeTransport"]

R = TypeVar("R")

FakeServer = MemoryServer


@final
class FakeTransport:
    """A Transport for a FakeServer: ``Client(FakeTransport(), serializer)`` behaves as with a real server.

    Attributes:
        server: the FakeServer: the one that was passed, which other transports may use too, or a new one.
        operations: the names of the operations and batches that were run, in order.
    """

    def __init__(self, server: FakeServer | None = None) -> None:
        self.server = server or FakeServer()
        self.operations: list[str] = []
        self._pool = Pool(Node(MemoryAddress(self.server), name="fake"))
        self._is_closed = False

    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:
        """Run *op*; return its result. Raises ClosedError, and the errors in the replies of the server."""
        self._record(op.verb.name)
        return self._pool.run(op, deadline=deadline)

    def run_batch(self, batch: Batch, /, *, deadline: float) -> Replies:
        """Run *batch*; return its replies and errors. Raises ClosedError."""
        self._record(batch.verb.name)
        return self._pool.run_batch(batch, deadline=deadline)

    def close(self) -> None:
        """Close the transport: later operations raise ClosedError. Idempotent."""
        self._is_closed = True
        self._pool.close()

    @override
    def __repr__(self) -> str:
        return f"<FakeTransport: {len(self.operations)} operations>"

    def _record(self, name: str) -> None:
        if self._is_closed:
            raise ClosedError("the transport is closed", node="fake", operation=name)
        self.operations.append(name)


@final
class AsyncFakeTransport:
    """An AsyncTransport for a FakeServer: ``AsyncClient(AsyncFakeTransport(), serializer)``, in every event loop.

    ``server`` and ``operations`` are as in `FakeTransport`. The server executes a request when the call is awaited.
    Then the event loop runs the other tasks for one iteration before the call returns. So tests see races between
    tasks, and a cancelled call may have been applied.
    """

    def __init__(self, server: FakeServer | None = None) -> None:
        self._inner = FakeTransport(server)
        self.server = self._inner.server
        self.operations = self._inner.operations

    async def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:
        """Run *op*; return its result. Raises ClosedError, and the errors in the replies of the server."""
        try:
            return self._inner.run(op, deadline=deadline)
        finally:
            await asyncio.sleep(0)

    async def run_batch(self, batch: Batch, /, *, deadline: float) -> Replies:
        """Run *batch*; return its replies and errors. Raises ClosedError."""
        try:
            return self._inner.run_batch(batch, deadline=deadline)
        finally:
            await asyncio.sleep(0)

    async def aclose(self) -> None:
        """Close the transport: later operations raise ClosedError. Idempotent."""
        self._inner.close()

    @override
    def __repr__(self) -> str:
        return f"<AsyncFakeTransport: {len(self.operations)} operations>"
