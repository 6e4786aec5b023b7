"""Find the event loop that runs in this thread, and run a coroutine in a loop of another thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, Final

from metacache.errors import InvalidArgumentError

__all__ = ["is_running_here", "run_elsewhere", "running_loop"]

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


def run_elsewhere(
    loop: asyncio.AbstractEventLoop,
    make: Callable[[], Coroutine[Any, Any, object]],  # Any: a coroutine yields what its loop wants
) -> asyncio.Future[None] | None:
    """Run the coroutine of *make* in *loop*, which runs in another thread.

    Return a future of the running loop that ends with the coroutine, whatever its result is; None when no loop of
    asyncio runs here. Raises RuntimeError when *loop* is closed.
    """
    tasks: list[asyncio.Task[object]] = []

    def start() -> None:
        tasks.append(loop.create_task(make()))
        tasks[0].add_done_callback(report)

    def report(_: object) -> None:
        if here is not None:
            with contextlib.suppress(RuntimeError):  # the loop that waited was closed
                here.call_soon_threadsafe(end)

    def end() -> None:
        if ended is not None and not ended.done():
            ended.set_result(None)

    try:
        here = asyncio.get_running_loop()
    except RuntimeError:  # it is a loop of trio, for one
        here = None
    ended: asyncio.Future[None] | None = None
    if here is not None:
        ended = here.create_future()
        # A loop holds its tasks weakly. So the future, which the caller holds, holds the task.
        ended.add_done_callback(lambda _: tasks.clear())
    loop.call_soon_threadsafe(start)
    return ended
