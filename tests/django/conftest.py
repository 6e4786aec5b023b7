"""Configures Django for the tests of the backend, and makes caches on private servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, Final
from uuid import uuid4

import django
import pytest
from django.conf import settings

if not settings.configured:
    settings.configure(
        SECRET_KEY="a key for tests",
        CACHES={"default": {"BACKEND": "metacache_django.MetaCache", "LOCATION": "127.0.0.1:1"}},
        ROOT_URLCONF="tests.django.site",
        ALLOWED_HOSTS=["*"],
    )
    django.setup()

from metacache_django import MetaCache

from metacache.testing import Memcached

# Django's own tests run in Django's source: scripts/test-django.
collect_ignore: Final = ["suite"]


class Caller:
    """Calls the methods of a cache by their blocking names: the methods themselves, or their asyncio twins."""

    def __init__(self, cache: MetaCache, runner: asyncio.Runner | None) -> None:
        self.cache = cache
        self._runner = runner

    def __getattr__(self, name: str) -> Callable[..., Any]:  # Any: the results of all methods
        if self._runner is None:
            method: Callable[..., Any] = getattr(self.cache, name)
            return method
        runner, twin = self._runner, getattr(self.cache, f"a{name}")

        def call(*arguments: object, **named: object) -> object:
            return runner.run(twin(*arguments, **named))

        return call


Make = Callable[..., Caller]


@pytest.fixture(params=["blocking", "asyncio"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Return a function that makes a cache; the tests that use it run with both kinds of methods."""
    with asyncio.Runner() as runner:
        used = runner if request.param == "asyncio" else None

        def new(location: str | list[str], options: dict[str, Any] | None = None, **params: Any) -> Caller:
            return Caller(MetaCache(location, {"OPTIONS": options or {}, **params}), used)

        yield new


@pytest.fixture
def location(shared_memcached: Memcached) -> str:
    """The address of a server that all tests share."""
    return str(shared_memcached.node.address)


@pytest.fixture
def cache(make: Make, location: str) -> Caller:
    """A cache whose keys no other test uses."""
    return make(location, KEY_PREFIX=uuid4().hex)
