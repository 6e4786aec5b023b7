"""A memcached without a free connection: calls fail with a hint, open connections work, and new ones follow later."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import attrs
import pytest

from metacache import (
    AsyncClient,
    AsyncCluster,
    AsyncPool,
    BatchError,
    ConnectError,
    NodeDownError,
    NodeState,
)
from metacache.testing import Memcached
from tests.conftest import start
from tests.full_server import FEW, Crowd
from tests.transports.aio_rig import PATIENT, client_of, nothing_left, settled, until

HINT: Final = (
    r"free connections? \(-c\)"  # from the server's error line, or the client's hint when the server only closes
)


@asynccontextmanager
async def full() -> AsyncGenerator[tuple[Memcached, Crowd]]:
    """Yield a full server and the sockets that fill it; check that nothing leaks."""
    async with nothing_left():
        with start(*FEW) as server:
            crowd = Crowd(server)
            try:
                crowd.fill()
                yield server, crowd
            finally:
                crowd.leave()


async def first_stored(client: AsyncClient[bytes]) -> None:
    """Wait until the server has noticed that there is room."""
    async with asyncio.timeout(10.0):
        while True:
            with contextlib.suppress(ConnectError, NodeDownError):  # a cluster takes it for down after three
                assert await client.set("key", b"v")
                return
            await asyncio.sleep(0.01)


@pytest.mark.both_loops
async def test_a_full_server_is_a_connect_error_with_the_hint_and_is_used_when_there_is_room() -> None:
    async with full() as (server, crowd), client_of(server.node) as client:
        with pytest.raises(ConnectError, match=HINT) as read:
            await client.get("key")
        with pytest.raises(ConnectError, match=HINT) as written:
            await client.set("key", b"v")
        with pytest.raises(BatchError) as batch:
            await client.set_many({"key": b"v"})
        for error in (read.value, written.value, *batch.value.errors.values()):
            assert isinstance(error, ConnectError)
            assert error.node == server.node.name
            assert not error.maybe_applied
        crowd.leave()
        await first_stored(client)
        assert await client.get_many(["key", "none"]) == {"key": b"v"}


async def each_in_flight(
    pool: AsyncPool, client: AsyncClient[bytes], server: Memcached
) -> list[asyncio.Task[bytes | None]]:
    """Make three requests, each when the one before is sent, so that each uses a connection of its own."""
    server.freeze()
    calls: list[asyncio.Task[bytes | None]] = []
    for _ in range(3):
        calls.append(asyncio.create_task(client.get("key")))
        await asyncio.sleep(0)
        await until(lambda: pool.statistics.waiting == 0)
    server.thaw()
    return calls


@pytest.mark.both_loops
async def test_a_pool_that_gets_no_further_connection_uses_the_one_it_has() -> None:
    settings = attrs.evolve(PATIENT, pool_size=4, max_pipeline=1)
    async with full() as (server, crowd), AsyncPool(server.node, settings=settings) as pool:
        client = AsyncClient(pool)
        crowd.leave(1)
        await first_stored(client)
        found = await settled(*await each_in_flight(pool, client, server))
        assert found.count(b"v") == 1
        assert [type(each) for each in found].count(ConnectError) == 2
        for _ in range(3):
            assert await settled(*await each_in_flight(pool, client, server)) == [b"v"] * 3
        assert pool.statistics.in_use == 0
        crowd.leave()
        async with asyncio.timeout(10.0):
            while pool.statistics.idle < 3:  # connections whose dial failed are dialled again after a while
                assert await settled(*await each_in_flight(pool, client, server)) == [b"v"] * 3
        assert pool.statistics.idle == 3


@pytest.mark.both_loops
async def test_a_full_server_is_down_after_three_refusals_as_for_the_blocking_cluster() -> None:
    async with full() as (server, _), AsyncCluster([server.node], settings=PATIENT) as cluster:
        client = cluster.client()
        for _ in range(3):
            with pytest.raises(ConnectError):
                await client.get("key")
        assert cluster.states[server.node] is NodeState.DOWN
        with pytest.raises(NodeDownError):
            await client.get("key")


@pytest.mark.both_loops
async def test_a_pool_does_not_choose_a_connection_whose_dial_just_failed() -> None:
    settings = attrs.evolve(PATIENT, pool_size=4, max_pipeline=1)
    async with full() as (server, crowd), AsyncPool(server.node, settings=settings) as pool:
        client = AsyncClient(pool)
        crowd.leave(1)
        await first_stored(client)
        await settled(*await each_in_flight(pool, client, server))
        for _ in range(5):
            assert await client.get("key") == b"v"
