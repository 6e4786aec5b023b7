"""`get_or_compute` of an `AsyncClient`: its effects. The recipes are in `caching`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar, final

from metacache.caching.effects import Recipe
from metacache.caching.flights import Flight
from metacache.caching.policy import Plan
from metacache.protocol.windows import Replies
from metacache.transports.base import Batch, Operation

if TYPE_CHECKING:
    from metacache.client.aio_effects import AsyncEffects

__all__ = ["AsyncCachingEffects", "Background"]

R = TypeVar("R")


@final
class Background:
    """The tasks that refresh values beside their callers, of a client and its views."""

    __slots__ = ("_is_closed", "_tasks")

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, recipe: Recipe) -> bool:
        """Run *recipe* in a task; return False when the client was closed."""
        if self._is_closed:
            return False
        task = asyncio.get_running_loop().create_task(recipe())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def aclose(self) -> None:
        """Cancel the tasks of the running loop, and wait until they have given their leases back."""
        self._is_closed = True
        loop = asyncio.get_running_loop()
        tasks = [task for task in self._tasks if task.get_loop() is loop]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


@final
class AsyncCachingEffects:
    """The effects of `get_or_compute` in an asyncio client: tasks wait on futures, a task refreshes."""

    __slots__ = ("_background", "_effects")

    def __init__(self, effects: AsyncEffects, background: Background) -> None:
        self._effects = effects
        self._background = background

    async def run(self, op: Operation[R], /) -> R:
        """Run *op* within one timeout of its own."""
        return await self._effects.transport_run(op, deadline=None)

    async def run_batch(self, batch: Batch, /) -> Replies:
        """Run *batch* within one timeout of its own."""
        return await self._effects.run_batch(batch)

    async def sleep(self, seconds: float, /) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    async def compute(self, factory: Callable[[], Awaitable[Any]], /) -> Any:  # Any: T
        """Return what *factory* computes."""
        return await factory()

    async def wait(self, flight: Flight[Any], seconds: float, /) -> None:  # Any: of no use here
        """Wait until *flight* ends, *seconds* at most."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def resolve() -> None:
            if not done.done():
                done.set_result(None)

        flight.listen(resolve)
        await asyncio.wait((done,), timeout=max(seconds, 0.0))

    def now(self) -> float:
        """Return ``time.monotonic()``."""
        return time.monotonic()

    def spawn(self, recipe: Recipe, _: Plan, /) -> bool:
        """Run *recipe* in a task of the client; return False when the client was closed."""
        return self._background.start(recipe)
