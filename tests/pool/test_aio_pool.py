"""The connection that a pool chooses: the first with room, a new one, the least loaded, or the one for large values."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import attrs
import pytest

from metacache import AsyncClient, AsyncConnection, AsyncPool, Node, Settings, StoreResult
from metacache.testing import Memcached
from metacache.transports.counters import CloseReason
from tests.scripted import Peer, ScriptedServer, silent
from tests.transports.aio_rig import PATIENT, nothing_left, until

LIMIT: Final = 65536  # bytes of the largest request that does not count as large
TWO: Final = attrs.evolve(PATIENT, pool_size=3, max_pipeline=2)  # two, and the one for large values


class Opened:
    """The connections of a pool in the order in which it opened them, the one for large values last."""

    def __init__(self, pool: AsyncPool) -> None:
        self._pool = pool

    @property
    def all(self) -> list[AsyncConnection]:
        return self._pool._all()

    @property
    def loads(self) -> list[int]:
        return [connection.load for connection in self.all]

    async def written(self, count: int) -> None:
        """Wait until *count* requests are written and have no reply."""
        await until(lambda: sum(connection.in_flight for connection in self.all) == count)


@asynccontextmanager
async def pool_of(node: Node, settings: Settings) -> AsyncGenerator[tuple[AsyncClient[bytes], Opened]]:
    """Yield a client of a pool, and the connections of the pool."""
    pool = AsyncPool(node, settings=settings)
    async with AsyncClient(pool, owns=True) as client:
        yield client, Opened(pool)


def missing(peer: Peer) -> None:
    """Answer every request with a miss, immediately."""
    while data := peer.sock.recv(65536):
        for line in data.split(b"\r\n"):
            if line:
                peer.send(b"EN" + line[line.index(b" O") :] + b"\r\n")


# --- small requests --------------------------------------------------------------------------------------------------


@pytest.mark.both_loops
async def test_a_connection_is_opened_when_all_are_full_and_at_the_limit_the_least_loaded_is_taken(
    memcached: Memcached,
) -> None:
    settings = attrs.evolve(PATIENT, pool_size=4, max_pipeline=4)  # three, and the one for large values
    async with nothing_left(), pool_of(memcached.node, settings) as (client, opened):
        assert await client.set("key", b"v")
        memcached.freeze()
        seen: list[list[int]] = []
        calls: list[asyncio.Task[bytes | None]] = []
        for number in range(18):
            calls.append(asyncio.create_task(client.get("key")))
            await opened.written(number + 1)
            seen.append(opened.loads)
        assert seen[:4] == [[1], [2], [3], [4]]
        assert seen[4:12] == [[4, 1], [4, 2], [4, 3], [4, 4], [4, 4, 1], [4, 4, 2], [4, 4, 3], [4, 4, 4]]
        assert seen[12:] == [[5, 4, 4], [5, 5, 4], [5, 5, 5], [6, 5, 5], [6, 6, 5], [6, 6, 6]]
        memcached.thaw()
        assert await asyncio.gather(*calls) == [b"v"] * 18
        assert opened.loads == [0, 0, 0]
        assert [connection.counts.dialled for connection in opened.all] == [1, 1, 1]


@pytest.mark.both_loops
async def test_a_connection_with_late_replies_gets_no_request_while_another_has_room() -> None:
    async with nothing_left():
        with ScriptedServer(silent, missing) as server:
            async with pool_of(server.node, TWO) as (client, opened):
                held = [asyncio.create_task(client.get("held")) for _ in range(2)]
                await until(lambda: opened.loads == [2] and opened.all[0].waiting == 0)
                for number in range(50):
                    assert await client.get(f"key-{number}") is None
                    assert opened.loads == [2, 0]
                for call in held:
                    call.cancel()
                await asyncio.wait(held)
                assert opened.loads == [2, 0], "cancelled requests are in flight until their replies arrive"
                assert await client.get("key") is None


async def test_requests_that_are_cancelled_before_they_are_sent_do_not_count_as_load(
    shared_memcached: Memcached,
) -> None:
    async with nothing_left(), pool_of(shared_memcached.node, TWO) as (client, opened):
        for _ in range(50):
            calls = [asyncio.create_task(client.get("key")) for _ in range(2)]
            await asyncio.sleep(0)
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
        await until(lambda: not any(opened.loads))
        assert len(opened.all) <= 2


async def test_requests_of_one_loop_iteration_use_one_connection(shared_memcached: Memcached) -> None:
    async with nothing_left(), pool_of(shared_memcached.node, TWO) as (client, opened):
        for _ in range(3):
            assert await asyncio.gather(*(client.get("none") for _ in range(300))) == [None] * 300
        assert [connection.counts.dialled for connection in opened.all] == [1]


async def test_a_pool_of_one_sends_every_request_on_one_connection(shared_memcached: Memcached) -> None:
    settings = attrs.evolve(PATIENT, pool_size=1, max_pipeline=1)
    async with nothing_left(), pool_of(shared_memcached.node, settings) as (client, opened):
        small = {f"one:{number}": b"%d" % number for number in range(100)}
        calls = [client.set(key, value) for key, value in small.items()]
        assert all(await asyncio.gather(*calls, client.set("one:large", b"x" * 500_000)))
        assert await client.get_many(small) == small
        assert [connection.counts.dialled for connection in opened.all] == [1]


@pytest.mark.parametrize(
    ("settings", "cause"),
    [
        (attrs.evolve(PATIENT, pool_max_idle_time=0.02), CloseReason.IDLE),
        (attrs.evolve(PATIENT, max_lifetime=0.02), CloseReason.OLD),
    ],
)
async def test_connections_that_are_unused_or_old_are_dialled_again(
    shared_memcached: Memcached, settings: Settings, cause: CloseReason
) -> None:
    async with nothing_left(), AsyncPool(shared_memcached.node, settings=settings) as pool:
        client = AsyncClient(pool)
        assert await client.set("idle", b"v")
        assert pool.statistics.discarded[cause] == 0
        await asyncio.sleep(0.05)
        assert await client.get("idle") == b"v"
        assert pool.statistics.discarded[cause] == 1
        assert pool.statistics.created == 2


async def test_a_connection_in_use_is_not_discarded(memcached: Memcached) -> None:
    connection = AsyncConnection(memcached.node, settings=PATIENT)
    async with nothing_left(), AsyncClient(connection, owns=True) as client:
        assert await client.set("key", b"v")
        memcached.freeze()
        call = asyncio.create_task(client.get("key"))
        await until(lambda: connection.load == 1)
        assert connection.idle_times is None
        connection.discard(CloseReason.IDLE)
        memcached.thaw()
        async with asyncio.timeout(5.0):
            assert await call == b"v"
        assert connection.counts.discarded[CloseReason.IDLE] == 0
        connection.discard(CloseReason.IDLE)
        assert connection.counts.discarded[CloseReason.IDLE] == 1
        assert await client.get("key") == b"v"
        assert connection.counts.dialled == 2


# --- large values ----------------------------------------------------------------------------------------------------


@pytest.mark.both_loops
async def test_a_large_write_delays_no_small_request() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(peer: Peer) -> None:
        peer.sock.recv(1000, socket.MSG_PEEK)
        begun.set()
        assert go_on.wait(10.0)
        peer.request().answer(b"HD")
        peer.expect_end()

    async with nothing_left():
        with ScriptedServer(missing, slow) as server:
            async with pool_of(server.node, TWO) as (client, opened):
                assert await client.get("first") is None
                large = asyncio.create_task(client.set("large", b"x" * 20_000_000))  # more than the socket buffers hold
                await until(begun.is_set)
                for number in range(50):
                    assert await client.get(f"key-{number}") is None
                assert opened.loads == [0, 1]
                assert not large.done()
                go_on.set()
                assert await large


@pytest.mark.both_loops
@pytest.mark.parametrize("is_batch", [False, True])
async def test_requests_of_more_than_64_kib_use_the_connection_for_large_values(
    shared_memcached: Memcached, *, is_batch: bool
) -> None:
    async with nothing_left(), pool_of(shared_memcached.node, TWO) as (client, opened):

        async def store(size: int) -> None:
            if is_batch:
                assert all((await client.set_many({"large:a": b"x" * 1000, "large:b": b"x" * (size - 1000)})).values())
            else:
                assert await client.set("large:a", b"x" * size)

        await store(LIMIT)
        assert len(opened.all) == 1
        await store(LIMIT + 1)
        assert len(opened.all) == 2
        await store(LIMIT)
        await store(5 * LIMIT)
        assert len(opened.all) == 2
        assert (await client.get_many(["large:a", "large:b"])).keys() >= {"large:a"}
        assert opened.loads == [0, 0]


async def test_the_connection_for_large_values_counts_for_the_pool_size(memcached: Memcached) -> None:
    async with nothing_left(), pool_of(memcached.node, TWO) as (client, opened):
        assert await client.set("key", b"v")
        memcached.freeze()
        calls: list[asyncio.Task[StoreResult]] = []
        for number in range(20):
            calls.append(asyncio.create_task(client.set(f"small-{number}", b"x")))
            await opened.written(number + 1)
        calls += [asyncio.create_task(client.set(f"large-{number}", b"x" * 100_000)) for number in range(20)]
        await until(lambda: sum(opened.loads) == 40)
        assert sorted(opened.loads) == [10, 10, 20]
        memcached.thaw()
        assert all(await asyncio.gather(*calls))
