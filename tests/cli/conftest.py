"""Fixtures for the tests of the command line."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from metacache import Cluster
from metacache.testing import Memcached
from tests.cli.rig import CommandLine
from tests.conftest import start


@pytest.fixture
def run(memcached: Memcached, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """Run commands on a fresh server."""
    return CommandLine(memcached.url, capsys)


@pytest.fixture
def cluster(memcached: Memcached) -> Iterator[Cluster]:
    """The fresh server as a cluster of one node."""
    with Cluster([memcached.node]) as made:
        yield made


@pytest.fixture
def two() -> Iterator[tuple[Memcached, Memcached, str]]:
    """Two fresh servers, and the URL of both."""
    with start() as one, start() as other:
        yield one, other, f"{one.url},127.0.0.1:{other.port}"
