"""Django's own tests of its memcached backends, with MetaCache: once its blocking methods, once their asyncio twins.

`scripts/test-django` copies this file into the folder tests/cache of Django's source. There `cache.tests` is the
module with the tests. Three of them reach into the client library of Django's backends. They are replaced by tests of
the same facts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any

from asgiref.sync import async_to_sync
from django.conf import settings
from django.core.cache import cache, caches
from django.core.cache.backends.base import BaseCache
from django.core.signals import request_finished
from django.db import close_old_connections
from django.test import TestCase, override_settings
from metacache_django import MetaCache

from metacache import Cluster

# Any: the module is a part of Django's source, which no checker sees.
django_tests: Any = import_module("cache.tests")
BaseMemcachedTests: Any = django_tests.BaseMemcachedTests


class AsyncMetaCache(BaseCache):
    """The asyncio methods of a MetaCache as blocking ones. Each call runs in an event loop of its own."""

    def __init__(self, server: str, params: dict[str, Any]) -> None:
        super().__init__(params)
        self._cache = MetaCache(server, params)


def _blocking(name: str) -> Callable[..., Any]:
    def call(self: AsyncMetaCache, *arguments: object, **named: object) -> object:
        method: Callable[..., Any] = getattr(self._cache, f"a{name}")
        return async_to_sync(method)(*arguments, **named)

    return call


def _forwarded(name: str) -> Callable[..., Any]:
    async def call(self: AsyncMetaCache, *arguments: object, **named: object) -> object:
        return await getattr(self._cache, name)(*arguments, **named)

    return call


for _name in (
    *("add", "clear", "close", "decr", "decr_version", "delete", "delete_many", "get", "get_many", "get_or_set"),
    *("has_key", "incr", "incr_version", "set", "set_many", "touch"),
):
    setattr(AsyncMetaCache, _name, _blocking(_name))
    setattr(AsyncMetaCache, f"a{_name}", _forwarded(f"a{_name}"))


def caches_of(backend: str) -> Mapping[str, Mapping[str, object]]:
    """Return the caches that Django's tests need, with *backend*."""
    base = {**settings.CACHES["default"], "BACKEND": backend}
    made: Mapping[str, Mapping[str, object]] = django_tests.caches_setting_for_tests(
        base=base, exclude=django_tests.memcached_excluded_caches
    )
    return made


BLOCKING = caches_of("metacache_django.MetaCache")
ASYNC = caches_of("cache.test_metacache.AsyncMetaCache")


def cluster_of_default() -> Cluster:
    """Return the cluster for threads behind the default cache, which is one of the two classes."""
    used = caches["default"]
    found = used._cache if isinstance(used, AsyncMetaCache) else used
    assert isinstance(found, MetaCache)
    return found._shared.blocking.cluster


class OnMetaCache:
    """What differs from Django's backends."""

    base_params: Any  # Any: a part of Django's settings
    settings: Any  # Any: the method of a TestCase

    def test_location_multiple_servers(self) -> None:
        locations: Iterable[object] = (
            ["server1.tld", "server2:11211"],
            "server1.tld;server2:11211",
            "server1.tld,server2:11211",
        )
        for location in locations:
            params = {"BACKEND": self.base_params["BACKEND"], "LOCATION": location}
            with self.settings(CACHES={"default": params}):
                cluster = cluster_of_default()
                assert [node.name for node in cluster.nodes] == ["server1.tld:11211", "server2:11211"]

    def test_close(self) -> None:
        """The end of a request keeps the connections."""
        cache.set("key", "value")
        cluster = cluster_of_default()
        request_finished.disconnect(close_old_connections)
        try:
            request_finished.send(type(self))
        finally:
            request_finished.connect(close_old_connections)
        assert cluster_of_default() is cluster
        assert cache.get("key") == "value"

    def test_set_many_returns_failing_keys(self) -> None:
        cache.set("large", "an old value")
        assert cache.set_many({"small": "value", "large": "a" * (2**20 + 1)}) == ["large"]
        assert cache.get_many(["small", "large"]) == {"small": "value"}


@override_settings(CACHES=BLOCKING)
class MetaCacheTests(OnMetaCache, BaseMemcachedTests, TestCase):  # type: ignore[misc]  # a class of Django's tests is Any
    """The blocking methods."""

    base_params = BLOCKING["default"]


@override_settings(CACHES=ASYNC)
class AsyncMetaCacheTests(OnMetaCache, BaseMemcachedTests, TestCase):  # type: ignore[misc]  # as above
    """The asyncio methods."""

    base_params = ASYNC["default"]
