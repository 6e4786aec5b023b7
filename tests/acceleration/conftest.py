"""Skips the tests of the primitives where they are not used: without metacache-speed, or with METACACHE_PURE=1."""

from __future__ import annotations

import pytest

from metacache import accelerated


@pytest.fixture
def primitives() -> None:
    """Require the compiled primitives."""
    if not accelerated:
        pytest.skip("pure Python is used: metacache-speed is not installed, or METACACHE_PURE is set")
