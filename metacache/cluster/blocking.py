"""`Cluster`: many weighted nodes as one transport. A key goes to its node's pool, a batch to several pools.

It guards the set of nodes and their health with a lock, and reads the clock. Decisions that both clusters share are in
`serving` (probe, second attempt), `snapshot` (which node serves a key) and `membership`. The pools send and receive.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, ClassVar, Final, Protocol, Self, TypeVar, Unpack, final, overload

from metacache.cluster import admin, serving
from metacache.cluster.blocking_admin import ask_each
from metacache.cluster.blocking_batch import ClusterExchange
from metacache.cluster.health import is_node_failure
from metacache.cluster.membership import Membership, StateListener
from metacache.cluster.snapshot import Member
from metacache.copying import refuse_copy
from metacache.errors import ClosedError, MetacacheError, TransportError
from metacache.interrupts import clear_frames, is_own
from metacache.marks import TypeForm, override
from metacache.nodes import Node
from metacache.observe import NodeState, Observer, reporter_of
from metacache.pool.blocking import Pool
from metacache.protocol.windows import Replies
from metacache.routing import RendezvousRouter, Router
from metacache.settings import Settings, check_settings
from metacache.transports.blocking.driver import drive
from metacache.transports.blocking.exchange import drive_exchange
from metacache.transports.forking import forget_in_children
from metacache.transports.limits import check_bodies

if TYPE_CHECKING:
    from types import TracebackType

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
class _Effects:
    """The effects of `serving`. `run` blocks, and counts the failures of nodes."""

    __slots__ = ("_nodes",)

    def __init__(self, nodes: Membership[Pool]) -> None:
        self._nodes = nodes

    def now(self) -> float:
        return monotonic()

    async def run(self, member: Member[Pool], op: Operation[R], /, *, deadline: float) -> R:
        try:
            return member.pool.run(op, deadline=deadline)
        except TransportError as error:
            if is_own(error):
                self.count(member, error)
            raise

    def count(self, member: Member[Pool], error: MetacacheError) -> None:
        if is_node_failure(error):
            self._nodes.failed(member, monotonic())


@final
class Cluster:
    """A pool for each of many nodes, and a router that chooses the node of a key. Threads may share it.

    A node is down after three failures in a row (a failed connection or a timeout). Then its operations fail
    immediately with NodeDownError. With ``on_node_down="next"`` they go to the next-ranked node, while at most half
    of the weight is down. After half a second, then after pauses that double up to 30 seconds, one caller probes it.

    Args:
        nodes: the nodes; names must differ.
        settings: of every pool and connection, and ``on_node_down``.
        router: makes a Router of the nodes.
        observer: is called with the events of the cluster and its pools; see `Observer`.
        on_state_change: called with (node, state before, state now), in the thread that noticed the change. It must
            not block.

    Raises InvalidArgumentError if there are no nodes, or if two have the same name.
    """

    RETURNS_ANSWERS: ClassVar = True  # see `returns_answers`

    __reduce_ex__ = refuse_copy
    __slots__ = ("__weakref__", "_attached", "_effects", "_make_pool", "_membership", "_settings", "observer")

    def __init__(
        self,
        nodes: Iterable[Node],
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
        self._make_pool = partial(Pool, settings=settings, observer=self.observer)
        self._attached: list[_Closeable] = []
        self._membership: Membership[Pool] = Membership(
            router,
            keys_move=settings.on_node_down == "next",
            # Re-entrant: a signal handler that uses the cluster would wait forever for the thread that it interrupted.
            guard=threading.RLock(),
            listener=on_state_change,
            reporter=self.observer,
        )
        self._effects = _Effects(self._membership)
        self._membership.set_nodes(nodes, self._make_pool)
        forget_in_children(self)

    @override
    def __repr__(self) -> str:
        return f"<Cluster: {self._membership!r}>"

    # --- the transport -----------------------------------------------------------------------------------------------

    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:
        """Send *op* to the node of its key, wait for its reply and return ``op.read(reply)``.

        *deadline*: a ``time.monotonic()`` time; None: ``Settings.timeout`` from now. Raises NodeDownError if that node
        is down, and the errors of `Pool.run`.
        """
        began = monotonic()
        snapshot = self._membership.snapshot
        all_healthy = snapshot.is_all_healthy
        member = snapshot.members[snapshot.pick(op.key).name] if all_healthy else snapshot.healthy_owner(op.key)
        if member is None:
            return self._run_carefully(op, began, deadline)
        try:
            return member.pool.run(op, deadline=deadline)
        except (TransportError, ClosedError) as error:
            if not is_own(error):
                raise
            self._effects.count(member, error)
            if not serving.may_run_again(self._membership, member, op.verb.name, error):
                raise
        except BaseException as error:
            clear_frames(error)
            raise
        return self._run_carefully(op, began, deadline)

    def _run_carefully(self, op: Operation[R], began: float, deadline: float | None) -> R:
        """Run *op* where a probe, another node or a second attempt may be needed. It started at the time *began*."""
        until = began + self._settings.timeout if deadline is None else deadline
        return drive(serving.run(self._membership, self._effects, op, until))

    def run_batch(self, batch: Batch, /, *, deadline: float) -> Replies:
        """Send *batch* to all of its nodes at the same time; return a reply or an error for each request.

        *deadline* as in `run`; ``math.inf``: ``Settings.timeout`` from now. Raises ClosedError and ValueTooLargeError
        before a byte is sent, and InvalidArgumentError if a router of the user chooses an unknown node. Every other
        failure is in the replies.
        """
        if not batch.heads:
            return Replies()
        try:
            deadline = monotonic() + self._settings.timeout if deadline == math.inf else deadline
            return drive_exchange(self._begin(batch, deadline), deadline)
        except BaseException as error:
            clear_frames(error)
            raise

    def _begin(self, batch: Batch, deadline: float) -> ClusterExchange:
        """Start *batch* on all of its nodes. Raises ClosedError and ValueTooLargeError."""
        self._membership.check_open(batch.verb.name)
        check_bodies(batch, self._settings.max_value_size)  # all of it, before a part is sent
        self._probe_due(batch, deadline)
        exchange = ClusterExchange(batch, self._membership, deadline=deadline, now=monotonic())
        try:
            exchange.begin()
        except BaseException:
            exchange.outcomes()
            raise
        return exchange

    def _probe_due(self, batch: Batch, deadline: float) -> None:
        now = monotonic()
        for member in self._membership.snapshot.due(batch.keys, now):
            # One probe after the other, all within half of the time. The other half is for the batch.
            drive(serving.probe(self._membership, self._effects, member, (now + deadline) / 2))

    def close(self) -> None:
        """Close all pools: running requests finish, waiting and new ones are refused with ClosedError. Idempotent."""
        self._membership.close()
        for attached in self._attached:
            attached.close()
        for member in self._membership.snapshot.members.values():
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
        """The router of the current nodes."""
        return self._membership.snapshot.router

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The current nodes."""
        return self._membership.snapshot.router.nodes

    @property
    def states(self) -> dict[Node, NodeState]:
        """The state of each node."""
        return self._membership.states()

    @property
    def statistics(self) -> dict[Node, PoolStatistics]:
        """The statistics of each node's pool."""
        return {node: member.pool.statistics for node, member in self._membership.snapshot.by_node().items()}

    def set_nodes(self, nodes: Iterable[Node]) -> None:
        """Replace the set of nodes in one step. Nodes of the same name and address keep their connections and health.

        The pools of removed nodes are drained: requests that run on them finish. Raises ClosedError;
        InvalidArgumentError, and changes nothing, if there are no nodes or two have the same name.
        """
        for pool in self._membership.set_nodes(nodes, self._make_pool):
            pool.close()

    def attach(self, closeable: _Closeable) -> None:
        """Register *closeable*: the close of the cluster closes it too. An example is the watch of a node source."""
        with self._membership.guard:  # either `close` finds it in the list, or the cluster is already closed
            self._attached.append(closeable)
            is_late = self._membership.is_closed
        if is_late:
            closeable.close()

    def reset_after_fork(self) -> None:
        """In a forked child: replace the lock, because a thread of the parent may have held it."""
        self._membership.guard = threading.RLock()

    # --- clients -----------------------------------------------------------------------------------------------------

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        settings: Settings = DEFAULTS,
        observer: Observer | None = None,
        on_state_change: StateListener | None = None,
    ) -> Cluster:
        """Return a cluster of the nodes of *url*. `connect` describes the forms of a URL.

        *settings*: the settings that the URL does not set. *observer*, *on_state_change*: see the class. Raises
        InvalidArgumentError that names the invalid part of the URL.
        """
        # A late import of a room above: the public contract has a cluster open itself from a URL, as `connect` does.
        from metacache.connecting import open_cluster

        return open_cluster(url, settings, observer, on_state_change)

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
        type_: type[T] | TypeForm[T] = bytes,  # type: ignore[assignment]  # the first overload: T is bytes
        *,
        serializer: str | Serializer[T] | None = None,
        **options: Unpack[ClientOptions],
    ) -> Client[T]:
        """Return a client that stores values of *type_* on this cluster. Closing the client leaves the cluster open.

        *serializer*: a Serializer, or the name of an installed one. Leave it out for bytes, str and int. *options*: see
        `ClientOptions`. Raises SerializerNotFound, InvalidArgumentError.
        """
        # Late imports of rooms above: the public contract has a cluster make clients.
        from metacache.client.blocking import Client
        from metacache.serializers.choice import serializer_for

        return Client(self, serializer_for(type_, serializer), **options)

    # --- every node --------------------------------------------------------------------------------------------------

    def ping(self) -> dict[Node, bool | MetacacheError]:
        """Send a no-op to every node; return True or the error, by node.

        A failed connection counts against its node, as after any operation. An answer does not change a node's state.
        """
        return self._each(admin.ping)

    def version(self) -> dict[Node, str | MetacacheError]:
        """Return the version or the error, by node."""
        return self._each(admin.version)

    def stats(self, arg: str = "") -> dict[Node, dict[str, str] | MetacacheError]:
        """Return the reply to ``stats arg`` (a dict by name) or the error, by node. Raises InvalidArgumentError."""
        return self._each(partial(admin.stats, arg))

    def flush_all(self, delay: int = 0) -> dict[Node, bool | MetacacheError]:
        """Expire all items in *delay* seconds; return True or the error, by node. Raises InvalidArgumentError."""
        return self._each(partial(admin.flush_all, delay))

    def cache_memlimit(self, megabytes: int) -> dict[Node, bool | MetacacheError]:
        """Set the memory of every node, at least 8 *megabytes*; return True or the error, by node.

        The error of a node that refuses the number is a ClientError. Raises InvalidArgumentError.
        """
        return self._each(partial(admin.cache_memlimit, megabytes))

    def verbosity(self, level: int) -> dict[Node, bool | MetacacheError]:
        """Set the log level of every node, 0 to 3; return True or the error, by node. Raises InvalidArgumentError."""
        return self._each(partial(admin.verbosity, level))

    def _each(self, operation: Callable[[], Operation[R]]) -> dict[Node, R | MetacacheError]:
        operation()  # raises for a wrong argument before anything is sent
        self._membership.check_open()
        answers = ask_each(self._membership.snapshot.by_node(), operation)
        for node, answer in answers.items():
            self._membership.connection_failed(node, answer, monotonic())
        return answers
