"""Decides when to poll a source, and which node to change next. Pure, and shared by both watches.

`Plan` is a frozen state with transitions. The caller passes the time in seconds, and a random number from 0 to 1.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final, final

import attrs

from metacache.errors import InvalidArgumentError
from metacache.marks import override
from metacache.nodes import Node
from metacache.settings import Settings

__all__ = ["Plan", "next_nodes", "node_set_problem"]

# The random part of the poll interval, so that many clients do not poll at the same time.
JITTER: Final = 0.2
# Seconds. Locks and event loops limit the time of a wait. A watch that wakes too early waits again.
LONGEST_PAUSE: Final = 3600.0


@final
@attrs.frozen(kw_only=True)
class Plan:
    """The state of a watch: its nodes, and the times of the next poll and the next change.

    Attributes:
        poll_interval, change_interval: those of `Settings`.
        current: the nodes that are applied, sorted by name; at least one.
        target: the nodes of the last good answer, sorted by name.
        poll_at: the time of the next poll.
        change_at: the earliest time of the next change.
        is_failing: True if the last answer was not usable.
        is_refused: True if the last change could not be applied.
    """

    poll_interval: float
    change_interval: float
    current: tuple[Node, ...]
    target: tuple[Node, ...]
    poll_at: float
    change_at: float = -math.inf
    is_failing: bool = False
    is_refused: bool = False

    @classmethod
    def of(cls, settings: Settings, first: Sequence[Node], now: float, chance: float) -> Plan:
        """Return the plan of a watch that begins at *now* and whose *first* nodes are already applied.

        Raises InvalidArgumentError if these are not usable.
        """
        problem = node_set_problem(first)
        if problem is not None:
            raise InvalidArgumentError(f"the first nodes of a watch: {problem}")
        nodes = _in_order(first)
        interval = settings.poll_interval
        return cls(
            poll_interval=interval,
            change_interval=settings.change_interval,
            current=nodes,
            target=nodes,
            poll_at=now + _jittered(interval, chance),
        )

    @override
    def __str__(self) -> str:
        state = "failing" if self.is_failing else "settled" if self.is_settled else "changing"
        return f"{len(self.current)} nodes, {state}"

    @property
    def is_settled(self) -> bool:
        """True if the current nodes are those of the last good answer."""
        return self.current == self.target

    def pause(self, now: float) -> float:
        """Return the seconds until the next poll or change, at most 3600."""
        wake_at = self.poll_at if self.is_settled else min(self.poll_at, self.change_at)
        return min(max(wake_at - now, 0.0), LONGEST_PAUSE)

    def change(self, now: float) -> tuple[Node, ...] | None:
        """Return the nodes to apply at *now*, which differ from the current ones by one node; None if none are due."""
        if self.is_settled or now < self.change_at:
            return None
        return next_nodes(self.current, self.target)

    def applied(self, nodes: tuple[Node, ...], now: float) -> Plan:
        """Return the plan after *nodes* were applied."""
        return attrs.evolve(self, current=nodes, change_at=now + self.change_interval, is_refused=False)

    def refused(self, now: float) -> Plan:
        """Return the plan after a change was refused. The next good answer leads to another attempt."""
        return attrs.evolve(self, target=self.current, change_at=now + self.change_interval, is_refused=True)

    def is_poll_due(self, now: float) -> bool:
        """Return whether a poll is due at *now*."""
        return now >= self.poll_at

    def answered(self, nodes: Sequence[Node], now: float, chance: float) -> Plan:
        """Return the plan after a usable answer."""
        poll_at = now + _jittered(self.poll_interval, chance)
        return attrs.evolve(self, target=_in_order(nodes), poll_at=poll_at, is_failing=False)

    def failed(self, now: float, chance: float) -> Plan:
        """Return the plan after a failed poll or an unusable answer. It keeps the nodes of the last good answer."""
        return attrs.evolve(self, poll_at=now + _jittered(self.poll_interval, chance), is_failing=True)


def node_set_problem(nodes: Sequence[object]) -> str | None:
    """Return why *nodes* cannot be the nodes of a cluster; None if they can."""
    if not nodes:
        return "there are none"
    found = [node for node in nodes if isinstance(node, Node)]
    if len(found) < len(nodes):
        return f"{len(nodes) - len(found)} of {len(nodes)} are not a Node"
    twice = [name for name, count in Counter(node.name for node in found).items() if count > 1]
    if twice:
        return f"two have the name {min(twice)}"
    return None if any(node.weight for node in found) else "all have weight 0"


# The order of changes. A new address comes first: it moves no key, and the old address is probably dead. Nodes that
# gain keys come before nodes that lose keys, so the cluster always has a node with a weight above 0.
_MOVE, _ADD, _REWEIGHT, _DRAIN, _REMOVE = range(5)


def _rank(old: Node | None, new: Node | None) -> int:
    if new is None:
        return _REMOVE
    if old is None:
        return _ADD
    if old.weight == new.weight:
        return _MOVE
    return _REWEIGHT if new.weight else _DRAIN


def next_nodes(current: Sequence[Node], target: Sequence[Node]) -> tuple[Node, ...]:
    """Return *current* with one node added, removed or replaced, as *target* has it, sorted by name.

    The choice is deterministic: all clients change the same nodes in the same order.
    """
    have = {node.name: node for node in current}
    want = {node.name: node for node in target}
    changes = [name for name in have.keys() | want.keys() if have.get(name) != want.get(name)]
    if changes:
        name = min(changes, key=lambda name: (_rank(have.get(name), want.get(name)), name))
        if name in want:
            have[name] = want[name]
        else:
            del have[name]
    return _in_order(tuple(have.values()))


def _in_order(nodes: Sequence[Node]) -> tuple[Node, ...]:
    return tuple(sorted(nodes, key=lambda node: node.name))


def _jittered(interval: float, chance: float) -> float:
    return interval * (1 - JITTER + 2 * JITTER * chance)
