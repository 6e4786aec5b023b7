"""Who keeps the health of a cluster's nodes: what happened goes in, changes of state are told. Shared by both clusters.

Applies the transitions of `health` under a guard that is given (a re-entrant lock, or nothing under an event loop),
tells the listener outside of it. Knows no pool and no clock.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final, TypeAlias, TypeVar, final

from metacache.cluster.health import Health, NodeState
from metacache.cluster.table import Member, Table
from metacache.errors import ConnectError, ConnectionLost, OperationTimeout
from metacache.interrupts import is_from_handler
from metacache.nodes import Node
from metacache.protocol.windows import Replies

__all__ = ["HealthTracker", "StateListener", "is_node_failure", "verdict"]

logger = logging.getLogger("metacache.cluster")

P = TypeVar("P")

StateListener: TypeAlias = Callable[[Node, NodeState, NodeState], object]
"""Called with a node, the state it was in and the one it is in now."""

# A probe whose caller vanished is forgotten after so many seconds, and another may ask.
PROBE_LEASE: Final = 30.0
_EVENTS: Final = (ConnectError, ConnectionLost, OperationTimeout)


def is_node_failure(error: object) -> bool:
    """Tell whether *error* says something of the node: a failed connection or a timeout, not a full pool."""
    return isinstance(error, _EVENTS) and not error.is_local


def verdict(replies: Replies) -> bool | None:
    """Return what the replies of one connection say of its node: False failed, True answered, None nothing.

    However many requests failed with it, it is one event.
    """
    if any(map(is_node_failure, replies.errors.values())):
        return False
    return True if any(replies.headers) else None


@final
class HealthTracker:
    """Changes the members' health, one change at a time."""

    __slots__ = ("_guard", "_listener")

    def __init__(
        self, guard: AbstractContextManager[Any], listener: StateListener | None
    ) -> None:  # Any: of no use here
        self._guard = guard
        self._listener = listener

    def guarded_by(self, guard: AbstractContextManager[Any]) -> HealthTracker:  # Any: as above
        """Return a keeper with another guard."""
        return HealthTracker(guard, self._listener)

    def failed(self, table: Table[P], member: Member[P], now: float) -> None:
        """Note one connection event."""
        self._change(table, member, now, lambda health: health.failed(now, random.random()))

    def succeeded(self, table: Table[P], member: Member[P], now: float) -> None:
        """Note a reply."""
        self._change(table, member, now, Health.succeeded)

    def start_probe(self, member: Member[P], now: float) -> bool:
        """Tell whether the caller is the one to probe *member* now."""
        with self._guard:
            before, after = _step(
                member, lambda health: health.probing(now + PROBE_LEASE) if health.may_probe(now) else health
            )
        if after is before:
            return False
        self._tell(member.node, before.state, after.state)
        return True

    def end_probe(self, table: Table[P], member: Member[P], now: float, found: bool | None) -> None:
        """Note what a probe found: True an answer, False none, None nothing (interrupted, or the pool was full)."""
        steps: dict[bool | None, Callable[[Health], Health]] = {
            True: Health.probe_answered,
            False: lambda health: health.probe_failed(now, random.random()),
            None: Health.probe_abandoned,
        }
        self._change(table, member, now, steps[found])

    def _change(self, table: Table[P], member: Member[P], now: float, step: Callable[[Health], Health]) -> None:
        with self._guard:
            before, after = _step(member, step)
            if before.is_down != after.is_down:
                member.down_since = now
                table.recount()
        if before.state is not after.state:
            self._tell(member.node, before.state, after.state)

    def _tell(self, node: Node, before: NodeState, after: NodeState) -> None:
        level = logging.WARNING if after is NodeState.DOWN and before is NodeState.SUSPECT else logging.INFO
        logger.log(level, "node %s is %s (was %s)", node.name, after.value, before.value)
        if self._listener is None:
            return
        try:
            self._listener(node, before, after)
        except Exception as error:
            if is_from_handler(error):
                raise
            logger.exception("the listener for states of nodes failed")


def _step(member: Member[P], step: Callable[[Health], Health]) -> tuple[Health, Health]:
    """Take *member* one step on; return its health before and after."""
    while True:
        before = member.health
        after = step(before)
        # The guard lets the thread that has it in once more: a signal's handler may have taken steps meanwhile. From
        # here to the store nothing is called, so no handler can come in between.
        if member.health is before:
            member.health = after
            return before, after
