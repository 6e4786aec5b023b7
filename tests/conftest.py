"""Fixtures for all tests: private memcached servers, which the test run starts and ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from metacache.testing import Memcached, MemcachedNotFound
from tests.certificates import options_of_a_server
from tests.loops import ASYNCIO, BOTH, Factory


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "both_loops: runs on asyncio's own loop and on uvloop")


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Factory]:
    return ASYNCIO if item.get_closest_marker("both_loops") is None else BOTH


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
