"""What is measured under an event loop: asyncio clients, a row each, that get keys of one memcached for many tasks.

Each has what suits it best at that many tasks; how it is measured is told elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from itertools import cycle
from time import perf_counter
from typing import Final, Protocol, TypeAlias, TypeVar, final

import aiomcache
import attrs
import emcache
from memcache import AsyncMemcache

from benchmarks.bare import BareConnection
from benchmarks.subjects import PATIENCE, VALUE_SIZE, host_and_port
from metacache import AsyncClient, AsyncCluster, AsyncPool, AsyncTransport, Node, Settings

__all__ = ["ASYNC_SUBJECTS", "AUTOBATCHING", "AsyncSetup", "AsyncSubject", "Read", "read_each"]

K = TypeVar("K")

# Distinct, so that no two tasks ask for the same key at the same time: emcache's autobatching would ask once.
KEYS: Final = [f"benchmark:{number}" for number in range(1024)]
RAW_KEYS: Final = [key.encode() for key in KEYS]  # aiomcache and emcache take bytes alone
VALUE: Final = b"v" * VALUE_SIZE

# Of 8 to 512 connections no number made any pooled client distinctly faster, at 64 or 512 tasks.
MOST_CONNECTIONS: Final = 64

# What metacache is when nothing is said, but for the deadline: on a busy machine it must not end a measurement.
SETTINGS: Final = Settings(timeout=PATIENCE)


class Read(Protocol):
    """What one task of many does."""

    def __call__(self, task: int, tasks: int, until: float, latencies: list[float], /) -> Coroutine[None, None, None]:
        """Get one key after another of this task's share until then, and append the seconds that each took."""
        ...


AsyncSetup: TypeAlias = Callable[[Node, int, AsyncExitStack], Awaitable[Read]]
"""Connects to the node for so many tasks, stores what will be read, and returns the reading of it."""


@final
@attrs.frozen
class AsyncSubject:
    """One client: its name, its setup, and whether each of its requests has a connection to itself."""

    name: str
    setup: AsyncSetup
    is_pooled: bool = False


def read_each(get: Callable[[K], Awaitable[object]], keys: Sequence[K], found: object) -> Read:
    """Return the reading of *keys* by *get*, which *found* a value: it must be the one that was stored."""
    if found != VALUE:
        raise RuntimeError(f"{get!r} found {found!r}, and not what was stored")

    async def read(task: int, tasks: int, until: float, latencies: list[float], /) -> None:
        began = perf_counter()
        for key in cycle(keys[task::tasks]):
            await get(key)
            ended = perf_counter()
            latencies.append(ended - began)
            began = ended
            if ended > until:
                return

    return read


async def over_pool(node: Node, _tasks: int, stack: AsyncExitStack) -> Read:
    """Set up an ``AsyncClient[bytes]`` over an AsyncPool."""
    return await _metacache(await stack.enter_async_context(AsyncPool(node, settings=SETTINGS)))


async def over_one_connection(node: Node, _tasks: int, stack: AsyncExitStack) -> Read:
    """Set up an ``AsyncClient[bytes]`` over a pool of one connection."""
    return await _metacache(
        await stack.enter_async_context(AsyncPool(node, settings=attrs.evolve(SETTINGS, pool_size=1)))
    )


async def over_cluster(node: Node, _tasks: int, stack: AsyncExitStack) -> Read:
    """Set up what `connect_async` returns for one node: an ``AsyncClient[bytes]`` over an AsyncCluster."""
    return await _metacache(await stack.enter_async_context(AsyncCluster([node], settings=SETTINGS)))


async def _metacache(transport: AsyncTransport) -> Read:
    client = AsyncClient(transport)
    await client.set_many(dict.fromkeys(KEYS, VALUE))
    return read_each(client.get, KEYS, await client.get(KEYS[0]))


async def over_aiomcache(node: Node, tasks: int, stack: AsyncExitStack) -> Read:
    """Set up aiomcache, with a connection a task. It knows no deadlines."""
    host, port = host_and_port(node)
    client = aiomcache.Client(host, port, pool_size=min(tasks, MOST_CONNECTIONS))
    stack.push_async_callback(client.close)
    for key in RAW_KEYS:
        await client.set(key, VALUE)

    return read_each(client.get, RAW_KEYS, await client.get(RAW_KEYS[0]))


async def over_emcache(node: Node, tasks: int, stack: AsyncExitStack) -> Read:
    """Set up emcache with a connection a task, opened beforehand."""
    return await _emcache(node, min(tasks, MOST_CONNECTIONS), stack, autobatching=False)


async def over_autobatching(node: Node, _tasks: int, stack: AsyncExitStack) -> Read:
    """Set up emcache that joins the gets of one turn of the loop, 32 at most, into one command."""
    return await _emcache(node, 2, stack, autobatching=True)


async def _emcache(node: Node, connections: int, stack: AsyncExitStack, *, autobatching: bool) -> Read:
    client = await emcache.create_client(
        [emcache.MemcachedHostAddress(*host_and_port(node))],
        max_connections=connections,
        min_connections=connections,
        timeout=PATIENCE,
        autobatching=autobatching,
    )
    stack.push_async_callback(client.close)
    for key in RAW_KEYS:
        await client.set(key, VALUE)
    item = await client.get(RAW_KEYS[0])
    return read_each(client.get, RAW_KEYS, None if item is None else item.value)


async def over_memcache(node: Node, tasks: int, _stack: AsyncExitStack) -> Read:
    """Set up aisk's memcache with a connection a task. It cannot be closed: its connections end with the loop."""
    client = AsyncMemcache(host_and_port(node), pool_size=min(tasks, MOST_CONNECTIONS), pool_timeout=round(PATIENCE))
    for key in KEYS:
        await client.set(key, VALUE)
    return read_each(client.get, KEYS, await client.get(KEYS[0]))


async def over_bare_connection(node: Node, _tasks: int, stack: AsyncExitStack) -> Read:
    """Set up a connection that does nothing but move bytes."""
    async with AsyncClient(AsyncPool(node, settings=SETTINGS), owns=True) as client:
        await client.set_many(dict.fromkeys(KEYS, VALUE))
    _, connection = await asyncio.get_running_loop().create_connection(BareConnection, *host_and_port(node))
    stack.callback(connection.close)
    return read_each(connection.get, RAW_KEYS, await connection.get(RAW_KEYS[0]))


AUTOBATCHING: Final = "emcache, autobatching"

ASYNC_SUBJECTS: Final = (
    AsyncSubject("metacache, AsyncCluster", over_cluster),
    AsyncSubject("metacache, AsyncPool", over_pool),
    AsyncSubject("metacache, pool_size=1", over_one_connection),
    AsyncSubject(AUTOBATCHING, over_autobatching),
    AsyncSubject("emcache", over_emcache, is_pooled=True),
    AsyncSubject("aiomcache", over_aiomcache, is_pooled=True),
    AsyncSubject("memcache", over_memcache, is_pooled=True),
    AsyncSubject("(nothing but bytes)", over_bare_connection),
)
