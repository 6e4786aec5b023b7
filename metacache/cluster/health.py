"""The health of one node: up, suspect, down, probing, up again. Pure, and shared by both clusters.

A value and its transitions; time is a number of seconds, chance a number between 0 and 1. Knows no node's address, no
socket, no lock and no clock.

    UP ──failure──▶ SUSPECT ──third in a row──▶ DOWN ──a probe is due──────▶ PROBING
     ▲                 │                         ▲                            │
     └────success──────┴──────success────────────┼────────────success─────────┤
                                                 └────────────failure─────────┘
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Final, final

import attrs

from metacache.errors import ConnectError, ConnectionLost, OperationTimeout

__all__ = ["HEALTHY", "Health", "NodeState", "is_node_failure", "moved_off"]

FAILURES: Final = 3  # this many in a row take a node down
FIRST_PAUSE: Final = 0.5  # seconds until the first probe
LONGEST_PAUSE: Final = 30.0
# A pause is up to this share shorter or longer, at random: else all clients would probe a node at the same moment.
JITTER: Final = 0.2
_FAILURES: Final = (ConnectError, ConnectionLost, OperationTimeout)


@final
class NodeState(enum.Enum):
    """The state of a node, as its client knows it."""

    UP = "up"
    SUSPECT = "suspect"
    """It failed, but not often enough in a row to be down. Operations go to it as before."""
    DOWN = "down"
    """It failed three times in a row. Operations fail fast (or go to the next node)."""
    PROBING = "probing"
    """It is down, and one caller is sending it a request to see whether it answers."""


@final
@attrs.frozen
class Health:
    """The health of one node at one time.

    Attributes:
        state: see `NodeState`.
        failures: connection failures and timeouts in a row.
        pause: seconds between the last failure and the next probe, without jitter.
        probe_at: the time from which a caller may probe it.
        down_since: the time at which it went down; 0.0 while it is not down.
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
        """Return the health while one caller probes. If that caller reports nothing *until* then, another may probe."""
        return attrs.evolve(self, state=NodeState.PROBING, probe_at=until)

    def probe_answered(self) -> Health:
        """Return the health after a probe that was answered: up. Unchanged if that probe is no longer current."""
        return HEALTHY if self.state is NodeState.PROBING else self

    def probe_failed(self, now: float, chance: float) -> Health:
        """Return the health after a probe that failed: down, with a pause twice as long."""
        if self.state is not NodeState.PROBING:
            return self
        pause = min(2 * self.pause, LONGEST_PAUSE)
        return Health(NodeState.DOWN, self.failures + 1, pause, now + _jittered(pause, chance), self.down_since)

    def probe_abandoned(self) -> Health:
        """Return the health after a probe that ended without a result: down, and the next caller may probe."""
        return attrs.evolve(self, state=NodeState.DOWN, probe_at=0.0) if self.state is NodeState.PROBING else self

    def succeeded(self) -> Health:
        """Return the health after a reply. A late reply to an earlier request does not bring up a node that is down."""
        return self if self.state in _DOWN else HEALTHY


def is_node_failure(error: object) -> bool:
    """Return whether *error* is a failure of the node: a failed connection or a timeout. A full pool, for one, is not.

    A failure whose cause is in this process has ``is_local`` set, and is not a failure of the node.
    """
    return isinstance(error, _FAILURES) and not error.is_local


HEALTHY: Final = Health()
_DOWN: Final = (NodeState.DOWN, NodeState.PROBING)


def _jittered(pause: float, chance: float) -> float:
    return pause * (1 - JITTER + 2 * JITTER * chance)


def moved_off(down: Sequence[str], weights: Mapping[str, float]) -> frozenset[str]:
    """Return those nodes of *down*, ordered by the time they went down, whose keys other nodes serve.

    Together they have at most half of the weight. More would overload the other nodes, so the rest fails fast.
    """
    left = sum(weights.values()) / 2
    moved: set[str] = set()
    for name in down:
        weight = weights.get(name, 0.0)
        if weight <= left:
            moved.add(name)
            left -= weight
    return frozenset(moved)
