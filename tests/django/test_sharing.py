"""Connections: how many there are, who shares them, when they end."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from typing import Any, final

import pytest
from django.core.cache import caches
from django.core.signals import request_finished
from django.db import close_old_connections
from django.test import override_settings
from metacache_django import MetaCache
from metacache_django.sharing import shared

from metacache import Cluster, Connection, Zlib
from metacache.cluster import admin
from metacache.testing import Memcached


def made(location: str | list[str], options: dict[str, Any] | None = None, **params: Any) -> MetaCache:
    return MetaCache(location, {"OPTIONS": options or {}, **params})


@final
class Watched:
    """A server, how many connections it accepted since this was made, and how many are open."""

    def __init__(self, memcached: Memcached) -> None:
        self.location = str(memcached.node.address)
        self._asking = Connection(memcached.node)
        self._before = -1
        while self._before != (now := self._total()):  # until the server has counted the connection that started it
            self._before = now
            time.sleep(0.02)

    def close(self) -> None:
        self._asking.close()

    def _stats(self) -> dict[str, str]:
        return self._asking.run(admin.stats(""))

    def _total(self) -> int:
        return int(self._stats()["total_connections"])

    @property
    def dialled(self) -> int:
        return self._total() - self._before

    @property
    def open(self) -> int:
        """Return how many connections are open; wait until none is being closed."""
        now, before = -1, -2
        while now != before:
            time.sleep(0.02)
            before, now = now, int(self._stats()["curr_connections"])
        return now


@pytest.fixture
def server(memcached: Memcached) -> Iterator[Watched]:
    watched = Watched(memcached)
    yield watched
    watched.close()


def test_cache_objects_of_one_location_and_options_share_connections(server: Watched) -> None:
    location = server.location
    for number in range(20):
        made(location, TIMEOUT=number, KEY_PREFIX=str(number), VERSION=number + 1).set("k", 1)
    assert server.dialled == 1
    made(location, {"timeout": 0.9}).set("k", 1)
    assert server.dialled == 2
    made([location], {"timeout": 0.9}).set("k", 1)
    assert server.dialled == 3  # a list is another LOCATION


def test_objects_in_options_are_compared_by_identity(server: Watched) -> None:
    one, other = Zlib(), Zlib()
    location = server.location
    assert shared(location, {"compressor": one}) is shared(location, {"compressor": one})
    assert shared(location, {"compressor": one}) is not shared(location, {"compressor": other})
    assert shared(location, {"timeout": 1}) is not shared(location, {"timeout": 2})


def test_the_end_of_a_request_keeps_the_connections(server: Watched) -> None:
    params = {"BACKEND": "metacache_django.MetaCache", "LOCATION": server.location}
    request_finished.disconnect(close_old_connections)
    try:
        with override_settings(CACHES={"default": params}):
            for _ in range(10):
                caches["default"].set("k", 1)
                request_finished.send(None)
            assert server.dialled == 1
    finally:
        request_finished.connect(close_old_connections)


async def test_aclose_keeps_the_connections(server: Watched) -> None:
    for _ in range(10):
        cache = made(server.location)
        await cache.aset("k", 1)
        await cache.aclose()
    assert server.dialled == 1


def test_threads_share_the_connections_of_one_pool(server: Watched) -> None:
    barrier = threading.Barrier(20)

    def work() -> None:
        cache = made(server.location, {"pool_size": 4})
        barrier.wait()
        for _ in range(20):
            cache.set("k", 1)
            assert cache.get("k") == 1

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.dialled <= 4


def test_each_event_loop_has_connections_that_end_with_it(server: Watched) -> None:
    cache = made(server.location, {"timeout": 2})

    async def work() -> None:
        await asyncio.gather(*(cache.aset(f"k{number}", number) for number in range(50)))
        assert await cache.aget_many([f"k{number}" for number in range(50)]) == {
            f"k{number}": number for number in range(50)
        }

    base = server.open
    for _ in range(5):
        asyncio.run(work())
        assert server.open == base


def test_replaced_settings_close_the_connections_and_take_effect(server: Watched) -> None:
    params = {"BACKEND": "metacache_django.MetaCache", "LOCATION": server.location}
    base = server.open
    with override_settings(CACHES={"default": params}):
        first = caches["default"]
        first.set("k", 1)
        assert server.open == base + 1
        with override_settings(CACHES={"default": {**params, "KEY_PREFIX": "other", "OPTIONS": {"timeout": 0.5}}}):
            assert caches["default"].get("k") is None
        assert first.get("k") == 1  # an object that was kept opens connections again
    assert server.open == base


def test_a_fork_shares_no_connection(server: Watched) -> None:
    """As gunicorn with --preload: the parent used the cache, the workers use it too."""
    cache = made(server.location)
    cache.set("parent", 1)

    def child(number: int) -> None:
        status = 1
        try:
            for _ in range(50):
                cache.set(f"child {number}".replace(" ", ""), number)
                assert cache.get(f"child{number}") == number
                assert asyncio.run(cache.aget("parent")) == 1
            status = 0
        finally:
            os._exit(status)

    children: list[int] = []
    for number in range(4):
        pid = os.fork()
        if pid == 0:
            child(number)
        children.append(pid)
    for _ in range(100):
        assert cache.get("parent") == 1
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0, 0, 0, 0]
    assert cache.get_many([f"child{number}" for number in range(4)]) == {f"child{n}": n for n in range(4)}
    assert server.dialled >= 5


def test_two_threads_that_use_a_cache_first_get_the_same_cluster(server: Watched) -> None:
    one = shared(server.location, {"timeout": 3})
    barrier = threading.Barrier(8)
    found: list[Cluster] = []

    def work() -> None:
        barrier.wait()
        found.append(one.blocking.cluster)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(cluster) for cluster in found}) == 1
