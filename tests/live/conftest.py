"""Fixtures for the live tests: five private servers that a test may stop, freeze and restart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from metacache.testing import Memcached
from tests.conftest import start


@pytest.fixture
def servers() -> Iterator[list[Memcached]]:
    """Five fresh servers."""
    with ExitStack() as stack:
        yield [stack.enter_context(start()) for _ in range(5)]
