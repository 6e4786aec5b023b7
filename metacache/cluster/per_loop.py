"""`PerLoop`: one transport for all event loops. Each loop that uses it has a cluster and connections of its own.

A loop closes its cluster when the loop shuts down its async generators. `asyncio.run` and `asyncio.Runner` cause this.
For this, `_LoopCluster` keeps an async generator suspended in the loop. The clusters send and receive.

Threads may share a `PerLoop`. Its state is mainly a dict by loop. A thread adds or removes an entry with a single call
of a C method, which no other thread can interrupt.
"""

from __future__ import annotations

import asyncio
import contextlib
import warnings
import weakref
from asyncio import get_running_loop
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias, TypeVar, final

from metacache.copying import refuse_copy
from metacache.errors import ClosedError, InvalidArgumentError
from metacache.marks import override
from metacache.transports.aio.loops import is_running_here, run_elsewhere, running_loop
from metacache.transports.forking import forget_in_children

if TYPE_CHECKING:
    from metacache.cluster.aio import AsyncCluster
    from metacache.observe import Reporter
    from metacache.protocol.keys import Key
    from metacache.protocol.windows import Replies
    from metacache.transports.base import Batch, Operation

__all__ = ["PerLoop"]

R = TypeVar("R")

_ByLoop: TypeAlias = "dict[asyncio.AbstractEventLoop, _LoopCluster]"


@final
class PerLoop:
    """See the module.

    Args:
        make: makes the cluster of one loop, which belongs to the loop that first uses it.
        name: the nodes or the source of nodes, for the repr.
        owner: the client that must close this; for the warning if it does not.
        observer: the observer of the clusters, for the client.
        timeout: seconds that `aclose` waits for loops that run in other threads.
    """

    RETURNS_ANSWERS: ClassVar = True  # see `returns_answers`

    __reduce_ex__ = refuse_copy
    __slots__ = (
        "__weakref__",
        "_by_loop",
        "_ended_loops",
        "_has_several",
        "_is_closed",
        "_make",
        "_name",
        "_owner",
        "_timeout",
        "observer",
    )

    def __init__(
        self,
        make: Callable[[], AsyncCluster],
        *,
        name: str,
        owner: str,
        timeout: float,
        observer: Reporter | None = None,
    ) -> None:
        self.observer = observer
        self._by_loop: _ByLoop = {}
        self._has_several = False
        self._is_closed = False
        self._ended_loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
        self._make = make
        self._name = name
        self._owner = owner
        self._timeout = timeout
        forget_in_children(self)

    @override
    def __repr__(self) -> str:
        entries = tuple(self._by_loop.values())
        here = [repr(entry.cluster) for entry in entries if is_running_here(entry.loop)]
        return f"<PerLoop {self._name}: {len(entries)} event loops{''.join(f', here {each}' for each in here)}>"

    # --- the transport -----------------------------------------------------------------------------------------------

    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> Awaitable[R]:
        """Run *op* on the cluster of the running loop. Raises ClosedError, and InvalidArgumentError without a loop."""
        if self._has_several:
            self._drop_closed_loops()
        try:
            entry = self._by_loop[get_running_loop()]
        except (KeyError, RuntimeError):
            return self._open(op.verb.name, op.given).run(op, deadline=deadline)
        # The first lines of AsyncCluster.run: a call of it would add a twentieth to the cost of a get.
        snapshot = entry.membership.snapshot
        if snapshot.is_direct:
            return snapshot.members[snapshot.pick(op.key).name].pool.run(op, deadline=deadline)
        return entry.cluster.run(op, deadline=deadline)

    def run_batch(self, batch: Batch, /, *, deadline: float) -> Awaitable[Replies]:
        """Run *batch*, as `run` does."""
        entry = self._by_loop.get(running_loop())
        cluster = self._open(batch.verb.name, None) if entry is None else entry.cluster
        return cluster.run_batch(batch, deadline=deadline)

    async def aclose(self) -> None:
        """Close the clusters of all loops. Idempotent.

        Running requests finish, new ones are refused with ClosedError. A loop that runs in another thread closes its
        cluster itself; this method waits for that for *timeout* seconds at most.
        """
        self._is_closed = True
        entries = [self._by_loop.pop(loop) for loop in tuple(self._by_loop)]
        elsewhere = [entry for entry in entries if not is_running_here(entry.loop)]
        waits = [wait for entry in elsewhere if (wait := _close_elsewhere(entry)) is not None]
        for entry in entries:
            if is_running_here(entry.loop):
                await entry.aclose()
        if waits:
            await asyncio.wait(waits, timeout=self._timeout)

    def __del__(self) -> None:
        entries: _ByLoop = getattr(self, "_by_loop", {})
        if not entries:
            return
        for entry in tuple(entries.values()):
            entry.drop_soon()
        why = f"unclosed {self._owner}: await its aclose(), or use async with"
        warnings.warn(why, ResourceWarning, stacklevel=2, source=self)

    def reset_after_fork(self) -> None:
        """In a forked child: forget the clusters of the parent without closing them, because the parent uses them."""
        _kept_in_children.append(self._by_loop)
        self._by_loop = {}
        self._has_several = False

    # --- loops -------------------------------------------------------------------------------------------------------

    def _open(self, operation: str, key: Key | None) -> AsyncCluster | _ClusterPerCall:
        """Make a cluster for the running loop, which has none, and return it."""
        try:
            loop = running_loop()
        except InvalidArgumentError as error:
            raise error.locate(operation=operation, key=key)  # noqa: B904 - it is the same error
        self._drop_closed_loops()
        if loop in self._ended_loops and not self._is_closed:
            return _ClusterPerCall(self._make)
        entry = _LoopCluster(loop, self._make(), self._by_loop, self._ended_loops)
        self._by_loop[loop] = entry
        self._has_several = len(self._by_loop) > 1
        if self._is_closed:  # checked after the entry is in the dict: `aclose` in another thread may have missed it
            entry.drop()
            raise ClosedError("the client was closed", operation=operation, key=key)
        entry.close_at_loop_end()
        return entry.cluster

    def _drop_closed_loops(self) -> None:
        for loop in tuple(self._by_loop):
            if loop.is_closed() and (entry := self._by_loop.pop(loop, None)) is not None:
                entry.drop()
        self._has_several = len(self._by_loop) > 1


