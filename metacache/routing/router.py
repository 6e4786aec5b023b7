"""The seam: what a router is, and how a batch of keys is split by one. Knows no way to choose a node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from metacache.nodes import Node

__all__ = ["Router", "Splits", "split"]


class Router(Protocol):
    """Choose the node that owns a key. Pure: same key and same nodes, same answer, in every process.

    A router need not inherit from this. One that knows a faster way for many keys has the method of `Splits` too.
    """

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Every node it was built with; no two of one name."""
        ...

    def pick(self, key: bytes, /) -> Node:
        """Return the node that owns *key*: the first of its `rank`."""
        ...

    def rank(self, key: bytes, n: int, /) -> tuple[Node, ...]:
        """Return the first *n* nodes to ask for *key*, owner first; fewer when there are fewer."""
        ...


@runtime_checkable
class Splits(Protocol):
    """What a router may have beside `Router`: all keys of a batch at once."""

    def split(self, keys: Sequence[bytes], /) -> dict[str, list[int]]:
        """Do for this router what the function `split` does for any."""
        ...


def split(router: Router, keys: Sequence[bytes]) -> dict[str, list[int]]:
    """Return by node name, in ascending order of names, the indices into *keys* of what that node owns, ascending.

    A node that owns none is left out.
    """
    if isinstance(router, Splits):
        return router.split(keys)
    shares: dict[str, list[int]] = {}
    for index, key in enumerate(keys):
        shares.setdefault(router.pick(key).name, []).append(index)
    return dict(sorted(shares.items()))
