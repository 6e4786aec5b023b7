"""`AsyncWatch`: a task that follows a source of nodes. Knows one event loop; what it does between its waits is
`Follower`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from time import monotonic
from typing import Final, final

from typing_extensions import override

from metacache.copying import refuse_copy
from metacache.discovery.follower import Answer, Apply, Follower, known_nodes
from metacache.discovery.sources import NodeSource
from metacache.discovery.watch import ask_in_thread
from metacache.nodes import Node
from metacache.settings import Settings

__all__ = ["AsyncWatch", "poll"]

DEFAULTS: Final = Settings()


@final
class AsyncWatch:
    """Polls a source in the background and applies what it says, one change at a time. Made where a loop runs.

    It lives until it is closed, until what *apply* belongs to is gone, or until *apply* raises ClosedError. It survives
    whatever else the source or *apply* raises: the nodes of the last good answer stay.

    Args:
        source: is asked every ``Settings.poll_interval``, in a thread, for it may wait.
        apply: called on the loop with the nodes to use from now on, never none, in the order of names; it must not
            wait. A bound method does not keep its object alive.
        settings: ``poll_interval`` and ``change_interval``.
        first: the nodes that are in use already.

    Raises InvalidArgumentError when *first* is empty, names a node twice or has no weight above 0.
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
        """End without waiting, in any thread, as the garbage collector calls it."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._task.cancel)

    async def aclose(self) -> None:
        """End: no poll and no change is begun any more, and none is applied after this. Twice is nothing.

        A poll under way is left to its thread and its answer dropped.
        """
        if self._task.done() or self._loop.is_closed():
            return
        self._task.cancel()
        await asyncio.wait([self._task])


@final
class _Effects:
    """What the task of a watch waits for."""

    def __init__(self, source: NodeSource) -> None:
        self._source = source

    def now(self) -> float:
        return monotonic()

    async def sleep(self, seconds: float, /) -> bool:
        await asyncio.sleep(seconds)
        return True  # a closed watch is a cancelled task

    async def poll(self) -> Answer:
        return await _asked(self._source)


async def poll(source: NodeSource) -> Sequence[Node]:
    """Return the nodes that *source* knows, asked in a thread. Raises ConnectError when it knows none."""
    return known_nodes(source, await _asked(source))


async def _asked(source: NodeSource) -> Answer:
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[Answer] = loop.create_future()

    def tell(answer: Answer) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(_settle, answered, answer)

    ask_in_thread(source, tell)
    return await answered


def _settle(answered: asyncio.Future[Answer], answer: Answer) -> None:
    if not answered.done():
        answered.set_result(answer)
