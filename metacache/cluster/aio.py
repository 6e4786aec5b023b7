"""`AsyncCluster`: many weighted nodes as one transport under an event loop. The twin of `Cluster`, with the same laws.

Routes, fails fast and probes; moves no bytes. `table` decides who serves a key, `health` what becomes of a node.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol, Self, TypeVar, final, overload

from typing_extensions import TypeForm, Unpack, override

from metacache.cluster import admin
from metacache.cluster.aio_admin import ask_each
from metacache.cluster.aio_batch import run_parts
from metacache.cluster.health import HEALTHY, NodeState
from metacache.cluster.health_tracker import HealthTracker, StateListener, is_node_failure
from metacache.cluster.opening import Opening
from metacache.cluster.table import Member, Table
from metacache.cluster.unopened import UNOPENED, Find
from metacache.copying import refuse_copy
from metacache.errors import (
    ClientError,
    ClosedError,
    ConnectError,
    MetacacheError,
    NodeDownError,
    ServerError,
)
from metacache.interrupts import is_own
from metacache.nodes import Node, nodes_of
from metacache.pool.aio import AsyncPool
from metacache.protocol.windows import Replies
from metacache.routing import RendezvousRouter, Router
from metacache.settings import Settings, check_settings
from metacache.transports.aio.loops import running_loop
from metacache.transports.limits import check_bodies

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

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
class AsyncCluster:
    """A pool for each node, and a router that tells which node a key belongs to. It belongs to one event loop.

    A node that fails three times in a row (a failed connection or a timeout) is down: its operations fail at once with
    NodeDownError, or with ``on_node_down="next"`` go to the next-ranked node as long as no more than half of the weight
    is down. After half a second, then after pauses that double up to 30 seconds, one caller asks whether it is back.

    Args:
        nodes: the nodes, names must differ; or what finds them, called with the cluster when it is first used.
        settings: of every pool and connection, and ``on_node_down``.
        router: makes a Router of the nodes.
        on_state_change: called with (node, state before, state now); must not wait.

    ``settled`` is the table by which a request may go straight to its pool, if that is healthy; None when the nodes are
    not found yet, and where keys move.

    Raises InvalidArgumentError when the nodes are none or not distinct.
    """

    __reduce_ex__ = refuse_copy
    __slots__ = (
        "__weakref__",
        "_attached",
        "_closed",
        "_draining",
        "_is_open",
        "_keeper",
        "_make_router",
        "_moves",
        "_opening",
        "_settings",
        "_table",
        "settled",
    )

    def __init__(
        self,
        nodes: Iterable[Node] | Find,
        *,
        settings: Settings = DEFAULTS,
        router: Callable[[Sequence[Node]], Router] = RendezvousRouter,
        on_state_change: StateListener | None = None,
    ) -> None:
        check_settings(settings)
        self._settings = settings
        self._moves = settings.on_node_down == "next"
        self._make_router = router
        self._attached: list[_Closeable] = []
        self._draining: dict[AsyncPool, asyncio.Task[None]] = {}
        self._closed = False
        self._keeper = HealthTracker(nullcontext(), on_state_change)
        self._is_open = False
        self._table: Table[AsyncPool] = Table(UNOPENED, {}, moves=False)
        self.settled: Table[AsyncPool] | None = None
        self._opening = Opening(partial(nodes, self), self._found) if callable(nodes) else None
        if not callable(nodes):
            self._found(nodes)

    def _found(self, nodes: Iterable[Node]) -> None:
        if not self._is_open:  # else nodes were set meanwhile
            self._settle(self._table_of(nodes_of(nodes), None))

    def _settle(self, table: Table[AsyncPool]) -> None:
        self._table = table
        self._is_open = True
        self.settled = None if self._moves else table

    def _table_of(self, nodes: Sequence[Node], known: Table[AsyncPool] | None) -> Table[AsyncPool]:
        members: dict[str, Member[AsyncPool]] = {} if known is None else dict(known.members)
        return Table[AsyncPool].of(self._make_router(nodes), self._pool_of, members, moves=self._moves)

    def _pool_of(self, node: Node) -> AsyncPool:
        return AsyncPool(node, settings=self._settings, on_failure=partial(self._failed, node))

    def _failed(self, node: Node, error: MetacacheError) -> None:
        """Note what befell a connection; once, however many requests failed with it."""
        table = self._table
        member = table.members.get(node.name)
        # A connection of a node that was drained says nothing of another that has its name now.
        if member is not None and member.node.address == node.address and is_node_failure(error):
            self._keeper.failed(table, member, monotonic())

    @override
    def __repr__(self) -> str:
        if self._closed:
            return "<AsyncCluster: closed>"
        told = ", ".join(f"{name} {member.health.state.value}" for name, member in self._table.members.items())
        return f"<AsyncCluster: {told}>"

    # --- the transport -----------------------------------------------------------------------------------------------

    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> Awaitable[R]:
        """Send *op* to the node of its key, wait for its reply and return what ``op.read`` makes of it.

        *deadline*: a ``time.monotonic()`` time; None: ``Settings.timeout`` from now. Raises NodeDownError when that
        node is down, and what `AsyncPool.run` raises.
        """
        table = self.settled
        if table is not None:
            member = table.members[table.pick(op.key).name]
            if member.health is HEALTHY:
                return member.pool.run(op, deadline=deadline)
        return self._run_carefully(op, monotonic() + self._settings.timeout if deadline is None else deadline)

    async def _open(self, deadline: float) -> None:
        """Find the nodes, if they are not known yet. Raises ConnectError when they are not found in time."""
        if self._closed:
            raise ClosedError("the cluster was closed")
        if self._opening is not None and not self._is_open:
            await self._opening.wait(deadline)

    async def _run_carefully(self, op: Operation[R], deadline: float) -> R:
        """Run *op* where not all is known to be well."""
        await self._open(deadline)
        if self._closed:
            raise ClosedError("the cluster was closed", operation=op.verb.name, key=op.given)
        table, member = await self._serving(op, deadline)
        try:
            result = await member.pool.run(op, deadline=deadline)
        except ConnectError as error:
            # Nothing was sent; if the node is down now, the next one serves the key.
            if self._moves and member.health.is_down and is_own(error):
                return await self._run_carefully(op, deadline)
            raise
        except (ServerError, ClientError) as error:
            if is_own(error):
                self._keeper.succeeded(table, member, monotonic())  # it answered, whatever it said
            raise
        self._keeper.succeeded(table, member, monotonic())
        return result

    async def _serving(self, op: Operation[R], deadline: float) -> tuple[Table[AsyncPool], Member[AsyncPool]]:
        """Return who serves *op* now, of which nodes; probe its node first if it is time. Raises NodeDownError."""
        table = self._table
        owner = table.owner(op.key)
        if not owner.health.is_down:
            return table, owner
        is_back = await self._probe(table, owner, deadline)
        if self._table is not table:
            return await self._serving(op, deadline)  # other nodes were set meanwhile
        try:
            return table, owner if is_back else table.stand_in(op.key)
        except NodeDownError as error:
            raise error.locate(operation=op.verb.name, key=op.given)  # noqa: B904 - it is the same error

    async def _probe(self, table: Table[AsyncPool], member: Member[AsyncPool], deadline: float) -> bool:
        """Ask *member* whether it is back, if it is time and nobody else does; return whether it is."""
        now = monotonic()
        if now >= deadline or not self._keeper.start_probe(member, now):
            return False
        found: bool | None = None
        try:
            # Half of the time: the rest is for whoever serves the key instead.
            found = await member.pool.run(admin.probe(), deadline=(now + deadline) / 2)
        except MetacacheError as error:
            if not is_own(error):
                raise
            found = False if is_node_failure(error) else None
        finally:
            self._keeper.end_probe(table, member, monotonic(), found)
        return found is True

    async def run_batch(self, batch: Batch, /, *, deadline: float) -> Replies:
        """Send *batch* to all of its nodes at once; return a reply or an error for each request.

        *deadline* as in `run`; ``math.inf``: ``Settings.timeout`` from now. Raises ClosedError and ValueTooLargeError;
        all else that goes wrong is in the outcomes.
        """
        if self._closed:
            raise ClosedError("the cluster was closed", operation=batch.verb.name)
        check_bodies(batch, self._settings.max_value_size)  # the whole of it, before a part is sent
        deadline = monotonic() + self._settings.timeout if deadline == math.inf else deadline
        await self._open(deadline)
        if due := self._table.due(batch.keys, monotonic()):
            await asyncio.gather(*(self._probe(self._table, member, deadline) for member in due))
        return await run_parts(batch, lambda: self._table, self._keeper, deadline)

    async def aclose(self) -> None:
        """Close all pools: running requests finish, new ones are refused with ClosedError. Idempotent."""
        self._closed = True
        if self._opening is not None:
            await self._opening.aclose()
        for attached in self._attached:
            await attached.aclose()
        for pool in self._pools():  # in turn: their requests end at the same time
            await pool.aclose()

    def drop(self) -> None:
        """Close without waiting, in a callback of its loop, or where that does not run."""
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
        for attached in self._attached:
            attached.cancel()
        for pool in self._pools():
            pool.drop()

    def _pools(self) -> list[AsyncPool]:
        return [*(member.pool for member in self._table.members.values()), *self._draining]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self.aclose()

    # --- the nodes ---------------------------------------------------------------------------------------------------

    @property
    def router(self) -> Router:
        """The router of the nodes as they are now."""
        return self._table.router

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes as they are now."""
        return self._table.router.nodes

    @property
    def states(self) -> dict[Node, NodeState]:
        """What is known of each node's health."""
        return {node: member.health.state for node, member in self._table.by_node().items()}

    @property
    def statistics(self) -> dict[Node, PoolStatistics]:
        """What each node's pool has done and how it stands."""
        return {node: member.pool.statistics for node, member in self._table.by_node().items()}

    def set_nodes(self, nodes: Iterable[Node]) -> None:
        """Replace the node set at one stroke. Nodes of the same name and address keep their connections and health.

        Those removed are drained: what runs on them is let finish. Raises InvalidArgumentError and changes nothing when
        the nodes are none or not distinct; ClosedError.
        """
        if self._closed:
            raise ClosedError("the cluster was closed", operation="set_nodes")
        loop, before = running_loop(), self._table
        self._settle(self._table_of(nodes_of(nodes), before))
        for pool in before.pools_gone_in(self._table):
            self._drain(pool, loop)

    def _drain(self, pool: AsyncPool, loop: asyncio.AbstractEventLoop) -> None:
        # One whose drain was cut by the end of the loop is kept, for `aclose` to find.
        drain = self._draining[pool] = loop.create_task(pool.aclose())
        drain.add_done_callback(lambda _: drain.cancelled() or self._draining.pop(pool, None))

    def attach(self, closeable: _Closeable) -> None:
        """Have *closeable* closed with the cluster: what watches a source of nodes, for one."""
        self._attached.append(closeable)

    # --- clients -----------------------------------------------------------------------------------------------------

    @classmethod
    def from_url(cls, url: str, *, settings: Settings = DEFAULTS) -> AsyncCluster:
        """Return the cluster of the nodes that *url* names; see `connect` for how it is written.

        *settings*: what the URL does not say. Raises InvalidArgumentError naming the part of the URL that is wrong.
        """
        # A stated cycle, as in `client`: what clients and URLs are stands above clusters, which only open the door.
        from metacache.connect import open_async_cluster

        return open_async_cluster(url, settings)

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
        type_: Any = bytes,  # Any: a type expression; the overloads say which
        *,
        serializer: str | Serializer[Any] | None = None,  # Any: as above
        **options: Unpack[ClientOptions],
    ) -> AsyncClient[Any]:
        """Return a client of values of *type_* on this cluster, which stays open when the client is closed.

        *serializer*: the name of an installed one or a Serializer; left out for bytes, str and int. *options*: see
        `ClientOptions`. Raises SerializerNotFound, InvalidArgumentError.
        """
        from metacache.client.aio import AsyncClient
        from metacache.connect import serializer_for

        return AsyncClient(self, serializer_for(type_, serializer), **options)

    # --- every node --------------------------------------------------------------------------------------------------

    async def ping(self) -> dict[Node, bool | MetacacheError]:
        """Ask every node for a sign of life; return True or the error for each. Tells nothing to the health."""
        return await self._each(admin.ping)

    async def version(self) -> dict[Node, str | MetacacheError]:
        """Return every node's version, or its error."""
        return await self._each(admin.version)

    async def stats(self, arg: str = "") -> dict[Node, dict[str, str] | MetacacheError]:
        """Return every node's ``stats arg`` by name, or its error. Raises InvalidArgumentError."""
        return await self._each(partial(admin.stats, arg))

    async def flush_all(self, delay: int = 0) -> dict[Node, bool | MetacacheError]:
        """Expire all items in *delay* seconds; return True or the error for each node. Raises InvalidArgumentError."""
        return await self._each(partial(admin.flush_all, delay))

    async def cache_memlimit(self, megabytes: int) -> dict[Node, bool | MetacacheError]:
        """Set every node's memory, at least 8 *megabytes*; return True or the error for each.

        A node that refuses the number has a ClientError. Raises InvalidArgumentError.
        """
        return await self._each(partial(admin.cache_memlimit, megabytes))

    async def verbosity(self, level: int) -> dict[Node, bool | MetacacheError]:
        """Set every node's log level, 0 to 3; return True or the error for each. Raises InvalidArgumentError."""
        return await self._each(partial(admin.verbosity, level))

    async def _each(self, operation: Callable[[], Operation[R]]) -> dict[Node, R | MetacacheError]:
        _ = running_loop(), operation()  # what is wrong is raised here
        if self._closed:
            raise ClosedError("the cluster was closed")
        await self._open(monotonic() + self._settings.timeout)
        return await ask_each(self._table.by_node(), operation)
