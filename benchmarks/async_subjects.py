"""The asyncio clients that `concurrency` measures. Each reads keys of one memcached for many tasks.

Each client has the settings that are best for it with that number of tasks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from itertools import cycle, islice
from time import perf_counter
from typing import Final, Generic, TypeAlias, TypeVar, final

import attrs

from benchmarks.bare import BareConnection
from benchmarks.peers import TIMEOUT, host_and_port
from benchmarks.subjects import VALUE_SIZE
from metacache import AsyncClient, AsyncCluster, AsyncPool, AsyncTransport, Node, Settings

__all__ = [
    "ASYNC_SUBJECTS",
    "AUTOBATCHING",
    "AsyncSetup",
    "AsyncSubject",
    "Reader",
    "set_up_aiomcache",
    "set_up_autobatching",
    "set_up_cluster",
    "set_up_emcache",
    "set_up_memcache",
]

K = TypeVar("K")

# Distinct keys, so that no two tasks read one key at the same time: emcache's autobatching would send one request.
KEYS: Final = [f"benchmark:{number}" for number in range(1024)]
RAW_KEYS: Final = [key.encode() for key in KEYS]  # aiomcache and emcache accept only bytes
VALUE: Final = b"v" * VALUE_SIZE

# With 64 and 512 tasks, no number of connections from 8 to 512 made a pooled client clearly faster.
MOST_CONNECTIONS: Final = 64

# The default settings, except the timeout, which must not end a measurement on a busy machine.
SETTINGS: Final = Settings(timeout=TIMEOUT)


@final
@attrs.frozen
class Reader(Generic[K]):
    """A connected client: its method, and the keys whose values it stored. Each task reads its share of them."""

    get: Callable[[K], Awaitable[object]]
    keys: Sequence[K]

    async def read(self, task: int, tasks: int, count: int) -> None:
        """Do *count* reads."""
        get = self.get
        for key in islice(cycle(self.keys[task::tasks]), count):
            await get(key)

    async def read_until(self, until: float, task: int, tasks: int, latencies: list[float]) -> None:
        """Read until the time *until*, and append the seconds of each read."""
        began = perf_counter()
        for key in cycle(self.keys[task::tasks]):
            await self.get(key)
            ended = perf_counter()
            latencies.append(ended - began)
            began = ended
            if ended > until:
                return


AsyncSetup: TypeAlias = Callable[[Node, int, AsyncExitStack], Awaitable[Reader[str] | Reader[bytes]]]
"""Connects to the node for that number of tasks, stores the values, and returns what reads them."""


@final
@attrs.frozen
class AsyncSubject:
    """One client: its name, its setup, and whether each of its requests has a connection of its own."""

    name: str
    setup: AsyncSetup
    is_pooled: bool = False


def reader_of(get: Callable[[K], Awaitable[object]], keys: Sequence[K], found: object) -> Reader[K]:
    """Return a Reader. Checks that *found*, the result of one *get*, is the stored value."""
    if found != VALUE:
        raise RuntimeError(f"{get!r} returned {found!r}, not the stored value")
    return Reader(get, keys)


async def set_up_pool(node: Node, _tasks: int, stack: AsyncExitStack) -> Reader[str]:
    """Set up an ``AsyncClient[bytes]`` over an AsyncPool."""
    return await _metacache(await stack.enter_async_context(AsyncPool(node, settings=SETTINGS)))


async def set_up_one_connection(node: Node, _tasks: int, stack: AsyncExitStack) -> Reader[str]:
    """Set up an ``AsyncClient[bytes]`` over a pool of one connection."""
    return await _metacache(
        await stack.enter_async_context(AsyncPool(node, settings=attrs.evolve(SETTINGS, pool_size=1)))
    )


async def set_up_cluster(node: Node, _tasks: int, stack: AsyncExitStack) -> Reader[str]:
    """Set up what `connect_async` returns for one node: an ``AsyncClient[bytes]`` over an AsyncCluster."""
    return await _metacache(await stack.enter_async_context(AsyncCluster([node], settings=SETTINGS)))


async def _metacache(transport: AsyncTransport) -> Reader[str]:
    client = AsyncClient(transport)
    await client.set_many(dict.fromkeys(KEYS, VALUE))
    return reader_of(client.get, KEYS, await client.get(KEYS[0]))


async def set_up_aiomcache(node: Node, tasks: int, stack: AsyncExitStack) -> Reader[bytes]:
    """Set up aiomcache with one connection per task. It has no timeout."""
    import aiomcache  # not at the top: a peer may be absent

    host, port = host_and_port(node)
    client = aiomcache.Client(host, port, pool_size=min(tasks, MOST_CONNECTIONS))
    stack.push_async_callback(client.close)
    for key in RAW_KEYS:
        await client.set(key, VALUE)

    return reader_of(client.get, RAW_KEYS, await client.get(RAW_KEYS[0]))


async def set_up_emcache(node: Node, tasks: int, stack: AsyncExitStack) -> Reader[bytes]:
    """Set up emcache with one connection per task, opened in advance."""
    return await _emcache(node, min(tasks, MOST_CONNECTIONS), stack, autobatching=False)


async def set_up_autobatching(node: Node, _tasks: int, stack: AsyncExitStack) -> Reader[bytes]:
    """Set up emcache so that it joins the gets of one event loop iteration, at most 32, into one command."""
    return await _emcache(node, 2, stack, autobatching=True)


async def _emcache(node: Node, connections: int, stack: AsyncExitStack, *, autobatching: bool) -> Reader[bytes]:
    import emcache  # not at the top: a peer may be absent

    client = await emcache.create_client(
        [emcache.MemcachedHostAddress(*host_and_port(node))],
        max_connections=connections,
        min_connections=connections,
        timeout=TIMEOUT,
        autobatching=autobatching,
    )
    stack.push_async_callback(client.close)
    for key in RAW_KEYS:
        await client.set(key, VALUE)
    item = await client.get(RAW_KEYS[0])
    return reader_of(client.get, RAW_KEYS, None if item is None else item.value)


async def set_up_memcache(node: Node, tasks: int, _stack: AsyncExitStack) -> Reader[str]:
    """Set up aisk's memcache with one connection per task. It has no close; the event loop closes its connections."""
    from memcache import AsyncMemcache  # not at the top: a peer may be absent

    client = AsyncMemcache(host_and_port(node), pool_size=min(tasks, MOST_CONNECTIONS), pool_timeout=round(TIMEOUT))
    for key in KEYS:
        await client.set(key, VALUE)
    return reader_of(client.get, KEYS, await client.get(KEYS[0]))


async def set_up_bare_connection(node: Node, _tasks: int, stack: AsyncExitStack) -> Reader[bytes]:
    """Set up a connection that only moves bytes."""
    async with AsyncClient(AsyncPool(node, settings=SETTINGS), owns=True) as client:
        await client.set_many(dict.fromkeys(KEYS, VALUE))
    _, connection = await asyncio.get_running_loop().create_connection(BareConnection, *host_and_port(node))
    stack.callback(connection.close)
    return reader_of(connection.get, RAW_KEYS, await connection.get(RAW_KEYS[0]))


AUTOBATCHING: Final = "emcache, autobatching"

ASYNC_SUBJECTS: Final = (
    AsyncSubject("metacache, AsyncCluster", set_up_cluster),
    AsyncSubject("metacache, AsyncPool", set_up_pool),
    AsyncSubject("metacache, pool_size=1", set_up_one_connection),
    AsyncSubject(AUTOBATCHING, set_up_autobatching),
    AsyncSubject("emcache", set_up_emcache, is_pooled=True),
    AsyncSubject("aiomcache", set_up_aiomcache, is_pooled=True),
    AsyncSubject("memcache", set_up_memcache, is_pooled=True),
    AsyncSubject("(nothing but bytes)", set_up_bare_connection),
)
