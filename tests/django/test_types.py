"""What type checkers know of a MetaCache, and that it fits where django-stubs want a cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

from django.core.cache import BaseCache, caches
from metacache_django import MetaCache

if TYPE_CHECKING:
    cache = MetaCache(["cache-1", "cache-2"], {"KEY_PREFIX": "shop"})
    any_cache: BaseCache = cache
    assert_type(cache.incr("n"), int)
    assert_type(cache.add("k", 1, timeout=None, version=2), bool)
    assert_type(cache.touch("k", 1.5), bool)
    assert_type(cache.get_backend_timeout(1.5), int | None)
    cache.incr("n", 1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    cache.set("k", 1, timeout="10")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    MetaCache(11211, {})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    async def use() -> None:
        assert_type(await cache.aincr("n"), int)
        assert_type(await cache.aadd("k", 1), bool)


def test_django_makes_the_class_that_checkers_see() -> None:
    assert type(caches["default"]) is MetaCache
    assert isinstance(caches["default"], BaseCache)
