"""What `get_or_compute` needs is made at its first use: one set of flights and counts, and none after a close."""

from __future__ import annotations

import pytest

import metacache.client.aio_caching as aio_caching
import metacache.client.blocking_caching as blocking_caching
from metacache import AsyncClient, AsyncConnection, Client, ClosedError, Connection, Node, Source
from metacache.client.core import Core
from metacache.nodes import MemoryAddress
from metacache.testing import MemoryServer
from metacache.transports.base import ASYNC_CLOSED, CLOSED


def memory_node() -> Node:
    return Node(MemoryAddress(MemoryServer()))


def test_views_made_before_and_after_the_first_use_share_the_flights_and_the_counts() -> None:
    with Client(Connection(memory_node()), owns=True) as client:
        early = client.with_options(prefix="early:")
        assert client._core.shared.made is None
        assert client.statistics.computations == {}
        assert early.get_or_compute("key", lambda: b"value") == b"value"
        late = client.with_options(prefix="late:")
        assert late.get_or_compute("key", lambda: b"value") == b"value"
        shared = client._core.shared.get()
        assert early._core.shared.get() is late._core.shared.get() is shared
        assert client.statistics.computations == {Source.COMPUTED: 2}
        assert client._caching is None, "only the views computed"


def test_a_client_that_another_thread_closes_meanwhile_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    with Connection(memory_node()) as connection:
        client = Client(connection)
        # pyright takes the T of a bare class for unknown.
        original = blocking_caching.BlockingCaching.__init__  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]

        def closing(self: blocking_caching.BlockingCaching[bytes], core: Core[bytes], *rest: object) -> None:
            original(self, core, *rest)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # as they came
            client._transport = CLOSED  # as `close` does, which finds no caching

        monkeypatch.setattr(blocking_caching.BlockingCaching, "__init__", closing)
        for _ in range(2):
            with pytest.raises(ClosedError):
                client.get_or_compute("key", lambda: b"value")


async def test_an_asyncio_client_that_another_thread_closes_meanwhile_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def factory() -> bytes:
        return b"value"

    async with AsyncConnection(memory_node()) as connection:
        client = AsyncClient(connection)
        # pyright takes the T of a bare class for unknown.
        original = aio_caching.AsyncCaching.__init__  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]

        def closing(self: aio_caching.AsyncCaching[bytes], core: Core[bytes], *rest: object) -> None:
            original(self, core, *rest)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # as they came
            client._transport = ASYNC_CLOSED  # as `aclose` does, which finds no caching

        monkeypatch.setattr(aio_caching.AsyncCaching, "__init__", closing)
        for _ in range(2):
            with pytest.raises(ClosedError):
                await client.get_or_compute("key", factory)
