"""Fixtures that run each test of this folder with both clients: on a real memcached, and some on the fake too."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import pytest

from metacache import AsyncClient
from metacache.testing import FakeServer, Memcached
from tests.caching.rig import Rig

_numbers = itertools.count(1)


@pytest.fixture(params=["blocking", "asyncio"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def rig(kind: str, shared_memcached: Memcached) -> AsyncIterator[Rig]:
    """Clients of one kind on a real server."""
    made = Rig(kind, shared_memcached.node)
    yield made
    await made.aclose()


@pytest.fixture(params=["memcached", "fake"])
async def both(request: pytest.FixtureRequest, kind: str, shared_memcached: Memcached) -> AsyncIterator[Rig]:
    """Clients of one kind on a real server and on the fake."""
    made = Rig(kind, FakeServer() if request.param == "fake" else shared_memcached.node)
    yield made
    await made.aclose()


@pytest.fixture
def key() -> str:
    """A key that no other test uses."""
    return f"caching:{next(_numbers)}"


@pytest.fixture
def texts(rig: Rig) -> AsyncClient[str]:
    return rig.texts()
