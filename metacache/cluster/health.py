"""The health of one node: a frozen state with its transitions, for both clusters. Pure.

The caller passes the time in seconds, and a random number from 0 to 1 (*chance*).

    UP ──failure──▶ SUSPECT ──third in a row──▶ DOWN ──a probe is due──────▶ PROBING
     ▲                 │                         ▲                            │
     └────success──────┴──────success────────────┼────────────success─────────┤
                                                 └────────────failure─────────┘
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, final

import attrs

from metacache.errors import ConnectError, ConnectionLost, OperationTimeout
from metacache.observe import NodeState

__all__ = ["HEALTHY", "Health", "is_node_failure", "moved_off"]

FAILURES: Final = 3  # in a row; then the node is down
FIRST_PAUSE: Final = 0.5  # seconds until the first probe
LONGEST_PAUSE: Final = 30.0
# A random part makes a pause up to this share shorter or longer, so that many clients do not probe at the same moment.
JITTER: Final = 0.2
_FAILURES: Final = (ConnectError, ConnectionLost, OperationTimeout)


@final
@attrs.frozen
class Health:
    """The health of one node at one time.

    Attributes:
        state: see `NodeState`.
        failures: connection failures and timeouts in a row.
        pause: seconds between the last failure and the next probe, without jitter.
        probe_at: the time from which a caller may probe it.
        down_since: the time of the failure that took it down; 0.0 while it is not down.
    """

    state: NodeState = NodeState.UP
    failures: int = 0
    pause: float = 0.0
    probe_at: float = 0.0
    down_since: float = 0.0

    @property
    def is_down(self) -> bool:
        """True while operations are not sent to it."""
        return self.state in _DOWN

    def may_probe(self, now: float) -> bool:
        """Return whether a probe is due at *now*."""
        return self.state in _DOWN and now >= self.probe_at

    def failed(self, now: float, chance: float) -> Health:
        """Return the health after one more failure. While the node is down, only a probe changes its health."""
        if self.state in _DOWN:
            return self
        failures = self.failures + 1
        if failures < FAILURES:
            return Health(NodeState.SUSPECT, failures)
        return Health(NodeState.DOWN, failures, FIRST_PAUSE, now + _jittered(FIRST_PAUSE, chance), now)

    def probing(self, until: float) -> Health:
        """Return the health while one caller probes. Another caller may probe if there is no result by *until*."""
        return attrs.evolve(self, state=NodeState.PROBING, probe_at=until)

    def probe_answered(self) -> Health:
        """Return the health after a successful probe: up. Unchanged if the state is no longer probing."""
        return HEALTHY if self.state is NodeState.PROBING else self

    def probe_failed(self, now: float, chance: float) -> Health:
        """Return the health after a failed probe: down, with a pause twice as long."""
        if self.state is not NodeState.PROBING:
            return self
        pause = min(2 * self.pause, LONGEST_PAUSE)
        return Health(NodeState.DOWN, self.failures + 1, pause, now + _jittered(pause, chance), self.down_since)

    def probe_abandoned(self) -> Health:
        """Return the health after a probe that ended without a result: down, and the next caller may probe."""
        return attrs.evolve(self, state=NodeState.DOWN, probe_at=0.0) if self.state is NodeState.PROBING else self

    def succeeded(self) -> Health:
        """Return the health after a reply: up. Unchanged if the node is down: a late reply does not end that."""
        return self if self.state in _DOWN else HEALTHY


def is_node_failure(error: object) -> bool:
    """Return whether *error* is a failure of the node: a failed connection or a timeout.

    A full pool is not a failure of the node, and neither is an error whose cause is in this process (``is_local``).
    """
    return isinstance(error, _FAILURES) and not error.is_local


HEALTHY: Final = Health()
_DOWN: Final = (NodeState.DOWN, NodeState.PROBING)


def _jittered(pause: float, chance: float) -> float:
    return pause * (1 - JITTER + 2 * JITTER * chance)


def moved_off(down: Sequence[str], weights: Mapping[str, float]) -> frozenset[str]:
    """Return those nodes of *down* whose keys other nodes serve. *down* is in the order in which the nodes went down.

    Together they have at most half of the weight. More would overload the other nodes, so the operations of the rest
    fail.
    """
    left = sum(weights.values()) / 2
    moved: set[str] = set()
    for name in down:
        weight = weights.get(name, 0.0)
        if weight <= left:
            moved.add(name)
            left -= weight
    return frozenset(moved)
