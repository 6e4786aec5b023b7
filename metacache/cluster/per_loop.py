"""`PerLoop`: one transport for any event loop. Each loop that uses it has a cluster, and so connections, of its own.

A loop closes its cluster when it shuts down its async generators, as `asyncio.run` and `asyncio.Runner` have it do. It
finds the generator that `_Branch` keeps suspended there. Moves no byte.

It changes over time and is shared by threads. Its only state is a dict by loop, of which a thread adds, takes and
removes one entry by a single call.
"""

from __future__ import annotations

import asyncio
import contextlib
import warnings
import weakref
from asyncio import get_running_loop
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar, final

from typing_extensions import override

from metacache.cluster.health import HEALTHY
from metacache.copying import refuse_copy
from metacache.errors import ClosedError, InvalidArgumentError
from metacache.transports.aio.loops import is_running_here, running_loop
from metacache.transports.forking import forget_in_children

if TYPE_CHECKING:
    from metacache.cluster.aio import AsyncCluster
    from metacache.protocol.keys import Key
    from metacache.protocol.windows import Replies
    from metacache.transports.base import Batch, Operation

__all__ = ["PerLoop"]

R = TypeVar("R")

_Branches: TypeAlias = "dict[asyncio.AbstractEventLoop, _Branch]"


@final
class PerLoop:
    """See the module.

    Args:
        make: makes the cluster of one loop. It belongs to the loop that it is first used in.
        name: where its connections lead.
        owner: the client that closes it, for the warning that it was never closed.
        timeout: seconds that `aclose` waits for loops that run in other threads.
    """

    __reduce_ex__ = refuse_copy
    __slots__ = (
        "__weakref__",
        "_branches",
        "_ended",
        "_has_several",
        "_is_closed",
        "_make",
        "_name",
        "_owner",
        "_timeout",
    )

    def __init__(self, make: Callable[[], AsyncCluster], *, name: str, owner: str, timeout: float) -> None:
        self._branches: _Branches = {}
        self._has_several = False
        self._is_closed = False
        self._ended: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
        self._make = make
        self._name = name
        self._owner = owner
        self._timeout = timeout
        forget_in_children(self)

    @override
    def __repr__(self) -> str:
        branches = tuple(self._branches.values())
        here = [repr(branch.cluster) for branch in branches if is_running_here(branch.loop)]
        return f"<PerLoop {self._name}: {len(branches)} event loops{''.join(f', here {each}' for each in here)}>"

    # --- the transport -----------------------------------------------------------------------------------------------

    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> Awaitable[R]:
        """Run *op* on the cluster of the running loop. Raises InvalidArgumentError when no loop runs, ClosedError."""
        if self._has_several:
            self._drop_those_of_closed_loops()
        try:
            cluster: AsyncCluster | _Parting = self._branches[get_running_loop()].cluster
        except (KeyError, RuntimeError):
            cluster = self._open(op.verb.name, op.given)
        # As AsyncCluster.run does: a further call would be a twentieth of a get.
        table = cluster.settled
        if table is None:
            return cluster.run(op, deadline=deadline)
        member = table.members[table.pick(op.key).name]
        if member.health is not HEALTHY:
            return cluster.run(op, deadline=deadline)
        return member.pool.run(op, deadline=deadline)

    def run_batch(self, batch: Batch, /, *, deadline: float) -> Awaitable[Replies]:
        """Run *batch*, as `run` does."""
        branch = self._branches.get(running_loop())
        cluster = self._open(batch.verb.name, None) if branch is None else branch.cluster
        return cluster.run_batch(batch, deadline=deadline)

    async def aclose(self) -> None:
        """Close the clusters of all loops. Idempotent.

        Running requests finish, new ones are refused with ClosedError. A loop that runs in another thread closes its
        own cluster there; this waits for it no longer than *timeout*.
        """
        self._is_closed = True
        branches = [self._branches.pop(loop) for loop in tuple(self._branches)]
        elsewhere = [branch for branch in branches if not is_running_here(branch.loop)]
        waits = [wait for branch in elsewhere if (wait := _close_elsewhere(branch)) is not None]
        for branch in branches:
            if is_running_here(branch.loop):
                await branch.aclose()
        if waits:
            await asyncio.wait(waits, timeout=self._timeout)

    def __del__(self) -> None:
        branches: _Branches = getattr(self, "_branches", {})
        if not branches:
            return
        for branch in tuple(branches.values()):
            branch.drop_soon()
        why = f"unclosed {self._owner}: await its aclose(), or use async with"
        warnings.warn(why, ResourceWarning, stacklevel=2, source=self)

    def reset_after_fork(self) -> None:
        """Forget the loops of the parent, in a forked child: to close their sockets would touch those of the parent."""
        _left_behind.append(self._branches)
        self._branches = {}
        self._has_several = False

    # --- loops -------------------------------------------------------------------------------------------------------

    def _open(self, operation: str, key: Key | None) -> AsyncCluster | _Parting:
        """Return the cluster of the running loop, which has none yet."""
        try:
            loop = running_loop()
        except InvalidArgumentError as error:
            raise error.locate(operation=operation, key=key)  # noqa: B904 - it is the same error
        self._drop_those_of_closed_loops()
        if loop in self._ended and not self._is_closed:
            return _Parting(self._make)
        branch = _Branch(loop, self._make(), self._branches, self._ended)
        self._branches[loop] = branch
        self._has_several = len(self._branches) > 1
        if self._is_closed:  # asked last: another thread may close it meanwhile
            branch.drop()
            raise ClosedError("the client was closed", operation=operation, key=key)
        branch.end_with_loop()
        return branch.cluster

    def _drop_those_of_closed_loops(self) -> None:
        for loop in tuple(self._branches):
            if loop.is_closed() and (branch := self._branches.pop(loop, None)) is not None:
                branch.drop()
        self._has_several = len(self._branches) > 1


