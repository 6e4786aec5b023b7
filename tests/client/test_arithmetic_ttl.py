"""The ttl of increment and decrement is applied, whatever the server does with the item at that moment."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from metacache import AsyncClient, Client, ConnectionLost, InvalidArgumentError, Node, Pool
from metacache.serializers import IntSerializer
from tests.client.rig import KINDS, Clients
from tests.scripted import Peer, ScriptedServer


@contextmanager
def readers(node: Node, key: str) -> Generator[None]:
    """Read *key* without a pause. A server that changes an item during a read replaces it by a new item."""
    done = threading.Event()

    def read() -> None:
        with Client(Pool(node), IntSerializer(), owns=True) as other:
            while not done.is_set():
                other.get(key)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


async def left(counters: AsyncClient[int], key: str) -> int | None:
    """Return the TTL of *key* in seconds."""
    item = await counters.get_item(key)
    assert item is not None
    return item.ttl


def about(ttl: int | None) -> object:
    """Return an object that equals *ttl*, with a tolerance for the duration of the test and for clocks."""
    return None if ttl is None else pytest.approx(ttl, abs=10)


async def test_no_ttl_is_lost_while_readers_use_the_item(clients: Clients, key: str) -> None:
    counters = clients.make(IntSerializer())
    await counters.set(key, 500)
    with readers(clients.node, key):
        for ttl in (100, 200, None, 40 * 86400) * 40:
            await counters.increment(key, ttl=ttl)
            assert await left(counters, key) == about(ttl)
            await counters.touch(key, 20)
            await counters.decrement(key, 2, initial=1, ttl=ttl)
            assert await left(counters, key) == about(ttl)
    assert await counters.get(key) == 340


async def test_only_a_given_ttl_takes_a_second_request(clients: Clients, key: str) -> None:
    counters = clients.make(IntSerializer(), default_ttl=100)
    assert await counters.increment(key, ttl=50) is None
    await counters.increment(key, initial=20)
    await counters.decrement(key)
    assert clients.sent == ["increment"] * 2 + ["decrement"], "nothing is renewed, or nothing is there"
    clients.sent.clear()
    await counters.increment(key, ttl=100)
    await counters.decrement(key, ttl=None)
    await counters.increment(key, initial=1, ttl=100)
    assert clients.sent == ["increment"] * 2 + ["decrement"] * 2 + ["increment"] * 2


async def test_an_invalid_ttl_changes_no_number(clients: Clients, key: str) -> None:
    counters = clients.make(IntSerializer())
    for ttl in (0, -1, 2**31):
        with pytest.raises(InvalidArgumentError) as raised:
            await counters.increment(key, initial=1, ttl=ttl)
        assert (raised.value.operation, raised.value.key, raised.value.maybe_applied) == ("increment", key, False)
    assert clients.sent == []


@pytest.mark.parametrize("kind", KINDS)
async def test_a_number_deleted_before_the_touch_is_still_returned(kind: str) -> None:
    def script(peer: Peer) -> None:
        peer.request().answer(b"VA 2", b"21")
        peer.request().answer(b"EN")

    with ScriptedServer(script) as server:
        clients = Clients(kind, server.node)
        assert await clients.make(IntSerializer()).increment("k", ttl=100) == 21
        await clients.aclose()


@pytest.mark.parametrize("kind", KINDS)
async def test_an_error_of_the_touch_has_maybe_applied_for_every_number(kind: str) -> None:
    def script(peer: Peer) -> None:
        peer.request().answer(b"VA 2", b"19")
        peer.request()
        peer.rst()

    with ScriptedServer(script) as server:
        clients = Clients(kind, server.node)
        with pytest.raises(ConnectionLost) as raised:
            await clients.make(IntSerializer()).decrement("k", ttl=100)
        assert (raised.value.operation, raised.value.key, raised.value.maybe_applied) == ("decrement", "k", True)
        await clients.aclose()
