"""Helpers for the caching tests: one body for both clients, on a real memcached or on the fake, and raw requests.

A test is written once, for `AsyncClient`. Its factories and gates are coroutines, which a blocking client runs in
threads.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol, TypeAlias, TypeVar, cast, final

from typing_extensions import Unpack

from metacache import AsyncClient, AsyncPool, Batch, Client, ClientOptions, Node, Operation, Pool, Serializer, Settings
from metacache.protocol.windows import Replies
from metacache.serializers import StrSerializer
from metacache.testing import AsyncFakeTransport, FakeServer, FakeTransport
from metacache.transports.base import AsyncTransport, Transport
from metacache.transports.blocking.driver import drive
from tests.client.rig import Shaped

__all__ = ["PATIENT", "Gate", "Rig", "Wire", "fake_wire", "real_wire"]

R = TypeVar("R")
T = TypeVar("T")

PATIENT: Final = Settings(timeout=10.0, connect_timeout=10.0, pool_size=64)
THREADS: Final = 128  # that calls may run in at the same time
PATIENCE: Final = 10.0  # seconds after which a gate that stays closed fails its test

Wire: TypeAlias = Callable[[bytes], bytes]
"""Sends requests and returns the replies, as bytes."""

Call: TypeAlias = Callable[[], Coroutine[Any, Any, R]]  # Any: a coroutine yields nothing that tests use


def real_wire(node: Node) -> Wire:
    """Return the wire of a real server; each call has a connection of its own."""

    def send(data: bytes) -> bytes:
        host, _, port = str(node).rpartition(":")
        with socket.create_connection((host, int(port)), PATIENCE) as sock:
            sock.sendall(data + b"mn\r\n")
            received = b""
            while not received.endswith(b"MN\r\n"):
                more = sock.recv(65536)
                assert more, "the server closed the connection"
                received += more
        return received.removesuffix(b"MN\r\n")

    return send


def fake_wire(server: FakeServer) -> Wire:
    """Return the wire of a fake server."""
    return server.answer


class Gate(Protocol):
    """Closed until a test opens it."""

    def open(self) -> None: ...
    async def wait(self) -> None: ...


@final
class _ThreadGate:
    def __init__(self) -> None:
        self._event = threading.Event()

    def open(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        assert self._event.wait(PATIENCE), "the gate stayed closed"


@final
class _TaskGate:
    def __init__(self) -> None:
        self._event = asyncio.Event()

    def open(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        await asyncio.wait_for(self._event.wait(), PATIENCE)


Hook: TypeAlias = Callable[[int, str], object]
"""Called before or after each operation with its number, from 0, and its head or the name of its batch."""


@final
class _Hooked:
    """A transport that calls a hook before it forwards, and one after the reply."""

    def __init__(self, inner: Transport) -> None:
        self.inner = inner
        self.hook: Hook | None = None
        self.after: Hook | None = None
        self.count = 0

    def before(self, head: str) -> int:
        number, self.count = self.count, self.count + 1
        if self.hook is not None:
            self.hook(number, head)
        return number

    def end(self, number: int, head: str) -> None:
        if self.after is not None:
            self.after(number, head)

    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:
        head = op.head.decode(errors="replace")
        number = self.before(head)
        result = self.inner.run(op, deadline=deadline)
        self.end(number, head)
        return result

    def run_batch(self, batch: Batch, /, *, deadline: float) -> Replies:
        number = self.before(batch.verb.name)
        replies = self.inner.run_batch(batch, deadline=deadline)
        self.end(number, batch.verb.name)
        return replies

    def close(self) -> None:
        self.inner.close()


@final
class _AsyncHooked:
    def __init__(self, inner: AsyncTransport) -> None:
        self.inner = inner
        self.hook: Hook | None = None
        self.after: Hook | None = None
        self.count = 0

    def before(self, head: str) -> int:
        number, self.count = self.count, self.count + 1
        if self.hook is not None:
            self.hook(number, head)
        return number

    def end(self, number: int, head: str) -> None:
        if self.after is not None:
            self.after(number, head)

    async def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:
        head = op.head.decode(errors="replace")
        number = self.before(head)
        result = await self.inner.run(op, deadline=deadline)
        self.end(number, head)
        return result

    async def run_batch(self, batch: Batch, /, *, deadline: float) -> Replies:
        number = self.before(batch.verb.name)
        replies = await self.inner.run_batch(batch, deadline=deadline)
        self.end(number, batch.verb.name)
        return replies

    async def aclose(self) -> None:
        await self.inner.aclose()


def run_to_end(call: Awaitable[R]) -> Any:  # Any: R, where the type of an AsyncClient wants an Awaitable[R]
    """Return the result of a coroutine that waits in the thread."""
    return drive(cast("Coroutine[Any, Any, R]", call))  # Any: as in Call


@final
class Rig:
    """Clients of one kind on one server.

    Attributes:
        wire: sends raw requests to the server.
        is_blocking: the clients are blocking ones.
    """

    def __init__(self, kind: str, where: Node | FakeServer, settings: Settings = PATIENT) -> None:
        self.is_blocking = kind == "blocking"
        self._threads = ThreadPoolExecutor(THREADS)
        self.wire = fake_wire(where) if isinstance(where, FakeServer) else real_wire(where)
        if self.is_blocking:
            inner = FakeTransport(where) if isinstance(where, FakeServer) else Pool(where, settings=settings)
            self.transport: _Hooked | _AsyncHooked = _Hooked(inner)
        else:
            self.transport = _AsyncHooked(
                AsyncFakeTransport(where) if isinstance(where, FakeServer) else AsyncPool(where, settings=settings)
            )

    def make(self, serializer: Serializer[T], **options: Unpack[ClientOptions]) -> AsyncClient[T]:
        """Return a client with *serializer*."""
        if isinstance(self.transport, _AsyncHooked):
            return AsyncClient(self.transport, serializer, **options)
        # It has the methods of an AsyncClient but another class: that is the purpose of the adapter.
        return cast("AsyncClient[T]", Shaped(Client(self.transport, serializer, **options)))

    def texts(self, **options: Unpack[ClientOptions]) -> AsyncClient[str]:
        """Return a client of str."""
        return self.make(StrSerializer(), **options)

    def factory(self, make: Callable[[], Awaitable[R]]) -> Callable[[], Awaitable[R]]:
        """Return *make* as the clients take factories: a blocking one runs it to its end."""
        if not self.is_blocking:
            return make
        return lambda: run_to_end(make())

    def many_factory(self, make: Callable[[Any], Awaitable[R]]) -> Callable[[Any], Awaitable[R]]:  # Any: keys
        """Return *make* as the clients take the factories of `get_or_compute_many`."""
        if not self.is_blocking:
            return make
        return lambda keys: run_to_end(make(keys))

    def gate(self) -> Gate:
        """Return a closed gate."""
        return _ThreadGate() if self.is_blocking else _TaskGate()

    def start(self, call: Call[R]) -> asyncio.Task[R]:
        """Run *call* beside the test: in a thread, or in a task."""
        if self.is_blocking:
            return asyncio.get_running_loop().create_task(self._in_thread(call))
        return asyncio.get_running_loop().create_task(call())

    async def _in_thread(self, call: Call[R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: drive(call()))

    async def together(self, calls: list[Call[R]]) -> list[R | BaseException]:
        """Run all *calls* at the same time; return their results and exceptions."""
        return await asyncio.gather(*map(self.start, calls), return_exceptions=True)

    async def sleep(self, seconds: float) -> None:
        """Wait, in a factory."""
        if self.is_blocking:
            threading.Event().wait(seconds)
        else:
            await asyncio.sleep(seconds)

    def remaining(self, key: str) -> tuple[bytes | None, str, int]:
        """Return the value of *key* on the server, its marks (X, Z, W, in this order), and its TTL (-1: none)."""
        head, _, rest = self.wire(f"mg {key} v t\r\n".encode()).partition(b"\r\n")
        if head == b"EN":
            return None, "", 0
        tokens = head.split()
        marks = "".join(mark for mark in "XZW" if mark.encode() in tokens)
        return rest[:-2], marks, int(tokens[2][1:])

    async def close_transport(self) -> None:
        """Close the transport."""
        if isinstance(self.transport, _AsyncHooked):
            await self.transport.aclose()
        else:
            self.transport.close()

    async def aclose(self) -> None:
        """Close the transport and end the threads."""
        await self.close_transport()
        self._threads.shutdown()
