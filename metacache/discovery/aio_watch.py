"""`AsyncWatch`: a task that follows a source of nodes.

`Follower` decides what to do; this module runs it on an event loop and polls the source in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from time import monotonic
from typing import Final, final

from metacache.copying import refuse_copy
from metacache.discovery.follower import Answer, Apply, Follower, usable_nodes
from metacache.discovery.sources import NodeSource
from metacache.discovery.watch import poll_source_in_thread
from metacache.marks import override
from metacache.nodes import Node
from metacache.settings import Settings

__all__ = ["AsyncWatch", "find_nodes"]

DEFAULTS: Final = Settings()


@final
class AsyncWatch:
    """Polls a source in the background and applies its changes one by one. Make it while an event loop runs.

    The watch ends when it is closed, when the object of the bound method *apply* is freed, or when *apply* raises
    ClosedError. Another error of the source or of *apply* does not end it: the nodes do not change.

    Args:
        source: is polled every ``Settings.poll_interval``, in a thread, because it may block.
        apply: is called on the loop with the new nodes, at least one, sorted by name. It must not block. A bound method
            does not keep its object alive.
        settings: ``poll_interval`` and ``change_interval``.
        first: the nodes that are already in use.

    Raises InvalidArgumentError if *first* is empty, names a node twice or has no weight above 0.
    """

    __reduce_ex__ = refuse_copy

    def __init__(
        self, source: NodeSource, apply: Apply, *, settings: Settings = DEFAULTS, first: Sequence[Node]
    ) -> None:
        self._source = source
        self._loop = asyncio.get_running_loop()
        self._follower = Follower(apply, self.cancel, settings=settings, first=first, now=monotonic())
        self._task = self._loop.create_task(self._follower.run(_Effects(source)), name="metacache-watch")

    @override
    def __repr__(self) -> str:
        if self._task.done():
            return "<AsyncWatch: closed>"
        return f"<AsyncWatch of {self._source!r}: {self._follower.plan}>"

    def cancel(self) -> None:
        """Cancel the task, without waiting for its end. Any thread may call it, as the garbage collector does."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._task.cancel)

    async def aclose(self) -> None:
        """End the watch and wait for its task: no poll begins and no change is applied after this. Idempotent.

        The thread of a poll that is in progress goes on; its answer is dropped.
        """
        if self._task.done() or self._loop.is_closed():
            return
        self._task.cancel()
        await asyncio.wait([self._task])


@final
class _Effects:
    """The effects that the follower of one task awaits."""

    def __init__(self, source: NodeSource) -> None:
        self._source = source

    def now(self) -> float:
        return monotonic()

    async def sleep(self, seconds: float, /) -> bool:
        await asyncio.sleep(seconds)
        return True  # a closed watch is a cancelled task

    async def poll(self) -> Answer:
        return await _poll_source(self._source)


async def find_nodes(source: NodeSource) -> Sequence[Node]:
    """Poll *source* in a thread; return its nodes. Raises ConnectError if it has no usable nodes."""
    return usable_nodes(source, await _poll_source(source))


async def _poll_source(source: NodeSource) -> Answer:
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[Answer] = loop.create_future()

    def report(answer: Answer) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed in between
            loop.call_soon_threadsafe(_set_answer, answered, answer)

    poll_source_in_thread(source, report)
    return await answered


def _set_answer(answered: asyncio.Future[Answer], answer: Answer) -> None:
    if not answered.done():
        answered.set_result(answer)
