"""Find the event loop that runs in this thread, or raise a clear error when there is none."""

from __future__ import annotations

import asyncio
from typing import Final

from metacache.errors import InvalidArgumentError

__all__ = ["is_running_here", "running_loop"]

_NO_LOOP: Final = (
    "metacache's asyncio client needs a running asyncio event loop, and there is none; under trio, or without a loop, "
    "use the blocking client of connect(), in a thread if need be"
)


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the loop that runs in this thread. Raises InvalidArgumentError when there is none."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise InvalidArgumentError(_NO_LOOP) from None


def is_running_here(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether *loop* runs in this thread now."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
