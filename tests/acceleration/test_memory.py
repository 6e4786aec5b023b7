"""The primitives leak no memory and no reference. METACACHE_OPERATIONS sets the number of operations."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from metacache import (
    AsyncClient,
    AsyncConnection,
    Client,
    Cluster,
    Connection,
    InvalidKeyError,
    Node,
    RendezvousRouter,
    SerializationError,
)
from metacache.cluster.parts import fill_part, take
from metacache.operations.requests import CACHED_TAILS, GET, SET, VALUE_FLAGS
from metacache.protocol.replies import HD_REPLY, known_headers, known_sizes
from metacache.protocol.windows import Replies
from metacache.serializers.frame import Frame
from metacache.serializers.plain import BytesSerializer
from metacache.testing import Memcached
from metacache.transports.aio.pending import new_pending, new_waiter
from tests.loops import new_uvloop

pytestmark = [pytest.mark.usefixtures("primitives"), pytest.mark.alone]

OPERATIONS: Final = int(os.environ.get("METACACHE_OPERATIONS", "20000"))
FLAGS: Final = Frame(BytesSerializer(), compressor=None).flags
GROWTH: Final = 3 << 20  # bytes; the allocators keep some


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    path = Path("/proc/self/statm")
    if not path.exists():
        pytest.skip("needs /proc")
    return int(path.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def references(shared: tuple[object, ...]) -> list[int]:
    """Return the reference count of each of *shared*."""
    return list(map(sys.getrefcount, shared))


def growth(shared: tuple[object, ...], before: list[int]) -> list[int]:
    """Return by how much the reference count of each of *shared* has grown."""
    gc.collect()
    # Counted before the subtraction: while `zip` yields an object, its tuple has a reference to it.
    return [now - then for now, then in zip(references(shared), before, strict=True)]


def use(clients: list[Client[bytes]], router: RendezvousRouter, count: int) -> None:
    """Take each way through the primitives: plain, unusual, failing, batches."""
    keys = [f"memory:{number}" for number in range(100)]
    raws = [key.encode() for key in keys]
    wrong: list[bytes] = [1]  # type: ignore[list-item]  # pyright: ignore[reportAssignmentType]
    for number in range(count // 400):
        for client in clients:
            for key in keys:
                client.set(key, b"v")
                assert client.get(key) == b"v"
                assert client.get("memory:none") is None
            size = number % 3000
            client.set("memory:k", b"v" * size)
            assert client.get("memory:k") == b"v" * size
            assert client.get("memory:none") is None
            assert client.get("memory é") is None
            with pytest.raises(InvalidKeyError):
                client.get("k" * 251)
            with pytest.raises(SerializationError):
                client.set("memory:k", wrong[0])
            use_batches(client, keys, number)
        for position, share in enumerate(router.split(raws).values()):
            part, whole = Replies(), Replies(len(raws))
            part.headers = [*take(raws, share)]
            part.values += take(raws, share)
            fill_part(whole, share, part)
            assert whole.values[share[0]] == raws[share[0]], position
        router.pick(raws[0])


def use_batches(client: Client[bytes], keys: list[str], number: int) -> None:
    """Take the ways of batches: of one size, of several, unusual, repeated and invalid keys, and a TTL."""
    client.set_many(dict.fromkeys(keys, b"v" * (number % 200)))
    assert len(client.get_many([*keys, "memory:none"])) == 100
    few = keys[number % 90 :][:10]
    client.set_many({key: key.encode() * (number % 7) for key in few}, ttl=60)
    assert client.get_many([*few, *few]).keys() == set(few)
    client.set_many({few[0]: b"v", "memory é": b"v"})
    assert client.get_many([few[0], "memory é"]) == {few[0]: b"v", "memory é": b"v"}
    assert len(client.delete_many([*few, "memory é"])) == len(few) + 1
    with pytest.raises(InvalidKeyError):
        client.get_many([few[0], "k" * 251])


def test_memory_and_reference_counts_stay_flat(memcached: Memcached) -> None:
    both = [Node(memcached.node.address, name=name) for name in "ab"]  # so that a batch has two parts
    transports = (Connection(memcached.node), Cluster([memcached.node]), Cluster(both))
    clients = [Client(transport, owns=True) for transport in transports]
    router = RendezvousRouter([Node("a"), Node("b", weight=2.0), Node("c")])
    use(clients, router, 4000)
    gc.collect()
    tokens = known_headers[b"VA 1 f%d" % FLAGS][1]
    shared: tuple[object, ...] = (GET, SET, VALUE_FLAGS, HD_REPLY, known_headers, known_sizes, tokens)
    counts, memory = references(shared), resident()
    use(clients, router, OPERATIONS)
    grown = growth(shared, counts)
    assert max(map(abs, grown)) < 5, grown
    assert resident() - memory < GROWTH
    for client in clients:
        client.close()


async def use_asyncio(client: AsyncClient[bytes], count: int) -> None:
    """Take each way through the primitives of asyncio: plain, unusual, failing, cancelled."""
    keys = [f"memory:{number}" for number in range(64)]

    async def one(key: str) -> None:
        await client.set(key, b"v")
        assert await client.get(key) == b"v"
        assert await client.get("memory:none") is None
        with pytest.raises(InvalidKeyError):
            await client.get("k" * 251)

    await client.set_many(dict.fromkeys(keys, b"v"))
    for number in range(count // 400):
        tasks = [asyncio.create_task(one(key)) for key in keys]
        for _ in range(number % 5):
            await asyncio.sleep(0)
        tasks[number % 64].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert len(await client.get_many([*keys, "memory:none"])) == 64
        await client.set("memory:k", b"v" * (number % 3000))
        assert await client.get("memory:k") == b"v" * (number % 3000)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.get("memory:k"), 0)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, new_uvloop], ids=["asyncio", "uvloop"])
def test_memory_and_reference_counts_stay_flat_under_asyncio(
    memcached: Memcached, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        connection = AsyncConnection(memcached.node)
        client = AsyncClient(connection, owns=True)
        runner.run(use_asyncio(client, 4000))
        # The waiter of a cancelled task keeps its last request until the next check of the deadlines. This is its part
        # that drops them. Without it, the counts depend on the time since that check.
        connection._queue.wake_missed()
        gc.collect()
        tokens = known_headers[b"VA 1 f%d" % FLAGS][1]
        shared: tuple[object, ...] = (GET, SET, new_pending, new_waiter, known_headers, tokens, None)
        counts, memory = references(shared), resident()
        runner.run(use_asyncio(client, OPERATIONS))
        connection._queue.wake_missed()
        *grown, of_none = growth(shared, counts)
        runner.run(client.aclose())
        assert max(map(abs, grown)) < 5, grown
        assert -CACHED_TAILS <= of_none < 5, of_none  # `Operations` replaces None by the tail of a size once it is used
        assert resident() - memory < GROWTH


def test_each_dial_frees_its_exchange(memcached: Memcached) -> None:
    def dial(count: int) -> None:
        for _ in range(count):
            client = Client(Connection(memcached.node), owns=True)
            client.get("memory:k")
            client.close()

    dial(50)
    gc.collect()
    memory = resident()
    dial(2000)  # of each buffer, at least 4 KiB would stay
    gc.collect()
    assert resident() - memory < GROWTH
