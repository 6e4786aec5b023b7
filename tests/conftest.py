"""Fixtures for all tests: private memcached servers, which end with the run; and how long a test may take.

A test that hangs fails with a traceback. A coroutine ends after `PATIENCE` with a TimeoutError, raised by the `await`
that hangs. For any other test, faulthandler prints the stack of every thread and ends the process (pyproject.toml).
"""

from __future__ import annotations

import asyncio
import faulthandler
import functools
import gc
import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import hypothesis
import pytest

from metacache.testing import Memcached, MemcachedNotFound
from tests.certificates import options_of_a_server
from tests.loops import ASYNCIO, BOTH, Factory


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "both_loops: runs on asyncio's own loop and on uvloop")


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Factory]:
    return ASYNCIO if item.get_closest_marker("both_loops") is None else BOTH


# On a busy machine, one example may take long.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")


@pytest.fixture(scope="module", autouse=True)
def _little_garbage_to_look_through() -> None:
    """Collect the garbage of earlier modules, and exclude all that is left from later collections.

    Many tests collect garbage. Without this, each of them traverses all tests, modules and types of the run: that took
    a third of the time of the suite.
    """
    gc.collect()
    gc.freeze()


# Seconds; less than faulthandler's 60, for that ends the whole process.
PATIENCE: Final = 50.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test that is a coroutine a time in which it must end."""
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.obj = limited(item.obj)


def limited(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Return *test* so that it ends with a TimeoutError after `PATIENCE`."""

    @functools.wraps(test)
    async def run(*arguments: object, **fixtures: object) -> None:
        async with asyncio.timeout(PATIENCE):
            await test(*arguments, **fixtures)

    return run


@pytest.fixture
def own_time_limit() -> None:
    """For a test that waits for a slow tool with a time limit of its own: faulthandler does not watch it."""
    faulthandler.cancel_dump_traceback_later()


def start(*options: str, unix: bool = False) -> Memcached:
    """Start a private memcached; skip the test, with the reason, if none is installed."""
    try:
        return Memcached(options, unix=unix)
    except MemcachedNotFound as missing:
        pytest.skip(str(missing))


def start_tls(where: Path, *options: str) -> Memcached:
    """Start a private memcached with TLS, whose certificate is in *where*; skip the test if it cannot use TLS."""
    try:
        return start(*options_of_a_server(where), *options)
    except RuntimeError as error:
        pytest.skip(f"this memcached does not speak TLS: {error}")


@pytest.fixture(scope="session")
def shared_memcached() -> Iterator[Memcached]:
    """One server for all tests that only need a memcached. No test stops or flushes it."""
    with start() as server:
        yield server


@pytest.fixture
def memcached() -> Iterator[Memcached]:
    """A fresh server that the test may freeze, kill and restart."""
    with start() as server:
        yield server


@pytest.fixture(scope="session")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Memcached]:
    """Like `shared_memcached`, with TLS."""
    with start_tls(tmp_path_factory.mktemp("tls"), "-m", "512") as server:
        yield server
