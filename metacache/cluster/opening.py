"""`Opening`: finds the nodes of an asyncio cluster when the cluster is first used.

One task calls the `Find` of the cluster, and all requests wait for that task. It belongs to one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from time import monotonic
from typing import TYPE_CHECKING, Protocol, final

from metacache.errors import ClosedError, ConnectError, InvalidArgumentError, MetacacheError
from metacache.interrupts import is_from_handler
from metacache.nodes import Node
from metacache.transports.aio.loops import is_running_here, running_loop
from metacache.transports.aio.pending import unsent

if TYPE_CHECKING:
    from metacache.cluster.aio import AsyncCluster

__all__ = ["Find", "Opening"]

OTHER_LOOP = "this cluster belongs to another event loop; make a client in each loop that uses one"


class Find(Protocol):
    """Finds the nodes of a cluster when it is first used."""

    async def __call__(self, cluster: AsyncCluster, /) -> Iterable[Node]:
        """Return the nodes. Raises a MetacacheError if they are not found; the next operation then calls it again."""
        ...


@final
class Opening:
    """See the module.

    Args:
        find: returns the nodes.
        found: called with them.
    """

    __slots__ = ("_find", "_found", "_task")

    def __init__(self, find: Callable[[], Awaitable[Iterable[Node]]], found: Callable[[Iterable[Node]], None]) -> None:
        self._find = find
        self._found = found
        self._task: asyncio.Task[Exception | None] | None = None

    async def wait(self, deadline: float) -> None:
        """Wait until the nodes are found. Raises ConnectError at the *deadline*, and the errors of *find*."""
        loop = running_loop()
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._run())
        task = self._task
        if task.get_loop() is not loop:
            raise InvalidArgumentError(OTHER_LOOP)
        # `asyncio.wait` protects both sides. A caller that is cancelled or late does not cancel the task, for which
        # other callers wait. And when `aclose` cancels the task, it does not cancel the callers.
        await asyncio.wait((task,), timeout=max(deadline - monotonic(), 0.0))
        if not task.done():
            raise ConnectError("the nodes were not found within the deadline")
        failure = ClosedError("the cluster was closed") if task.cancelled() else task.result()
        if failure is not None:
            raise unsent(failure) if isinstance(failure, MetacacheError) else failure

    async def _run(self) -> Exception | None:
        """Find the nodes; return the error, if any. If it were raised and no caller waited, asyncio would log it."""
        try:
            self._found(tuple(await self._find()))
        except Exception as error:
            if is_from_handler(error):
                raise
            return error
        return None

    def cancel(self) -> None:
        """Stop finding nodes. Any thread may call this."""
        task = self._task
        if task is not None and not task.get_loop().is_closed():
            task.get_loop().call_soon_threadsafe(task.cancel)

    async def aclose(self) -> None:
        """Stop finding nodes, and wait until the task has ended."""
        self.cancel()
        if self._task is not None and is_running_here(self._task.get_loop()):
            await asyncio.wait((self._task,))
