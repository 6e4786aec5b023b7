"""The frozen values that a router reports to operators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import attrs

__all__ = ["Moves", "NodeScore"]


@final
@attrs.frozen
class NodeScore:
    """The score of one node for one key.

    Attributes:
        name: the node's name.
        weight: its weight.
        hash: the 64-bit hash of the key, seeded with the name.
        cost: the cost of the node for the key; the least cost wins. Infinite for a drained node.
        rank: 1 for the owner, 2 for the first fallback, …; None for a drained node.
    """

    name: str
    weight: float
    hash: int
    cost: float
    rank: int | None


@final
@attrs.frozen
class Moves:
    """The share of all keys whose owner differs between two routers.

    Attributes:
        samples: the number of keys in the sample. The error of a share is about ``1 / sqrt(samples)`` at most.
        total: the share of all keys that moves, 0.0 to 1.0.
        lost: by node name, the share of all keys that the node loses. Nodes that lose none are omitted.
        gained: by node name, the share of all keys that the node gains. Nodes that gain none are omitted.
    """

    samples: int
    total: float
    lost: Mapping[str, float]
    gained: Mapping[str, float]
