"""When to ask a source next, and which nodes to have meanwhile. Pure, and shared by both watches.

A value and its transitions; time is a number of seconds, chance a number between 0 and 1. Knows no source, no clock and
no cluster.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final, final

import attrs
from typing_extensions import override

from metacache.errors import InvalidArgumentError
from metacache.nodes import Node
from metacache.settings import Settings

__all__ = ["Plan", "next_nodes", "unusable"]

# A poll comes this much sooner or later by chance, so that many clients do not ask at once.
JITTER: Final = 0.2
# What a lock or an event loop can be told to wait is limited; who wakes early waits again.
LONGEST_PAUSE: Final = 3600.0


@final
@attrs.frozen(kw_only=True)
class Plan:
    """How the nodes stand at one time, and what comes next.

    Attributes:
        poll_interval, change_interval: those of `Settings`.
        current: the nodes as applied, in the order of names; never none.
        target: the nodes of the last good answer, in the order of names.
        poll_at: when to ask the source.
        change_at: when the next change may be applied.
        is_failing: the last answer was not usable.
        is_refused: the last change could not be applied.
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
        """Return the plan of a watch that begins at *now*, with the *first* nodes applied already.

        Raises InvalidArgumentError when these are not usable.
        """
        problem = unusable(first)
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
        """True when no change waits for its time."""
        return self.current == self.target

    def pause(self, now: float) -> float:
        """Return for how many seconds there is nothing to do; at most an hour, after which to ask again."""
        wake_at = self.poll_at if self.is_settled else min(self.poll_at, self.change_at)
        return min(max(wake_at - now, 0.0), LONGEST_PAUSE)

    def change(self, now: float) -> tuple[Node, ...] | None:
        """Return the nodes to apply at *now*, one change away from the current ones; None when it is not time."""
        if self.is_settled or now < self.change_at:
            return None
        return next_nodes(self.current, self.target)

    def applied(self, nodes: tuple[Node, ...], now: float) -> Plan:
        """Return the plan after *nodes* were applied."""
        return attrs.evolve(self, current=nodes, change_at=now + self.change_interval, is_refused=False)

    def refused(self, now: float) -> Plan:
        """Return the plan after a change could not be applied: it is tried again after the next good answer."""
        return attrs.evolve(self, target=self.current, change_at=now + self.change_interval, is_refused=True)

    def wants_poll(self, now: float) -> bool:
        """Tell whether the source is to be asked at *now*."""
        return now >= self.poll_at

    def answered(self, nodes: Sequence[Node], now: float, chance: float) -> Plan:
        """Return the plan after an answer that is usable."""
        poll_at = now + _jittered(self.poll_interval, chance)
        return attrs.evolve(self, target=_in_order(nodes), poll_at=poll_at, is_failing=False)

    def failed(self, now: float, chance: float) -> Plan:
        """Return the plan after no answer, or one that is not usable: the nodes of the last good one stay."""
        return attrs.evolve(self, poll_at=now + _jittered(self.poll_interval, chance), is_failing=True)


def unusable(nodes: Sequence[object]) -> str | None:
    """Return why *nodes* can not be those of a cluster; None when they can."""
    if not nodes:
        return "there are none"
    found = [node for node in nodes if isinstance(node, Node)]
    if len(found) < len(nodes):
        return f"{len(nodes) - len(found)} of {len(nodes)} are no Node"
    twice = [name for name, count in Counter(node.name for node in found).items() if count > 1]
    if twice:
        return f"two have the name {min(twice)}"
    return None if any(node.weight for node in found) else "all have weight 0"


# The order of changes. A new address moves no key, and the old one is most likely dead. What takes keys comes before
# what gives them up: so there are always nodes, and of a weight above 0.
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
    """Return *current* with one node added, removed or replaced as it is in *target*, in the order of names.

    Which one is no matter of chance: every client that knows both takes the same steps in the same order.
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
