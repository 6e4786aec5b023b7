"""`Membership`: the current snapshot of a cluster's nodes, and the only code that replaces it. Shared by both clusters.

It receives the results of requests and applies the transitions of `health`. It logs changes of state, and reports them
to the cluster's listener. A writer makes the next snapshot without a lock, and makes another one if the snapshot has
changed meanwhile. The *guard* admits one writer at a time to the assignment: a re-entrant lock, or nothing under an
event loop. This module opens no socket and reads no clock, and it calls no method of a pool.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Generic, TypeAlias, TypeVar, final

from metacache.cluster.health import Health, is_node_failure
from metacache.cluster.snapshot import Member, Snapshot
from metacache.errors import ClosedError, InvalidTypeError
from metacache.interrupts import is_from_handler
from metacache.logs import logger_of
from metacache.marks import override
from metacache.nodes import Node, nodes_of
from metacache.observe import NodesChanged, NodeState, Reporter, Retried, StateChanged
from metacache.protocol.keys import Key
from metacache.routing import Router

__all__ = ["Membership", "StateListener"]

P = TypeVar("P")

StateListener: TypeAlias = Callable[[Node, NodeState, NodeState], object]
"""Called with a node, its state before and its state now."""

# Seconds after which another caller may probe, if the one that probes never reports a result.
PROBE_LEASE: Final = 30.0


def _check_functions(make_router: object, listener: object) -> None:
    if not callable(make_router):
        raise InvalidTypeError(
            f"router is a function that makes a router of the nodes, such as RendezvousRouter without its arguments, "
            f"not an object of class {type(make_router).__name__}"
        )
    if listener is not None and not callable(listener):
        raise InvalidTypeError(f"on_state_change is a function of (node, before, now), not {type(listener).__name__}")


@final
class Membership(Generic[P]):
    """See the module.

    Args:
        make_router: makes the router of a set of nodes.
        keys_move: the keys of a node that is down go to the next-ranked node.
        guard: admits one writer at a time to the assignment, and a signal handler that interrupts this writer.
        listener: called after a node's state has changed, without the guard.
        reporter: reports changes of states and nodes, and second attempts; None: nothing is reported.
    """

    __slots__ = ("_listener", "_make_router", "_reporter", "guard", "is_closed", "snapshot")

    def __init__(
        self,
        make_router: Callable[[Sequence[Node]], Router],
        *,
        keys_move: bool,
        guard: AbstractContextManager[Any],  # Any: what entering it returns is not used
        listener: StateListener | None,
        reporter: Reporter | None = None,
    ) -> None:
        _check_functions(make_router, listener)
        self._make_router = make_router
        self._listener = listener
        self._reporter = reporter
        self.guard = guard
        self.is_closed = False
        self.snapshot: Snapshot[P] = Snapshot[P].empty(keys_move=keys_move)

    @override
    def __repr__(self) -> str:
        return "closed" if self.is_closed else repr(self.snapshot)

    # --- the set of nodes --------------------------------------------------------------------------------------------

    def set_nodes(self, nodes: Iterable[Node], make_pool: Callable[[Node], P]) -> list[P]:
        """Replace the set of nodes; return the pools of the removed nodes. The caller closes them.

        Nodes of the same name and address keep their pool and their health. Raises ClosedError. Raises
        InvalidArgumentError, and changes nothing, if there are no nodes or two have the same name.
        """
        before, after = self._replace(nodes_of(nodes), make_pool)
        if self._reporter is not None and before.members and before.router.nodes != after.router.nodes:
            self._reporter.happened(NodesChanged(tuple(before.router.nodes), tuple(after.router.nodes)))
        return before.pools_missing_in(after)

    def _replace(self, nodes: Sequence[Node], make_pool: Callable[[Node], P]) -> tuple[Snapshot[P], Snapshot[P]]:
        self.check_open("set_nodes")
        router = self._make_router(nodes)
        members = known = None
        while not self.is_closed:
            before = self.snapshot
            if members is None or known is not before.members:  # changes of health keep the members
                members, known = before.members_of(router, make_pool), before.members
            after = before.with_members(router, members)
            if self._put(before, after):
                return before, after
        raise ClosedError("the cluster was closed", operation="set_nodes")

    def _put(self, before: Snapshot[P], after: Snapshot[P]) -> bool:
        """Replace the snapshot by *after* if it still is *before*, and if this is open; return whether it was done.

        The guard is held for two comparisons only. The operation of a thread that waits for the guard cannot end at its
        deadline, and the holder may wait long for the lock of the interpreter.
        """
        with self.guard:
            # A signal handler that interrupts this thread may enter the guard too. No handler runs between these checks
            # and the assignment, because there is no call.
            if self.snapshot is not before or self.is_closed:
                return False
            self.snapshot = after
            return True

    def close(self) -> None:
        """Refuse other nodes from now on. Idempotent."""
        with self.guard:  # so that no thread is between its check of `is_closed` and its change
            self.is_closed = True

    def check_open(self, operation: str | None = None, key: Key | None = None) -> None:
        """Raise ClosedError if the cluster was closed."""
        if self.is_closed:
            raise ClosedError("the cluster was closed", operation=operation, key=key)

    def states(self) -> dict[Node, NodeState]:
        """Return the state of each node."""
        snapshot = self.snapshot
        return {node: snapshot.healths[node.name].state for node in snapshot.router.nodes}

    def note_retry(self, node: Node, verb: str, error: BaseException) -> None:
        """Report that a request of *verb*, which ended with *error* on *node*, is sent to another node."""
        if self._reporter is not None:
            self._reporter.happened(Retried(verb, node, type(error)))

    # --- health ------------------------------------------------------------------------------------------------------

    def failed(self, member: Member[P], now: float) -> None:
        """Count one failure of *member*."""
        self._change(member, lambda health: health.failed(now, _chance()))

    def connection_failed(self, node: Node, error: object, now: float) -> None:
        """Count *error*, which ended a connection to *node*, if it is a failure of the node.

        Does not count it if the node left the set, or if its name has another address now.
        """
        member = self.snapshot.members.get(node.name)
        if member is not None and member.node.address == node.address and is_node_failure(error):
            self.failed(member, now)

    def succeeded(self, member: Member[P]) -> None:
        """Record that *member* sent a reply."""
        if not self.snapshot.is_all_healthy:
            self._change(member, Health.succeeded)

    def start_probe(self, member: Member[P], now: float) -> bool:
        """Return True if the caller must probe *member* now, and then report the result to `end_probe`."""
        return self._change(
            member, lambda health: health.probing(now + PROBE_LEASE) if health.may_probe(now) else health
        )

    def end_probe(self, member: Member[P], now: float, is_answered: bool | None) -> None:
        """Record the result of a probe: True answered, False failed, None no result (interrupted, or a full pool)."""
        steps: dict[bool | None, Callable[[Health], Health]] = {
            True: Health.probe_answered,
            False: lambda health: health.probe_failed(now, _chance()),
            None: Health.probe_abandoned,
        }
        self._change(member, steps[is_answered])

    def _change(self, member: Member[P], step: Callable[[Health], Health]) -> bool:
        """Apply *step* to the health of *member*; return whether that changed it.

        A result for a node that left the set changes nothing, even if the node has returned: it then has another pool
        and another health.
        """
        while True:
            snapshot = self.snapshot
            if self.is_closed or not snapshot.has(member):
                return False
            before = snapshot.healths[member.node.name]
            after = step(before)
            if after is before:
                return False
            if self._put(snapshot, snapshot.with_health(member.node.name, after)):
                break
        if before.state is not after.state:
            self._report(member.node, before.state, after.state)
        return True

    def _report(self, node: Node, before: NodeState, after: NodeState) -> None:
        logger = logger_of("metacache.cluster")
        change = ("node %s is %s (was %s)", node.name, after.value, before.value)
        if after is NodeState.DOWN and before is NodeState.SUSPECT:
            logger.warning(*change)
        else:
            logger.info(*change)
        if self._reporter is not None:
            self._reporter.happened(StateChanged(node, before, after))
        if self._listener is None:
            return
        try:
            self._listener(node, before, after)
        except Exception as error:
            if is_from_handler(error):
                raise
            logger.exception("on_state_change failed for node %s", node.name)


def _chance() -> float:
    import random  # late: only after a failure of a node

    return random.random()
