"""What a router tells its operators. Frozen values; they decide nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import attrs

__all__ = ["Moves", "NodeScore"]


@final
@attrs.frozen
class NodeScore:
    """How one node stands for one key.

    Attributes:
        name: the node's name.
        weight: its weight.
        hash: the 64 bits of key and name together.
        cost: what its rank goes by, least first; infinite for a drained node.
        rank: 1 for the owner, 2 for the next to ask, …; None for a drained node.
    """

    name: str
    weight: float
    hash: int
    cost: float
    rank: int | None


@final
@attrs.frozen
class Moves:
    """Which share of all keys changes its node between two routers.

    Attributes:
        samples: how many keys were tried; a share is right within ``1 / sqrt(samples)``.
        total: the share of all keys that moves, 0.0 to 1.0.
        lost: by node name, the share of all keys that leaves it; nodes that lose none are left out.
        gained: by node name, the share of all keys that comes to it; nodes that gain none are left out.
    """

    samples: int
    total: float
    lost: Mapping[str, float]
    gained: Mapping[str, float]
