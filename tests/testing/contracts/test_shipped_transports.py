"""Every transport that metacache ships keeps the contract of transports: over a socket, and in process."""

from __future__ import annotations

import time
from typing import TypeVar

from typing_extensions import override

from metacache import (
    AsyncCluster,
    AsyncConnection,
    AsyncPool,
    AsyncTransport,
    Batch,
    Cluster,
    Connection,
    Node,
    Operation,
    Pool,
    Replies,
    Settings,
    Transport,
)
from metacache.nodes import MemoryAddress
from metacache.testing import AsyncFakeTransport, AsyncTransportContract, FakeTransport, TransportContract

R = TypeVar("R")


class TestConnection(TransportContract):
    @override
    def transport(self, node: Node, settings: Settings) -> Transport:
        return Connection(node, settings=settings)


class TestPool(TransportContract):
    @override
    def transport(self, node: Node, settings: Settings) -> Transport:
        return Pool(node, settings=settings)


class TestCluster(TransportContract):
    @override
    def transport(self, node: Node, settings: Settings) -> Transport:
        return Cluster([node], settings=settings)


class TestAsyncConnection(AsyncTransportContract):
    @override
    def transport(self, node: Node, settings: Settings) -> AsyncTransport:
        return AsyncConnection(node, settings=settings)


class TestAsyncPool(AsyncTransportContract):
    @override
    def transport(self, node: Node, settings: Settings) -> AsyncTransport:
        return AsyncPool(node, settings=settings)


class TestAsyncCluster(AsyncTransportContract):
    @override
    def transport(self, node: Node, settings: Settings) -> AsyncTransport:
        return AsyncCluster([node], settings=settings)


class TestConnectionInProcess(TestConnection):
    in_process = True


class TestPoolInProcess(TestPool):
    in_process = True


class TestClusterInProcess(TestCluster):
    in_process = True


class TestAsyncConnectionInProcess(TestAsyncConnection):
    in_process = True


class TestAsyncPoolInProcess(TestAsyncPool):
    in_process = True


class TestAsyncClusterInProcess(TestAsyncCluster):
    in_process = True


class TestFake(TransportContract):
    in_process = True

    @override
    def transport(self, node: Node, settings: Settings) -> Transport:
        assert isinstance(node.address, MemoryAddress)
        return FakeTransport(node.address.server)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


class TestAsyncFake(AsyncTransportContract):
    in_process = True

    @override
    def transport(self, node: Node, settings: Settings) -> AsyncTransport:
        assert isinstance(node.address, MemoryAddress)
        return AsyncFakeTransport(node.address.server)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


class Timing:
    """A wrapper as a user writes it."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.seconds = 0.0

    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:
        began = time.perf_counter()
        try:
            return self._inner.run(op, deadline=deadline)
        finally:
            self.seconds += time.perf_counter() - began

    def run_batch(self, batch: Batch, /, *, deadline: float) -> Replies:
        return self._inner.run_batch(batch, deadline=deadline)

    def close(self) -> None:
        self._inner.close()


class TestAWrapper(TransportContract):
    @override
    def transport(self, node: Node, settings: Settings) -> Transport:
        return Timing(Pool(node, settings=settings))
