"""`AsyncCluster`: many weighted nodes as one transport under an event loop. The asyncio counterpart of `Cluster`.

One event loop runs it, so it needs no lock. It drains removed nodes in tasks and reads the clock. If it is made with a
`Find`, it finds its nodes when it is first used. Decisions that both clusters share are in `serving` (probe, second
attempt), `snapshot` (which node serves a key) and `membership`. The pools send and receive.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, ClassVar, Final, Protocol, Self, TypeVar, Unpack, final, overload

from metacache.cluster import admin, serving
from metacache.cluster.aio_admin import ask_each
from metacache.cluster.aio_batch import run_parts
from metacache.cluster.membership import Membership, StateListener
from metacache.cluster.opening import Find, Opening
from metacache.cluster.snapshot import Member
from metacache.copying import refuse_copy
from metacache.errors import ClosedError, InvalidArgumentError, MetacacheError
from metacache.interrupts import is_own
from metacache.marks import TypeForm, override
from metacache.nodes import Node
from metacache.observe import NodeState, Observer, reporter_of
from metacache.pool.aio import AsyncPool
from metacache.protocol.windows import Replies
from metacache.routing import RendezvousRouter, Router
from metacache.settings import Settings, check_settings
from metacache.transports.aio.loops import running_loop
from metacache.transports.batch_windows import failed_replies
from metacache.transports.limits import check_bodies

if TYPE_CHECKING:
    from types import TracebackType

    from metacache.client.aio import AsyncClient
    from metacache.operations.options import ClientOptions
    from metacache.pool.statistics import PoolStatistics
    from metacache.serializers.interfaces import Serializer
    from metacache.transports.base import Batch, Operation

__all__ = ["AsyncCluster"]

R = TypeVar("R")
T = TypeVar("T")
Builtin = TypeVar("Builtin", bytes, str, int)  # the types that need no serializer
DEFAULTS: Final = Settings()


class _Closeable(Protocol):
    def aclose(self) -> Awaitable[None]: ...
    def cancel(self) -> None: ...


@final
class _Effects:
    """The effects of `serving`. The connections report the failures of nodes: see `AsyncCluster._pool_of`."""

    __slots__ = ()

    def now(self) -> float:
        return monotonic()

    def run(self, member: Member[AsyncPool], op: Operation[R], /, *, deadline: float) -> Awaitable[R]:
        return member.pool.run(op, deadline=deadline)


EFFECTS: Final = _Effects()


@final
class AsyncCluster:
    """A pool for each of many nodes, and a router that chooses the node of a key. It belongs to one event loop.

    A node is down after three failures in a row (a failed connection or a timeout). Then its operations fail
    immediately with NodeDownError. With ``on_node_down="next"`` they go to the next-ranked node, while at most half
    of the weight is down. After half a second, then after pauses that double up to 30 seconds, one caller probes it.

    Args:
        nodes: the nodes (names must differ), or a `Find`. The cluster calls a `Find` when it is first used.
        settings: of every pool and connection, and ``on_node_down``.
        router: makes a Router of the nodes.
        observer: is called with the events of the cluster and its pools; see `Observer`.
        on_state_change: called with (node, state before, state now). It must not block.

    ``membership`` is for `PerLoop`, which sends an operation directly to a pool if no decision is needed.

    Raises InvalidArgumentError if there are no nodes, or if two have the same name.
    """

    RETURNS_ANSWERS: ClassVar = True  # see `returns_answers`

    __reduce_ex__ = refuse_copy
    __slots__ = ("__weakref__", "_attached", "_draining", "_opening", "_settings", "membership", "observer")

    def __init__(
        self,
        nodes: Iterable[Node] | Find,
        *,
        settings: Settings = DEFAULTS,
        router: Callable[[Sequence[Node]], Router] = RendezvousRouter,
        observer: Observer | None = None,
        on_state_change: StateListener | None = None,
    ) -> None:
        check_settings(settings)
        # The pools, and the clients of this cluster, have the same observer.
        self.observer = reporter_of(observer)
        self._settings = settings
        self._attached: list[_Closeable] = []
        self._draining: dict[AsyncPool, asyncio.Task[None]] = {}
        self.membership: Membership[AsyncPool] = Membership(
            router,
            keys_move=settings.on_node_down == "next",
            guard=nullcontext(),
            listener=on_state_change,
            reporter=self.observer,
        )
        self._opening = Opening(partial(nodes, self), self._found) if callable(nodes) else None
        if not callable(nodes):
            self._found(nodes)

    def _found(self, nodes: Iterable[Node]) -> None:
        # In the meantime, `set_nodes` may have set other nodes, or the cluster may have been closed.
        if not self.membership.snapshot.members and not self.membership.is_closed:
            self.membership.set_nodes(nodes, self._pool_of)

    def _pool_of(self, node: Node) -> AsyncPool:
        # Many requests share a connection. When it fails, it reports one failure for all of them.
        return AsyncPool(node, settings=self._settings, observer=self.observer, on_failure=partial(self._failed, node))

    def _failed(self, node: Node, error: MetacacheError) -> None:
        self.membership.connection_failed(node, error, monotonic())

    @override
    def __repr__(self) -> str:
        return f"<AsyncCluster: {self.membership!r}>"

    # --- the transport -----------------------------------------------------------------------------------------------

    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> Awaitable[R]:
        """Send *op* to the node of its key, wait for its reply and return ``op.read(reply)``.

        *deadline*: a ``time.monotonic()`` time; None: ``Settings.timeout`` from now. Raises NodeDownError if that node
        is down, and the errors of `AsyncPool.run`.
        """
        snapshot = self.membership.snapshot
        if snapshot.is_direct:
            return snapshot.members[snapshot.pick(op.key).name].pool.run(op, deadline=deadline)
        # If keys move, a failure may need a second attempt. Before the nodes are found, no node can be chosen.
        member = snapshot.healthy_owner(op.key) if snapshot.members and not snapshot.keys_move else None
        if member is not None:
            return member.pool.run(op, deadline=deadline)
        return self._run_carefully(op, monotonic() + self._settings.timeout if deadline is None else deadline)

    async def _run_carefully(self, op: Operation[R], deadline: float) -> R:
        """Run *op* where a probe, another node or a second attempt may be needed, or the nodes are not known yet."""
        await self._open(deadline)
        return await serving.run(self.membership, EFFECTS, op, deadline)

    async def _open(self, deadline: float) -> None:
        """Find the nodes if they are not known yet. Raises ConnectError if they are not found in time."""
        self.membership.check_open()
        if self._opening is not None and not self.membership.snapshot.members:
            await self._opening.wait(deadline)

    async def run_batch(self, batch: Batch, /, *, deadline: float) -> Replies:
        """Send *batch* to all of its nodes at the same time; return a reply or an error for each request.

        *deadline* as in `run`; ``math.inf``: ``Settings.timeout`` from now. Raises ClosedError and ValueTooLargeError
        before a byte is sent, and InvalidArgumentError if a router of the user chooses an unknown node. Every other
        failure is in the replies.
        """
        self.membership.check_open(batch.verb.name)
        check_bodies(batch, self._settings.max_value_size)  # all of it, before a part is sent
        deadline = monotonic() + self._settings.timeout if deadline == math.inf else deadline
        try:
            await self._open(deadline)
        except MetacacheError as error:
            if isinstance(error, ClosedError | InvalidArgumentError) or not is_own(error):
                raise
            return failed_replies(batch, error)  # the nodes were not found
        if due := self.membership.snapshot.due(batch.keys, monotonic()):
            await asyncio.gather(*(serving.probe(self.membership, EFFECTS, member, deadline) for member in due))
        return await run_parts(batch, self.membership, deadline)

    async def aclose(self) -> None:
        """Close all pools: running requests finish, new ones are refused with ClosedError. Idempotent."""
        self.membership.close()
        if self._opening is not None:
            await self._opening.aclose()
        for attached in self._attached:
            await attached.aclose()
        for pool in self._pools():  # one after the other; meanwhile, requests of the other pools continue
            await pool.aclose()

    def drop(self) -> None:
        """Close without waiting. Call it in its event loop, or when the loop does not run."""
        self.membership.close()
        if self._opening is not None:
            self._opening.cancel()
        for attached in self._attached:
            attached.cancel()
        for pool in self._pools():
            pool.drop()

    def _pools(self) -> list[AsyncPool]:
        return [*(member.pool for member in self.membership.snapshot.members.values()), *self._draining]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self.aclose()

    # --- the nodes ---------------------------------------------------------------------------------------------------

    @property
    def router(self) -> Router:
        """The router of the current nodes."""
        return self.membership.snapshot.router

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The current nodes."""
        return self.membership.snapshot.router.nodes

    @property
    def states(self) -> dict[Node, NodeState]:
        """The state of each node."""
        return self.membership.states()

    @property
    def statistics(self) -> dict[Node, PoolStatistics]:
        """The statistics of each node's pool."""
        return {node: member.pool.statistics for node, member in self.membership.snapshot.by_node().items()}

    def set_nodes(self, nodes: Iterable[Node]) -> None:
        """Replace the set of nodes in one step. Nodes of the same name and address keep their connections and health.

        The pools of removed nodes are drained: requests that run on them finish. Raises ClosedError;
        InvalidArgumentError, and changes nothing, if there are no nodes or two have the same name.
        """
        loop = running_loop()
        for pool in self.membership.set_nodes(nodes, self._pool_of):
            self._drain(pool, loop)

    def _drain(self, pool: AsyncPool, loop: asyncio.AbstractEventLoop) -> None:
        drain = self._draining[pool] = loop.create_task(pool.aclose())
        # The end of the loop cancels a drain. Its pool is kept, so that `aclose` closes it.
        drain.add_done_callback(lambda _: drain.cancelled() or self._draining.pop(pool, None))

    def attach(self, closeable: _Closeable) -> None:
        """Register *closeable*: the close of the cluster closes it too. An example is the watch of a node source."""
        self._attached.append(closeable)

    # --- clients -----------------------------------------------------------------------------------------------------

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        settings: Settings = DEFAULTS,
        observer: Observer | None = None,
        on_state_change: StateListener | None = None,
    ) -> AsyncCluster:
        """Return a cluster of the nodes of *url*. `connect` describes the forms of a URL.

        *settings*: the settings that the URL does not set. *observer*, *on_state_change*: see the class. Raises
        InvalidArgumentError that names the invalid part of the URL.
        """
        # A late import of a room above: the public contract has a cluster open itself from a URL, as `connect` does.
        from metacache.aio_connecting import open_async_cluster

        return open_async_cluster(url, settings, observer, on_state_change)

    @overload
    def client(self, *, serializer: None = None, **options: Unpack[ClientOptions]) -> AsyncClient[bytes]: ...
    @overload
    def client(
        self, type_: type[Builtin], *, serializer: None = None, **options: Unpack[ClientOptions]
    ) -> AsyncClient[Builtin]: ...
    @overload
    def client(
        self, type_: type[T], *, serializer: str | Serializer[T], **options: Unpack[ClientOptions]
    ) -> AsyncClient[T]: ...
    @overload
    def client(
        self, type_: TypeForm[T], *, serializer: str | Serializer[T], **options: Unpack[ClientOptions]
    ) -> AsyncClient[T]: ...
    def client(
        self,
        type_: type[T] | TypeForm[T] = bytes,  # type: ignore[assignment]  # the first overload: T is bytes
        *,
        serializer: str | Serializer[T] | None = None,
        **options: Unpack[ClientOptions],
    ) -> AsyncClient[T]:
        """Return a client that stores values of *type_* on this cluster. Closing the client leaves the cluster open.

        *serializer*: a Serializer, or the name of an installed one. Leave it out for bytes, str and int. *options*: see
        `ClientOptions`. Raises SerializerNotFound, InvalidArgumentError.
        """
        # Late imports of rooms above: the public contract has a cluster make clients.
        from metacache.client.aio import AsyncClient
        from metacache.serializers.choice import serializer_for

        return AsyncClient(self, serializer_for(type_, serializer), **options)

    # --- every node --------------------------------------------------------------------------------------------------

    async def ping(self) -> dict[Node, bool | MetacacheError]:
        """Send a no-op to every node; return True or the error, by node.

        A failed connection counts against its node, as after any operation. An answer does not change a node's state.
        """
        return await self._each(admin.ping)

    async def version(self) -> dict[Node, str | MetacacheError]:
        """Return the version or the error, by node."""
        return await self._each(admin.version)

    async def stats(self, arg: str = "") -> dict[Node, dict[str, str] | MetacacheError]:
        """Return the reply to ``stats arg`` (a dict by name) or the error, by node. Raises InvalidArgumentError."""
        return await self._each(partial(admin.stats, arg))

    async def flush_all(self, delay: int = 0) -> dict[Node, bool | MetacacheError]:
        """Expire all items in *delay* seconds; return True or the error, by node. Raises InvalidArgumentError."""
        return await self._each(partial(admin.flush_all, delay))

    async def cache_memlimit(self, megabytes: int) -> dict[Node, bool | MetacacheError]:
        """Set the memory of every node, at least 8 *megabytes*; return True or the error, by node.

        The error of a node that refuses the number is a ClientError. Raises InvalidArgumentError.
        """
        return await self._each(partial(admin.cache_memlimit, megabytes))

    async def verbosity(self, level: int) -> dict[Node, bool | MetacacheError]:
        """Set the log level of every node, 0 to 3; return True or the error, by node. Raises InvalidArgumentError."""
        return await self._each(partial(admin.verbosity, level))

    async def _each(self, operation: Callable[[], Operation[R]]) -> dict[Node, R | MetacacheError]:
        _ = running_loop(), operation()  # raises for a wrong argument before anything is sent
        await self._open(monotonic() + self._settings.timeout)
        return await ask_each(self.membership.snapshot.by_node(), operation)
