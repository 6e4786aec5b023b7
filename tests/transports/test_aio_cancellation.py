"""Calls that are cancelled or late at any moment: no caller gets a foreign value, and nothing leaks."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

import pytest

from metacache import AsyncClient, AsyncConnection, AsyncPool, MetacacheError, Settings
from metacache.testing import Memcached
from tests.transports.aio_rig import PATIENT, nothing_left, until, value_of

R = TypeVar("R")

TASKS: Final = 200
KEYS: Final = [f"load:{number}" for number in range(500)]
TWO: Final = Settings(timeout=1.0, connect_timeout=1.0, pool_size=3, max_pipeline=16)  # two, and one for large values


class Load:
    """Runs operations that are given up at random moments; counts them, and collects keys that had a foreign value."""

    def __init__(self, client: AsyncClient[bytes], seed: int, total: int) -> None:
        self.client = client
        self.random = random.Random(seed)
        self.left = total
        self.done = self.abandoned = self.failed = 0
        self.foreign: list[str] = []

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(TASKS):
                group.create_task(self._caller())

    async def _caller(self) -> None:
        while self.left > 0:
            try:
                await self._given_up(self._operation())
            except TimeoutError as error:
                self.failed += isinstance(error, MetacacheError)
                self.abandoned += not isinstance(error, MetacacheError)
            except MetacacheError:
                self.failed += 1
            except asyncio.CancelledError:
                self.abandoned += 1

    async def _given_up(self, operation: Coroutine[Any, Any, None]) -> None:  # Any: of no use here
        chance = self.random.random()
        if chance < 0.3:
            await operation
        elif chance < 0.6:
            async with asyncio.timeout(self.random.random() * 0.004):
                await operation
        else:
            task = asyncio.create_task(operation)
            for _ in range(self.random.randrange(5)):
                await asyncio.sleep(0)
            task.cancel()
            await task

    async def _operation(self) -> None:
        chance = self.random.random()
        if chance < 0.7:
            key = self.random.choice(KEYS)
            self.left -= 1
            self._look({key: await self.client.get(key)})
        elif chance < 0.9:
            keys = self.random.sample(KEYS, 20)
            self.left -= len(keys)
            self._look(await self.client.get_many(keys))
        else:
            key = self.random.choice(KEYS)
            self.left -= 1
            await self.client.set(key, value_of(key))

    def _look(self, found: dict[str, bytes] | dict[str, bytes | None]) -> None:
        self.done += len(found)
        self.foreign += [key for key, value in found.items() if value is not None and value != value_of(key)]


async def fill(client: AsyncClient[bytes]) -> None:
    assert all((await patiently(lambda: client.set_many({key: value_of(key) for key in KEYS}))).values())


async def patiently(call: Callable[[], Awaitable[R]]) -> R:
    """Return the result of *call*, called again after an error: a busy server may be silent for the short timeout."""
    for _ in range(50):
        with contextlib.suppress(MetacacheError):
            return await call()
        await asyncio.sleep(0.05)
    raise AssertionError("no call succeeded")


@pytest.mark.both_loops
async def test_under_load_with_cancelled_and_late_calls_no_caller_gets_a_foreign_value(
    shared_memcached: Memcached,
) -> None:
    async with nothing_left(), AsyncPool(shared_memcached.node, settings=TWO) as pool:
        load = Load(AsyncClient(pool), seed=1, total=100_000)
        await fill(load.client)
        await load.run()
        assert load.foreign == []
        assert load.left <= 0
        assert load.abandoned > 2_000
        assert load.done > 10_000
        # Replies to abandoned requests arrive and are dropped.
        await until(lambda: pool.statistics.in_use == 0)
        assert pool.statistics.waiting == 0
        assert pool.statistics.created <= 3, "abandoned requests close no connection"
        assert await load.client.get("load:7") == value_of("load:7")


async def frozen_and_thawed(server: Memcached) -> None:
    server.freeze()
    await asyncio.sleep(0.25)
    server.thaw()


async def killed_and_restarted(server: Memcached) -> None:
    server.kill()
    await asyncio.sleep(0.02)
    server.restart()


@pytest.mark.both_loops
@pytest.mark.parametrize("mishap", [frozen_and_thawed, killed_and_restarted])
async def test_under_load_no_caller_gets_a_foreign_value_when_the_server_freezes_or_restarts(
    memcached: Memcached, mishap: Callable[[Memcached], Awaitable[None]]
) -> None:
    settings = Settings(timeout=0.1, connect_timeout=0.1, pool_size=3)
    async with nothing_left(), AsyncPool(memcached.node, settings=settings) as pool:
        load = Load(AsyncClient(pool), seed=2, total=1_000_000)
        await fill(AsyncClient(pool, timeout=5.0))
        running = asyncio.create_task(load.run())
        for _ in range(3):
            await asyncio.sleep(0.05)
            await mishap(memcached)
        await until(lambda: load.done > 0 and load.failed > 0)  # a busy machine takes longer
        await asyncio.sleep(0.05)
        load.left = 0
        await running
        assert load.foreign == []
        assert load.failed
        assert load.done
        await until(lambda: pool.statistics.in_use == 0)
        assert pool.statistics.waiting == 0
        calm = AsyncClient(pool, timeout=5.0)
        await fill(calm)
        assert await patiently(lambda: calm.get_many(KEYS)) == {key: value_of(key) for key in KEYS}


CALLS: Final[tuple[Callable[[AsyncClient[bytes]], Coroutine[Any, Any, object]], ...]] = (  # Any: of no use here
    lambda client: client.get("load:1"),
    lambda client: client.set("load:2", value_of("load:2")),
    lambda client: client.get_many(KEYS),
    lambda client: client.update("load:3", lambda _: value_of("load:3")),
)


@pytest.mark.both_loops
@pytest.mark.parametrize("is_connected", [True, False])
@pytest.mark.parametrize("call", CALLS)
async def test_a_call_cancelled_at_any_loop_iteration_leaves_a_usable_connection(
    shared_memcached: Memcached,
    call: Callable[[AsyncClient[bytes]], Coroutine[Any, Any, object]],
    *,
    is_connected: bool,
) -> None:
    async with nothing_left(), AsyncClient(AsyncConnection(shared_memcached.node, settings=PATIENT), owns=True) as one:
        await fill(one)
        for turns in range(400):
            connection = AsyncConnection(shared_memcached.node, settings=PATIENT)
            async with AsyncClient(connection, owns=True) as client:
                if is_connected:
                    await client.get("load:0")
                task = asyncio.create_task(call(client))
                for _ in range(turns):
                    await asyncio.sleep(0)
                was_cancelled = task.cancel()
                await asyncio.wait([task])
                for key in ("load:4", "load:5", "load:6"):
                    assert await client.get(key) == value_of(key)
                assert connection.load == 0
                assert connection.counts.dialled == 1
            if not was_cancelled:
                return
        raise AssertionError("the call did not end")
