"""The health of one node: up, suspect, down, probing, up again. Pure, and shared by both clusters.

A value and its transitions; time is a number of seconds, chance a number between 0 and 1. Knows no node's address, no
socket, no lock and no clock.

    UP ──failure──▶ SUSPECT ──third in a row──▶ DOWN ──its time has come──▶ PROBING
     ▲                 │                         ▲                            │
     └────success──────┴──────success────────────┼────────────success─────────┤
                                                 └────────────failure─────────┘
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Final, final

import attrs

__all__ = ["HEALTHY", "Health", "NodeState", "moved_off"]

FAILURES: Final = 3  # in a row, and a node is down
FIRST_PAUSE: Final = 0.5  # seconds until the first probe
LONGEST_PAUSE: Final = 30.0
# A pause is this much shorter or longer by chance, so that many clients do not probe a returning node at once.
JITTER: Final = 0.2


@final
class NodeState(enum.Enum):
    """How a node is, as far as its client can tell."""

    UP = "up"
    SUSPECT = "suspect"
    """It failed, but not often enough in a row to be down. Operations go to it as before."""
    DOWN = "down"
    """It failed three times in a row. Operations fail fast (or go to the next node)."""
    PROBING = "probing"
    """It is down, and one caller is asking whether it is back."""


@final
@attrs.frozen
class Health:
    """The health of one node at one time.

    Attributes:
        state: see `NodeState`.
        failures: connection failures and timeouts in a row.
        pause: seconds between the last failure and the next probe, without jitter.
        probe_at: when a caller may ask whether it is back.
    """

    state: NodeState = NodeState.UP
    failures: int = 0
    pause: float = 0.0
    probe_at: float = 0.0

    @property
    def is_down(self) -> bool:
        """True when operations are not to be sent to it."""
        return self.state in _DOWN

    def may_probe(self, now: float) -> bool:
        """Tell whether a caller is to probe it at *now*."""
        return self.state in _DOWN and now >= self.probe_at

    def failed(self, now: float, chance: float) -> Health:
        """Return the health after one more connection event. While it is down only a probe tells anything new."""
        if self.state in _DOWN:
            return self
        failures = self.failures + 1
        if failures < FAILURES:
            return Health(NodeState.SUSPECT, failures)
        return Health(NodeState.DOWN, failures, FIRST_PAUSE, now + _jittered(FIRST_PAUSE, chance))

    def probing(self, until: float) -> Health:
        """Return the health while one caller asks; if nothing was heard of it *until* then, another may."""
        return attrs.evolve(self, state=NodeState.PROBING, probe_at=until)

    def probe_answered(self) -> Health:
        """Return the health after a probe that was answered: up. A probe that ends late tells nothing any more."""
        return HEALTHY if self.state is NodeState.PROBING else self

    def probe_failed(self, now: float, chance: float) -> Health:
        """Return the health after a probe without answer: down, and asked again after twice the pause."""
        if self.state is not NodeState.PROBING:
            return self
        pause = min(2 * self.pause, LONGEST_PAUSE)
        return Health(NodeState.DOWN, self.failures + 1, pause, now + _jittered(pause, chance))

    def probe_abandoned(self) -> Health:
        """Return the health after a probe that was interrupted and told nothing: down, and the next caller may ask."""
        return attrs.evolve(self, state=NodeState.DOWN, probe_at=0.0) if self.state is NodeState.PROBING else self

    def succeeded(self) -> Health:
        """Return the health after a reply. One that was under way when the node went down does not bring it up."""
        return self if self.state in _DOWN else HEALTHY


HEALTHY: Final = Health()
_DOWN: Final = (NodeState.DOWN, NodeState.PROBING)


def _jittered(pause: float, chance: float) -> float:
    return pause * (1 - JITTER + 2 * JITTER * chance)


def moved_off(down: Sequence[str], weights: Mapping[str, float]) -> frozenset[str]:
    """Return which of the nodes that are *down*, longest first, may have their keys served by other nodes.

    As many as make up half of the weight at most: beyond that the others would be overrun, and the rest fails fast.
    """
    left = sum(weights.values()) / 2
    moved: set[str] = set()
    for name in down:
        weight = weights.get(name, 0.0)
        if weight <= left:
            moved.add(name)
            left -= weight
    return frozenset(moved)
