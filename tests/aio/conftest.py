"""Every test of this room that is a coroutine runs on asyncio's own loop; those marked `both_loops` on uvloop too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from importlib.util import find_spec

import pytest

Factory = Callable[[], asyncio.AbstractEventLoop]


def new_uvloop() -> asyncio.AbstractEventLoop:
    if find_spec("uvloop") is None:
        pytest.skip("uvloop is not installed")
    import uvloop

    return uvloop.new_event_loop()


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Factory]:
    if item.get_closest_marker("both_loops") is None:
        return {"asyncio": asyncio.new_event_loop}
    return {"asyncio": asyncio.new_event_loop, "uvloop": new_uvloop}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "both_loops: runs on asyncio's own loop and on uvloop")