# The clusters that forked children inherited. They are kept: freeing them would close their sockets, and remove these
# from the selector that the child shares with the parent's loop.
_kept_in_children: Final[list[object]] = []


@final
class _LoopCluster:
    """The cluster of one loop, and the suspended async generator through which that loop closes it.

    It refers to the dict of its `PerLoop` but not to the `PerLoop`, so that this can be freed while the loop exists.
    """

    __slots__ = ("_by_loop", "_ended_loops", "_hook", "cluster", "is_closed", "loop", "membership")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        cluster: AsyncCluster,
        by_loop: _ByLoop,
        ended_loops: weakref.WeakSet[asyncio.AbstractEventLoop],
    ) -> None:
        self.loop = loop
        self.cluster = cluster
        self.membership = cluster.membership
        self.is_closed = False
        self._by_loop = by_loop
        self._ended_loops = ended_loops
        self._hook: AsyncGenerator[None, None] | None = None

    def close_at_loop_end(self) -> None:
        """Register this with the loop, which then closes it when it shuts down its async generators."""
        self._hook = _shutdown_hook(self)
        _run_to_end(self._hook.asend(None))

    async def aclose(self) -> None:
        """Close, in its loop."""
        try:
            await self._close()
        finally:
            self._remove_hook()

    async def close_with_loop(self) -> None:
        """Close, because the loop shuts down its async generators."""
        self._ended_loops.add(self.loop)
        await self._close()

    async def _close(self) -> None:
        self._remove()
        try:
            await self.cluster.aclose()
        except BaseException:  # a cancel, for one
            self.cluster.drop()
            raise

    def drop(self) -> None:
        """Close without waiting. Call it in its loop, or when the loop does not run."""
        self._remove()
        self.cluster.drop()
        self._remove_hook()

    def drop_soon(self) -> None:
        """Close without waiting. Any thread may call this. If the loop runs, a callback of the loop closes it."""
        if self.loop.is_running():
            with contextlib.suppress(RuntimeError):  # it was closed meanwhile
                self.loop.call_soon_threadsafe(self.drop)
                return
        self.drop()

    def _remove(self) -> None:
        self.is_closed = True
        if self._by_loop.get(self.loop) is self:
            self._by_loop.pop(self.loop, None)

    def _remove_hook(self) -> None:
        """End the generator, whose work is done. Otherwise the loop would end it in a task when it is freed."""
        hook, self._hook = self._hook, None
        if hook is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closing it now
                _run_to_end(hook.aclose())


@final
class _ClusterPerCall:
    """Serves a loop that has shut down its async generators. User code that runs during the shutdown may use a client.

    Nothing would close a cluster later, so each operation makes one and closes it.
    """

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[], AsyncCluster]) -> None:
        self._make = make

    async def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:
        async with self._make() as cluster:
            return await cluster.run(op, deadline=deadline)

    async def run_batch(self, batch: Batch, /, *, deadline: float) -> Replies:
        async with self._make() as cluster:
            return await cluster.run_batch(batch, deadline=deadline)


async def _shutdown_hook(entry: _LoopCluster) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        if not entry.is_closed:
            await entry.close_with_loop()


def _run_to_end(awaitable: Awaitable[None]) -> None:
    """Run *awaitable* to its end in one step: it never suspends."""
    with contextlib.suppress(StopIteration):
        awaitable.__await__().send(None)


def _close_elsewhere(entry: _LoopCluster) -> asyncio.Future[None] | None:
    """Close *entry*, whose loop is not the running one. Return a future if it closes later, in another thread."""
    if entry.loop.is_running():
        with contextlib.suppress(RuntimeError):  # it was closed meanwhile
            return run_elsewhere(entry.loop, entry.aclose)
    entry.drop()
    return None
