"""memcached's own proxy between the client and the servers, where the memcached of the run has one."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from metacache import BatchError, Client, Cluster, Connection, MetacacheError, Node, RendezvousRouter, ServerError
from metacache.serializers import IntSerializer
from metacache.testing import Memcached
from tests.client.rig import KINDS, Clients
from tests.conftest import start
from tests.releases import PATIENT, proxy


@pytest.fixture
def backends() -> Iterator[list[Memcached]]:
    with ExitStack() as stack:
        yield [stack.enter_context(start()) for _ in range(4)]


@pytest.fixture
def proxied(backends: list[Memcached], tmp_path: Path) -> Iterator[Memcached]:
    with proxy([server.node for server in backends], tmp_path) as server:
        yield server


@pytest.fixture(params=KINDS)
async def clients(request: pytest.FixtureRequest, proxied: Memcached) -> AsyncIterator[Clients]:
    made = Clients(str(request.param), proxied.node, PATIENT)
    yield made
    await made.aclose()


def held(server: Memcached, keys: list[str]) -> set[str]:
    """Return those of *keys* that *server* itself has."""
    with Client(Connection(server.node, settings=PATIENT), owns=True) as client:
        return set(client.get_many(keys))


def items_of(count: int) -> Mapping[str, bytes]:
    chance = random.Random(7)
    keys = [f"proxy:{number}" if number % 3 else f"proxy: {number} ä" for number in range(count)]  # some as base64
    return {key: key.encode() + b"=" + chance.randbytes(chance.choice((0, 10, 1_000, 20_000))) for key in keys}


async def test_every_key_has_its_own_value(clients: Clients) -> None:
    client, items = clients.blobs(), items_of(300)
    assert all((await client.set_many(items)).values())
    wanted = [*items, *(f"absent:{number}" for number in range(50))]
    random.Random(8).shuffle(wanted)
    assert await client.get_many(wanted) == items
    for key in list(items)[:30]:
        assert await client.get(key) == items[key]
        assert await client.get_item(key) is not None
    assert all((await client.delete_many(items)).values())
    assert await client.get_many(wanted) == {}


async def test_the_proxy_spreads_the_keys_over_its_servers(clients: Clients, backends: list[Memcached]) -> None:
    keys = [f"spread:{number}" for number in range(200)]
    await clients.blobs().set_many(dict.fromkeys(keys, b"v"))
    shares = [held(server, keys) for server in backends]
    found = [key for share in shares for key in share]
    assert sorted(found) == sorted(keys), "each key is on one server"
    assert all(shares)


async def test_the_verbs_do_what_they_do_without_a_proxy(clients: Clients) -> None:
    client, numbers = clients.blobs(), clients.make(IntSerializer())
    assert await client.add("verbs", b"a")
    assert not await client.add("verbs", b"b")
    assert await client.append("verbs", b"+")
    assert await client.touch("verbs", 100)
    item = await client.get_item("verbs")
    assert item is not None
    assert item.value == b"a+"
    assert not await client.compare_and_set("verbs", b"c", item.cas + 1)
    assert await client.compare_and_set("verbs", b"c", item.cas)
    assert await client.delete("verbs")
    assert not await client.delete("verbs")
    assert await numbers.increment("count", 5, initial=10) == 10
    assert await numbers.increment("count", 5) == 15


async def test_one_caller_computes_and_the_others_read(clients: Clients) -> None:
    calls: list[int] = []

    def compute() -> bytes:
        calls.append(1)
        return b"made"

    async def compute_later() -> bytes:
        return compute()

    client = clients.blobs()
    factory = compute_later if "Async" in type(clients.transport).__name__ else compute
    for _ in range(3):
        # The factory of a blocking client returns the value itself.
        made = await client.get_or_compute("made", factory)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        assert made == b"made"
    assert calls == [1]


async def test_a_dead_server_behind_the_proxy_fails_its_keys_and_no_others(
    clients: Clients, backends: list[Memcached]
) -> None:
    client, items = clients.blobs(), items_of(100)
    await client.set_many(items)
    of_dead = held(backends[0], list(items))
    backends[0].kill()
    found: Mapping[str, bytes] = {}
    for _ in range(3):
        with pytest.raises(BatchError) as caught:
            await client.get_many(items)
        assert set(caught.value.errors) == of_dead
        assert all(isinstance(error, ServerError) for error in caught.value.errors.values())
        found = {str(key): value for key, value in caught.value.results.items() if isinstance(value, bytes)}
    assert found == {key: value for key, value in items.items() if key not in of_dead}


def test_keys_move_between_proxies_as_they_move_between_servers(backends: list[Memcached], tmp_path: Path) -> None:
    keys = [f"moving:{number}" for number in range(300)]
    with (
        proxy([backends[0].node, backends[1].node], tmp_path) as one,
        proxy([backends[2].node, backends[3].node], tmp_path) as other,
        Cluster([one.node, other.node], settings=PATIENT) as cluster,
    ):
        client = cluster.client()
        assert all(client.set_many(dict.fromkeys(keys, b"v")).values())
        router = RendezvousRouter([one.node, other.node])
        of_one = {key for key in keys if router.pick(key.encode()) == one.node}
        assert held(backends[0], keys) | held(backends[1], keys) == of_one
        assert held(backends[2], keys) | held(backends[3], keys) == set(keys) - of_one
        cluster.set_nodes([other.node])
        assert set(client.get_many(keys)) == set(keys) - of_one  # only the keys of the removed node are missing


@pytest.mark.parametrize("verb", ["flush_all", "verbosity", "cache_memlimit"])
def test_an_administrative_command_fails_and_does_not_wait_for_the_deadline(proxied: Memcached, verb: str) -> None:
    with Cluster([proxied.node], settings=PATIENT) as cluster:
        arguments = {"flush_all": (), "verbosity": (0,), "cache_memlimit": (64,)}[verb]
        (answer,) = getattr(cluster, verb)(*arguments).values()
        assert isinstance(answer, MetacacheError)
        assert not isinstance(answer, TimeoutError)
        assert cluster.version()[Node(proxied.node.address)]
        assert cluster.client().set("key", b"v")
