"""What every room of tests may use: a private memcached, started by the run and ended with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from metacache.testing import Memcached, MemcachedNotFound


def start(*options: str, unix: bool = False) -> Memcached:
    """Start a memcached of the test's own; skip the test, saying why, where none is installed."""
    try:
        return Memcached(options, unix=unix)
    except MemcachedNotFound as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def shared_memcached() -> Iterator[Memcached]:
    """One server for all tests that only need some memcached; no test stops it or flushes it."""
    with start() as server:
        yield server


@pytest.fixture
def memcached() -> Iterator[Memcached]:
    """A fresh server that the test may freeze, kill and restart."""
    with start() as server:
        yield server
