"""The primitives leak no memory and no reference. METACACHE_OPERATIONS sets the number of operations."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import Final

import pytest

from metacache import Client, Cluster, Connection, InvalidKeyError, Node, RendezvousRouter, SerializationError
from metacache.operations.requests import GET, SET, VALUE_FLAGS
from metacache.protocol.replies import HD_REPLY, known_headers, known_sizes
from metacache.serializers.frame import Frame
from metacache.serializers.plain import BytesSerializer
from metacache.testing import Memcached

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
            client.set_many(dict.fromkeys(keys, b"v" * (number % 200)))
            assert len(client.get_many([*keys, "memory:none"])) == 100
        router.split(raws)
        router.pick(raws[0])


def test_memory_and_reference_counts_stay_flat(memcached: Memcached) -> None:
    clients = [Client(Connection(memcached.node), owns=True), Client(Cluster([memcached.node]), owns=True)]
    router = RendezvousRouter([Node("a"), Node("b", weight=2.0), Node("c")])
    use(clients, router, 4000)
    gc.collect()
    tokens = known_headers[b"VA 1 f%d" % FLAGS][1]
    shared: tuple[object, ...] = (GET, SET, VALUE_FLAGS, HD_REPLY, known_headers, known_sizes, tokens)
    counts, memory = [sys.getrefcount(each) for each in shared], resident()
    use(clients, router, OPERATIONS)
    gc.collect()
    grown = [sys.getrefcount(each) - count for each, count in zip(shared, counts, strict=True)]
    assert max(map(abs, grown)) < 50, grown
    assert resident() - memory < GROWTH
    for client in clients:
        client.close()


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
