"""`Background`: the tasks of an `AsyncClient` that refresh values beside their callers."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, final

from metacache.transports.aio.loops import is_running_here, run_elsewhere
from metacache.transports.forking import forget_in_children

if TYPE_CHECKING:
    from metacache.caching.effects import Recipe

__all__ = ["Background"]


@final
class Background:
    """The tasks that refresh values beside their callers, of a client and its views.

    Args:
        timeout: seconds that `aclose` waits for tasks of loops that run in other threads.
    """

    __slots__ = ("__weakref__", "_is_closed", "_tasks", "_timeout")

    def __init__(self, timeout: float) -> None:
        # Loops in several threads share it. Each step is one call of a C method.
        self._tasks: set[asyncio.Task[object]] = set()
        self._is_closed = False
        self._timeout = timeout
        forget_in_children(self)

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, recipe: Recipe) -> bool:
        """Run *recipe* in a task; return False when the client was closed."""
        task = asyncio.get_running_loop().create_task(recipe())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._is_closed:  # checked after the task is in the set: `aclose` in another thread may have missed it
            task.cancel()  # it has not begun
            return False
        return True

    def reset_after_fork(self) -> None:
        """In a forked child: forget the tasks, which run in the parent."""
        _kept_in_children.append(self._tasks)
        self._tasks = set()

    async def aclose(self) -> None:
        """Cancel the tasks, and wait until they have given their leases back.

        A loop that runs in another thread cancels its tasks itself; this method waits for that for *timeout* seconds at
        most. The tasks of a loop that does not run end when it runs again.
        """
        self._is_closed = True
        by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Task[object]]] = {}
        for task in tuple(self._tasks):
            by_loop.setdefault(task.get_loop(), []).append(task)
        here = [tasks for loop, tasks in by_loop.items() if is_running_here(loop)]
        elsewhere = [_cancel_elsewhere(loop, tasks) for loop, tasks in by_loop.items() if not is_running_here(loop)]
        for tasks in here:
            await _cancel(tasks)
        waits = [wait for wait in elsewhere if wait is not None]
        if waits:
            await asyncio.wait(waits, timeout=self._timeout)


# The tasks that forked children inherited. They are kept, because a task that is freed before its end logs an error.
_kept_in_children: Final[list[object]] = []


async def _cancel(tasks: list[asyncio.Task[object]]) -> None:
    """Cancel *tasks* of the running loop, and wait until they have ended."""
    # A task that is cancelled before its first step gives nothing back: let all begin.
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def _cancel_elsewhere(
    loop: asyncio.AbstractEventLoop, tasks: list[asyncio.Task[object]]
) -> asyncio.Future[None] | None:
    """Cancel *tasks* of *loop*, which does not run here. Return a future if they end in another thread."""
    with contextlib.suppress(RuntimeError):  # the loop is closed
        if loop.is_running():
            return run_elsewhere(loop, lambda: _cancel(tasks))
        for task in tasks:
            loop.call_soon_threadsafe(task.cancel)
    return None
