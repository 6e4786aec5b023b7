"""The event loops of the tests: the one of asyncio, and also uvloop for a test with the mark `both_loops`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Final

import pytest

Factory = Callable[[], asyncio.AbstractEventLoop]


def new_uvloop() -> asyncio.AbstractEventLoop:
    if find_spec("uvloop") is None:
        pytest.skip("uvloop is not installed")
    import uvloop

    return uvloop.new_event_loop()


ASYNCIO: Final[Mapping[str, Factory]] = {"asyncio": asyncio.new_event_loop}
BOTH: Final[Mapping[str, Factory]] = {**ASYNCIO, "uvloop": new_uvloop}
