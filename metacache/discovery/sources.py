"""The interfaces of a node source and of its factory, and `StaticSource`, whose nodes never change."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, final

from metacache.copying import refuse_copy
from metacache.marks import override
from metacache.nodes import Node
from metacache.settings import Settings

__all__ = ["NodeSource", "NodeSourceFactory", "StaticSource"]


class NodeSource(Protocol):
    """Finds the nodes of a cluster. A source need not inherit from this class. Only one thread at a time polls it."""

    def poll(self) -> Sequence[Node]:
        """Return all current nodes, in any order. It may block.

        A node keeps its keys as long as it keeps its name. Raise a MetacacheError or OSError if the nodes are not
        known: the cluster then keeps the nodes of the last good answer. It also keeps them after an empty answer.
        """
        ...


class NodeSourceFactory(Protocol):
    """Makes a node source. An entry point of the group ``metacache.node_sources`` names a factory."""

    def __call__(self, host: str, port: int, /, *, settings: Settings) -> NodeSource:
        """Return the source for ``memcached+name://host:port``. Must not connect yet.

        *settings* are those of the connections to the nodes: TLS, credentials, timeouts.
        """
        ...


@final
class StaticSource:
    """A source whose nodes never change, for an argument that must be a source."""

    __reduce_ex__ = refuse_copy

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._nodes = tuple(nodes)

    @override
    def __repr__(self) -> str:
        return f"<StaticSource: {len(self._nodes)} nodes>"

    def poll(self) -> Sequence[Node]:
        """Return the nodes."""
        return self._nodes
