"""`memory://` is one URL away from a real server: both clients, all of their methods, no socket and no thread."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from metacache import (
    AsyncCluster,
    Cluster,
    InvalidArgumentError,
    NodeState,
    Settings,
    Stampede,
    connect,
    connect_async,
)
from metacache.memory.registry import server_named
from metacache.memory.server import MemoryServer


class User(msgspec.Struct):
    name: str
    age: int


ADA = User("Ada", 36)


@pytest.fixture
def no_socket(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the test fail if anything makes a socket or starts a thread."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("memory:// did I/O or started a thread")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    return iter(())


@pytest.mark.usefixtures("no_socket")
def test_a_blocking_client_works_without_a_server_a_socket_or_a_thread() -> None:
    with connect("memory://", User, serializer="msgspec", prefix="user:", default_ttl=300) as users:
        assert users.get("ada") is None
        assert users.get_or_compute("ada", lambda: ADA) == ADA
        assert users.set_many({"bob": User("Bob", 41), "eve": User("Eve", 28)})
        assert users.get_many(["ada", "bob", "zoe"]) == {"ada": ADA, "bob": User("Bob", 41)}
        item = users.get_item("ada")
        assert item is not None
        assert item.ttl is not None
        assert 280 < item.ttl <= 300
        assert users.namespace("n").add("k", ADA)
        assert users.delete("ada")


async def test_an_asyncio_client_works_in_the_same_way() -> None:
    async def compute() -> User:
        return ADA

    async with connect_async("memory://", User, serializer="msgspec", default_ttl=300) as users:
        assert await users.get("ada") is None
        assert await users.get_or_compute("ada", compute, policy=Stampede(serve_stale=60)) == ADA
        await users.set_many({f"{number}": User("x", number) for number in range(500)})
        found = await asyncio.gather(*(users.get(f"{number}") for number in range(500)))
        assert [user.age for user in found if user is not None] == list(range(500))
        assert len(await users.get_many([f"{number}" for number in range(500)])) == 500


async def test_clients_of_one_name_share_a_server_and_private_ones_do_not() -> None:
    with connect("memory://shared-one") as one, connect("memory://shared-one/?timeout=0.5") as same:
        one.set("k", b"1")
        assert same.get("k") == b"1"
        async with connect_async("memory://shared-one") as tasks:
            assert await tasks.get("k") == b"1"
    with connect("memory://shared-two") as other, connect("memory://") as private, connect("memory://") as another:
        assert other.get("k") is None
        private.set("k", b"2")
        assert another.get("k") is None
    assert server_named("shared-one").answer(b"mg k v\r\n") == b"VA 1\r\n1\r\n"


def test_an_asyncio_client_keeps_its_private_server_in_the_next_event_loop() -> None:
    client = connect_async("memory://")

    async def store() -> None:
        await client.set("k", b"1")

    async def read() -> bytes | None:
        return await client.get("k")

    asyncio.run(store())
    assert asyncio.run(read()) == b"1"


async def test_a_cluster_of_embedded_servers_has_states_statistics_and_admin_commands() -> None:
    with Cluster.from_url("memory://a1,a2/?weights=2,1&pool_size=3") as cluster:
        client = cluster.client(str)
        texts = {f"k{number}": str(number) for number in range(100)}
        client.set_many(texts)
        assert client.get_many(texts) == texts
        assert [node.weight for node in cluster.nodes] == [2.0, 1.0]
        assert set(cluster.ping().values()) == {True}
        assert all("metacache" in str(version) for version in cluster.version().values())
        items = [int(found["curr_items"]) for found in cluster.stats().values() if isinstance(found, dict)]
        assert sum(items) == 100
        assert min(items) > 10
        assert set(cluster.states.values()) == {NodeState.UP}
        assert {each.size for each in cluster.statistics.values()} == {3}
        assert set(cluster.cache_memlimit(16).values()) == {True}
        assert set(cluster.flush_all().values()) == {True}
        assert client.get_many(texts) == {}
    async with AsyncCluster.from_url("memory://a1,a2") as tasks:
        assert set((await tasks.ping()).values()) == {True}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://user:secret@name", "has no user and password"),
        ("memory://name/path", "the path of a memory URL"),
        ("memory://a,,b", "empty name"),
        ("memory://a b", "white space"),
        ("memory://a%20b", "letters, digits"),
        ("memory://a:1", "letters, digits"),
        ("memory://name/?timeout=soon", "timeout is a number"),
        ("memory://name/?weights=1,2", "2 weights for 1 hosts"),
        ("memory://name/?nothing=1", "unknown key"),
        ("memory+unix:///x", "scheme"),
        ("Memory://x", "scheme"),
        ("memory://a,a", "two nodes have the name"),
    ],
)
def test_a_wrong_memory_url_is_refused(url: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message) as raised:
        connect(url)
    assert "secret" not in str(raised.value)


def test_settings_with_credentials_serve_a_memory_url_too() -> None:
    settings = Settings(username="user", password="secret", timeout=2.0)
    with connect("memory://", settings=settings) as client:
        client.set("k", b"1")
        assert client.get("k") == b"1"


def test_threads_share_a_server_and_no_increment_is_lost() -> None:
    with connect("memory://", int, timeout=20.0) as numbers, ThreadPoolExecutor(8) as threads:
        numbers.set("n", 0)

        def count(times: int) -> None:
            for _ in range(times):
                numbers.increment("n")

        list(threads.map(count, [200] * 8))
        assert numbers.get("n") == 1600


def test_a_forked_child_has_the_items_and_a_free_lock() -> None:
    server = MemoryServer()
    server.answer(b"ms k 1\r\n1\r\n")
    session = server.open()
    with server.lock:  # held in the parent, and by a thread that the child does not have
        held = threading.Event()
        ended = threading.Event()

        def hold() -> None:
            with other.lock:
                held.set()
                ended.wait(30)

        other = MemoryServer()
        thread = threading.Thread(target=hold)
        thread.start()
        held.wait(30)
        child = os.fork()
        if child == 0:
            is_free = other.lock.acquire(timeout=5)
            os._exit(0 if is_free and session.receive(b"mg k v\r\n") == b"VA 1\r\n1\r\n" else 1)
        ended.set()
        thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


async def test_large_values_come_back_whole() -> None:
    values = {f"k{number}": bytes([number]) * 900_000 for number in range(6)}
    with connect("memory://large") as client:
        client.set_many(values)
        assert client.get("k3") == values["k3"]
        assert client.get_many(list(values)) == values
    async with connect_async("memory://large") as tasks:
        assert await tasks.get("k3") == values["k3"]
        assert await tasks.get_many(list(values)) == values
        assert await asyncio.gather(*(tasks.get(key) for key in values)) == list(values.values())
        server_named("large").faults.on("mg", times=None).split_every(70_000)
        assert await asyncio.gather(*(tasks.get(key) for key in values)) == list(values.values())
    with connect("memory://large") as client:
        assert client.get_many(list(values)) == values
    server_named("large").faults.clear()
