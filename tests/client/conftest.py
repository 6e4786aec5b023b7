"""Fixtures that run each test of this folder with both kinds of client, on a connection and on a pool."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import pytest

from metacache import AsyncClient
from metacache.serializers import IntSerializer, StrSerializer
from metacache.testing import Memcached
from tests.client.rig import KINDS, Clients

_numbers = itertools.count(1)


@pytest.fixture(params=KINDS)
async def clients(request: pytest.FixtureRequest, shared_memcached: Memcached) -> AsyncIterator[Clients]:
    """Makes clients of one kind on a shared server; each test runs once for each kind."""
    kind = str(request.param)
    made = Clients(kind, shared_memcached.node)
    yield made
    await made.aclose()


@pytest.fixture
def key() -> str:
    """A key that no other test uses."""
    return f"clients:{next(_numbers)}"


@pytest.fixture
def blobs(clients: Clients) -> AsyncClient[bytes]:
    return clients.blobs()


@pytest.fixture
def texts(clients: Clients) -> AsyncClient[str]:
    return clients.make(StrSerializer())


@pytest.fixture
def counters(clients: Clients) -> AsyncClient[int]:
    return clients.make(IntSerializer())
