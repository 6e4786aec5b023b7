"""`Cluster`: many weighted nodes as one transport. A key goes to its node's pool, a batch to all of its nodes at once.

Routes, fails fast and probes; moves no bytes. `table` decides who serves a key, `health` what becomes of a node.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol, Self, TypeVar, final, overload

from typing_extensions import TypeForm, Unpack, override

from metacache.cluster import admin
from metacache.cluster.blocking_admin import ask_each
from metacache.cluster.blocking_batch import ClusterExchange
from metacache.cluster.health import HEALTHY, NodeState
from metacache.cluster.health_tracker import HealthTracker, StateListener, is_node_failure
from metacache.cluster.table import Member, Table
from metacache.copying import refuse_copy
from metacache.errors import (
    ClientError,
    ClosedError,
    ConnectError,
    MetacacheError,
    NodeDownError,
    ServerError,
    TransportError,
)
from metacache.interrupts import clear_frames, is_own
from metacache.nodes import Node, nodes_of
from metacache.pool.blocking import Pool
from metacache.protocol.windows import Replies
from metacache.routing import RendezvousRouter, Router
from metacache.settings import Settings, check_settings
from metacache.transports.blocking.exchange import drive_exchange
from metacache.transports.forking import forget_in_children
from metacache.transports.limits import check_bodies

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

    from metacache.client.blocking import Client
    from metacache.operations.options import ClientOptions
    from metacache.pool.statistics import PoolStatistics
    from metacache.serializers.interfaces import Serializer
    from metacache.transports.base import Batch, Operation

__all__ = ["Cluster"]

R = TypeVar("R")
T = TypeVar("T")
Builtin = TypeVar("Builtin", bytes, str, int)  # the types that need no serializer
DEFAULTS: Final = Settings()


class _Closeable(Protocol):
    def close(self) -> None: ...


@final
class Cluster:
    """A pool for each node, and a router that tells which node a key belongs to. Any number of threads may share it.

    A node that fails three times in a row (a failed connection or a timeout) is down: its operations fail at once with
    NodeDownError, or with ``on_node_down="next"`` go to the next-ranked node as long as no more than half of the weight
    is down. After half a second, then after pauses that double up to 30 seconds, one caller asks whether it is back.

    Args:
        nodes: the nodes; names must differ.
        settings: of every pool and connection, and ``on_node_down``.
        router: makes a Router of the nodes.
        on_state_change: called with (node, state before, state now) by the thread that noticed; must not wait.

    Raises InvalidArgumentError when the nodes are none or not distinct.
    """

    __reduce_ex__ = refuse_copy
    __slots__ = (
        "__weakref__",
        "_attached",
        "_closed",
        "_keeper",
        "_lock",
        "_make_router",
        "_moves",
        "_settings",
        "_table",
    )

    def __init__(
        self,
        nodes: Iterable[Node],
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
        self._closed = False
        # Re-entrant: a signal's handler that comes to it would wait for ever for the thread that it interrupted.
        self._lock = threading.RLock()
        self._keeper = HealthTracker(self._lock, on_state_change)
        self._table = self._table_of(nodes_of(nodes), None)
        forget_in_children(self)

    def _table_of(self, nodes: Sequence[Node], known: Table[Pool] | None) -> Table[Pool]:
        return Table[Pool].of(
            self._make_router(nodes),
            partial(Pool, settings=self._settings),
            {} if known is None else known.members,
            moves=self._moves,
        )

    @override
    def __repr__(self) -> str:
        if self._closed:
            return "<Cluster: closed>"
        told = ", ".join(f"{name} {member.health.state.value}" for name, member in self._table.members.items())
        return f"<Cluster: {told}>"

    # --- the transport -----------------------------------------------------------------------------------------------

    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:
        """Send *op* to the node of its key, wait for its reply and return what ``op.read`` makes of it.

        *deadline*: a ``time.monotonic()`` time; None: ``Settings.timeout`` from now. Raises NodeDownError when that
        node is down, and what `Pool.run` raises.
        """
        table = self._table
        member = table.members[table.pick(op.key).name]
        if member.health is not HEALTHY:
            return self._run_carefully(op, self._by(deadline))
        try:
            return member.pool.run(op, deadline=deadline)
        except (TransportError, ClosedError) as error:
            if not is_own(error):
                raise
            return self._rescue(op, table, member, error, self._by(deadline))
        except BaseException as error:
            clear_frames(error)
            raise

    def _by(self, deadline: float | None) -> float:
        return monotonic() + self._settings.timeout if deadline is None else deadline

    def _run_carefully(self, op: Operation[R], deadline: float) -> R:
        """Run *op* where not all is known to be well."""
        if self._closed:
            raise ClosedError("the cluster was closed", operation=op.verb.name, key=op.given)
        table, member = self._serving(op, deadline)
        try:
            result = member.pool.run(op, deadline=deadline)
        except (TransportError, ClosedError) as error:
            if not is_own(error):
                raise
            return self._rescue(op, table, member, error, deadline)
        except (ServerError, ClientError) as error:
            if is_own(error):
                self._keeper.succeeded(table, member, monotonic())  # the node answered
            raise
        self._keeper.succeeded(table, member, monotonic())
        return result

    def _serving(self, op: Operation[R], deadline: float) -> tuple[Table[Pool], Member[Pool]]:
        """Return who serves *op* now, of which nodes; probe its node first if it is time. Raises NodeDownError."""
        table = self._table
        owner = table.owner(op.key)
        if not owner.health.is_down:
            return table, owner
        is_back = self._probe(table, owner, deadline)
        if self._table is not table:
            return self._serving(op, deadline)  # other nodes were set meanwhile
        try:
            return table, owner if is_back else table.stand_in(op.key)
        except NodeDownError as error:
            if is_own(error):
                error.locate(operation=op.verb.name, key=op.given)
            raise

    def _probe(self, table: Table[Pool], member: Member[Pool], deadline: float) -> bool:
        """Ask *member* whether it is back, if it is time and nobody else does; return whether it is."""
        now = monotonic()
        if now >= deadline or not self._keeper.start_probe(member, now):
            return False
        found: bool | None = None
        try:
            # Half of the time: the rest is for whoever serves the key instead.
            found = member.pool.run(admin.probe(), deadline=(now + deadline) / 2)
        except MetacacheError as error:
            if not is_own(error):
                raise
            found = False if is_node_failure(error) else None
        finally:
            self._keeper.end_probe(table, member, monotonic(), found)
        return found is True

    def _rescue(
        self, op: Operation[R], table: Table[Pool], member: Member[Pool], error: MetacacheError, deadline: float
    ) -> R:
        """Make of a failed operation what can be made: run it again if surely nothing was sent, else raise *error*."""
        if isinstance(error, ClosedError):
            if self._closed or self._table is table:
                raise error
            return self._run_carefully(op, deadline)  # the nodes were set meanwhile, and this one was drained
        if is_node_failure(error):
            self._keeper.failed(table, member, monotonic())
        if isinstance(error, ConnectError) and member.health.is_down and self._moves:
            return self._run_carefully(op, deadline)
        raise error

    def run_batch(self, batch: Batch, /, *, deadline: float) -> Replies:
        """Send *batch* to all of its nodes at the same time; return a reply or an error for each request.

        *deadline* as in `run`; ``math.inf``: ``Settings.timeout`` from now. Raises ClosedError and ValueTooLargeError
        before a byte is sent. Every other failure is in the replies.
        """
        if not len(batch):
            return Replies()
        try:
            deadline = monotonic() + self._settings.timeout if deadline == math.inf else deadline
            return drive_exchange(self._begin(batch, deadline), deadline)
        except BaseException as error:
            clear_frames(error)
            raise

    def _begin(self, batch: Batch, deadline: float) -> ClusterExchange:
        """Start *batch* on all of its nodes. Raises ClosedError and ValueTooLargeError."""
        if self._closed:
            raise ClosedError("the cluster was closed", operation=batch.verb.name)
        check_bodies(batch, self._settings.max_value_size)  # the whole of it, before a part is sent
        self._probe_those_due(batch, deadline)
        exchange = ClusterExchange(batch, lambda: self._table, self._keeper, deadline=deadline, now=monotonic())
        try:
            exchange.begin()
        except BaseException:
            exchange.outcomes()
            raise
        return exchange

    def _probe_those_due(self, batch: Batch, deadline: float) -> None:
        table, now = self._table, monotonic()
        for member in table.due(batch.keys, now):
            # All of them within half of the time: the rest is the batch's.
            self._probe(table, member, (now + deadline) / 2)

    def close(self) -> None:
        """Close all pools. What runs is let finish, what waits or comes is refused with ClosedError.

        Closing twice is nothing.
        """
        with self._lock:  # so that nobody sets other nodes meanwhile
            self._closed = True
        for attached in self._attached:
            attached.close()
        for member in self._table.members.values():
            member.pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()

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
        before, now = self._replace(nodes_of(nodes))
        for pool in before.pools_gone_in(now):
            pool.close()

    def _replace(self, nodes: Sequence[Node]) -> tuple[Table[Pool], Table[Pool]]:
        """Set *nodes*; return the tables before and now."""
        with self._lock:
            while not self._closed:
                before = self._table
                table = self._table_of(nodes, before)
                # Once more if a signal's handler has set other nodes meanwhile, or closed the cluster.
                if self._table is before and not self._closed:
                    self._table = table
                    return before, table
        raise ClosedError("the cluster was closed", operation="set_nodes")

    def attach(self, closeable: _Closeable) -> None:
        """Have *closeable* closed with the cluster: what watches a source of nodes, for one."""
        with self._lock:  # either `close` finds it, or it finds the cluster closed
            self._attached.append(closeable)
            is_late = self._closed
        if is_late:
            closeable.close()

    def reset_after_fork(self) -> None:
        """In a forked child: replace the lock, which a thread of the parent may have held."""
        self._lock = threading.RLock()
        self._keeper = self._keeper.guarded_by(self._lock)

    # --- clients -----------------------------------------------------------------------------------------------------

    @classmethod
    def from_url(cls, url: str, *, settings: Settings = DEFAULTS) -> Cluster:
        """Return the cluster of the nodes that *url* names; see `connect` for how it is written.

        *settings*: what the URL does not say. Raises InvalidArgumentError naming the part of the URL that is wrong.
        """
        # A stated cycle, as in `client`: what clients and URLs are stands above clusters, which only open the door.
        from metacache.connect import open_cluster

        return open_cluster(url, settings)

    @overload
    def client(self, *, serializer: None = None, **options: Unpack[ClientOptions]) -> Client[bytes]: ...
    @overload
    def client(
        self, type_: type[Builtin], *, serializer: None = None, **options: Unpack[ClientOptions]
    ) -> Client[Builtin]: ...
    @overload
    def client(
        self, type_: type[T], *, serializer: str | Serializer[T], **options: Unpack[ClientOptions]
    ) -> Client[T]: ...
    @overload
    def client(
        self, type_: TypeForm[T], *, serializer: str | Serializer[T], **options: Unpack[ClientOptions]
    ) -> Client[T]: ...
    def client(
        self,
        type_: Any = bytes,  # Any: a type expression; the overloads say which
        *,
        serializer: str | Serializer[Any] | None = None,  # Any: as above
        **options: Unpack[ClientOptions],
    ) -> Client[Any]:
        """Return a client of values of *type_* on this cluster, which stays open when the client is closed.

        *serializer*: the name of an installed one or a Serializer; left out for bytes, str and int. *options*: see
        `ClientOptions`. Raises SerializerNotFound, InvalidArgumentError.
        """
        from metacache.client.blocking import Client
        from metacache.connect import serializer_for

        return Client(self, serializer_for(type_, serializer), **options)

    # --- every node --------------------------------------------------------------------------------------------------

    def ping(self) -> dict[Node, bool | MetacacheError]:
        """Ask every node for a sign of life; return True or the error for each. Tells nothing to the health."""
        return self._each(admin.ping)

    def version(self) -> dict[Node, str | MetacacheError]:
        """Return every node's version, or its error."""
        return self._each(admin.version)

    def stats(self, arg: str = "") -> dict[Node, dict[str, str] | MetacacheError]:
        """Return every node's ``stats arg`` by name, or its error. Raises InvalidArgumentError."""
        return self._each(partial(admin.stats, arg))

    def flush_all(self, delay: int = 0) -> dict[Node, bool | MetacacheError]:
        """Expire all items in *delay* seconds; return True or the error for each node. Raises InvalidArgumentError."""
        return self._each(partial(admin.flush_all, delay))

    def cache_memlimit(self, megabytes: int) -> dict[Node, bool | MetacacheError]:
        """Set every node's memory, at least 8 *megabytes*; return True or the error for each.

        A node that refuses the number has a ClientError. Raises InvalidArgumentError.
        """
        return self._each(partial(admin.cache_memlimit, megabytes))

    def verbosity(self, level: int) -> dict[Node, bool | MetacacheError]:
        """Set every node's log level, 0 to 3; return True or the error for each. Raises InvalidArgumentError."""
        return self._each(partial(admin.verbosity, level))

    def _each(self, operation: Callable[[], Operation[R]]) -> dict[Node, R | MetacacheError]:
        operation()  # a bad argument is raised here
        if self._closed:
            raise ClosedError("the cluster was closed")
        return ask_each(self._table.by_node(), operation)
