"""A cluster whose nodes are not known yet: what finds them, and the router until then. Knows no way to find a node."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Protocol, final

from metacache.errors import ConnectError
from metacache.nodes import Node

if TYPE_CHECKING:
    from metacache.cluster.aio import AsyncCluster

__all__ = ["UNOPENED", "Find"]


class Find(Protocol):
    """Finds the nodes of a cluster when it is first used."""

    async def __call__(self, cluster: AsyncCluster, /) -> Iterable[Node]:
        """Return the nodes. Raises a MetacacheError; then the next operation tries again."""
        ...


@final
class _Unopened:
    """The router of a cluster whose nodes are not found yet."""

    nodes: tuple[Node, ...] = ()

    def pick(self, _: bytes, /) -> Node:
        raise ConnectError("the nodes are not found yet")

    def rank(self, _: bytes, __: int, /) -> tuple[Node, ...]:
        return ()


UNOPENED: Final = _Unopened()
