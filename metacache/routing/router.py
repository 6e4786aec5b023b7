"""Define the protocol of routers, and split the keys of a batch with any router."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from metacache.nodes import Node

__all__ = ["Router", "Splits", "split"]


class Router(Protocol):
    """Chooses the node that owns a key. Must be pure: the same key and nodes give the same node in every process.

    A router need not inherit from this class. A router with a faster way for many keys also has the method of `Splits`.
    """

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Every node that the router knows. No two have the same name."""
        ...

    def pick(self, key: bytes, /) -> Node:
        """Return the node that owns *key*, which is the first node of `rank`."""
        ...

    def rank(self, key: bytes, n: int, /) -> tuple[Node, ...]:
        """Return *n* nodes in the order of preference for *key*, the owner first. Fewer if there are fewer nodes."""
        ...


class Splits(Protocol):
    """The optional method of a router that handles all keys of a batch in one call."""

    def split(self, keys: Sequence[bytes], /) -> dict[str, list[int]]:
        """Return what the function `split` returns for this router and *keys*."""
        ...


def split(router: Router, keys: Sequence[bytes]) -> dict[str, list[int]]:
    """Return, for each node name, the indexes into *keys* of the keys that the node owns.

    Names and indexes are in ascending order. Nodes that own none of the keys are omitted.
    """
    # Not isinstance(router, Splits): for a protocol that costs as much as routing 100 keys over three nodes.
    split_all: Callable[[Sequence[bytes]], dict[str, list[int]]] | None = getattr(router, "split", None)
    if split_all is not None:
        return split_all(keys)
    shares: dict[str, list[int]] = {}
    for index, key in enumerate(keys):
        shares.setdefault(router.pick(key).name, []).append(index)
    return dict(sorted(shares.items()))