# What children left behind. To free it would close sockets, and take them out of the selector of the parent's loop.
_left_behind: Final[list[object]] = []


@final
class _Branch:
    """The cluster of one loop, and the suspended async generator by which that loop closes it.

    Knows the dict that it is in, but not its `PerLoop`, so that the `PerLoop` can be collected while a loop lives.
    """

    __slots__ = ("_branches", "_ended", "_guard", "cluster", "is_closed", "loop")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        cluster: AsyncCluster,
        branches: _Branches,
        ended: weakref.WeakSet[asyncio.AbstractEventLoop],
    ) -> None:
        self.loop = loop
        self.cluster = cluster
        self.is_closed = False
        self._branches = branches
        self._ended = ended
        self._guard: AsyncGenerator[None, None] | None = None

    def end_with_loop(self) -> None:
        """Have the loop close this when it shuts down its async generators."""
        self._guard = _suspended(self)
        _step(self._guard.asend(None))

    async def aclose(self) -> None:
        """Close, in its loop."""
        try:
            await self._close()
        finally:
            self._dismiss_guard()

    async def close_with_loop(self) -> None:
        """Close, because the loop ends."""
        self._ended.add(self.loop)
        await self._close()

    async def _close(self) -> None:
        self._leave()
        try:
            await self.cluster.aclose()
        except BaseException:  # a cancel, for one
            self.cluster.drop()
            raise

    def drop(self) -> None:
        """Close without waiting, in a callback of its loop, or where that does not run."""
        self._leave()
        self.cluster.drop()
        self._dismiss_guard()

    def drop_soon(self) -> None:
        """Close without waiting, in any thread: in a callback if the loop runs."""
        if self.loop.is_running():
            with contextlib.suppress(RuntimeError):  # it was closed meanwhile
                self.loop.call_soon_threadsafe(self.drop)
                return
        self.drop()

    def _leave(self) -> None:
        self.is_closed = True
        if self._branches.get(self.loop) is self:
            self._branches.pop(self.loop, None)

    def _dismiss_guard(self) -> None:
        """End the generator, which has nothing left to close; else the loop does that in a task when it is freed."""
        guard, self._guard = self._guard, None
        if guard is not None:
            with contextlib.suppress(RuntimeError):  # the loop is just closing it
                _step(guard.aclose())


@final
class _Parting:
    """Serves a loop that has shut down its async generators, whose own code may still use a client in that moment.

    Nothing would close a connection that is kept: each operation has connections of its own, which are closed after it.
    """

    __slots__ = ("_make",)

    settled: None = None

    def __init__(self, make: Callable[[], AsyncCluster]) -> None:
        self._make = make

    async def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:
        async with self._make() as cluster:
            return await cluster.run(op, deadline=deadline)

    async def run_batch(self, batch: Batch, /, *, deadline: float) -> Replies:
        async with self._make() as cluster:
            return await cluster.run_batch(batch, deadline=deadline)


async def _suspended(branch: _Branch) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        if not branch.is_closed:
            await branch.close_with_loop()


def _step(awaitable: Awaitable[None]) -> None:
    """Run *awaitable*, which waits for nothing."""
    with contextlib.suppress(StopIteration):
        awaitable.__await__().send(None)


def _close_elsewhere(branch: _Branch) -> asyncio.Future[None] | None:
    """Close *branch*, whose loop is another one. Return what to wait for, if that runs in another thread."""
    loop = branch.loop
    if not loop.is_running():
        branch.drop()
        return None
    try:
        here = get_running_loop()
    except RuntimeError:  # trio's, for one
        branch.drop_soon()
        return None
    closed: asyncio.Future[None] = here.create_future()

    def settle() -> None:
        if not closed.done():
            closed.set_result(None)

    def tell(_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop that waited was closed
            here.call_soon_threadsafe(settle)

    def close() -> None:
        tasks.append(loop.create_task(branch.aclose()))
        tasks[0].add_done_callback(tell)

    tasks: list[asyncio.Task[None]] = []  # a loop holds its tasks weakly
    try:
        loop.call_soon_threadsafe(close)
    except RuntimeError:  # it was closed meanwhile
        branch.drop()
        settle()
    return closed
