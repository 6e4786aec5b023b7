"""The seam: what a source of nodes is, and what makes one. Knows no way to find a node."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, final

from typing_extensions import override

from metacache.copying import refuse_copy
from metacache.nodes import Node
from metacache.settings import Settings

__all__ = ["NodeSource", "NodeSourceFactory", "StaticSource"]


class NodeSource(Protocol):
    """Knows which nodes there are. It need not inherit from this, and one thread at a time asks it."""

    def poll(self) -> Sequence[Node]:
        """Return every node there is now, in any order; it may wait for as long as that takes.

        A node keeps its keys as long as it keeps its name. Raises a MetacacheError or OSError when the nodes are not
        known: those of the last good answer stay then, as they do after an empty one.
        """
        ...


class NodeSourceFactory(Protocol):
    """What an entry point of the group ``metacache.node_sources`` names."""

    def __call__(self, host: str, port: int, /, *, settings: Settings) -> NodeSource:
        """Return the source that ``memcached+name://host:port`` means. It connects to nothing yet.

        *settings* are those of the connections to the nodes: TLS, credentials, timeouts.
        """
        ...


@final
class StaticSource:
    """Nodes that never change: what stands in where a source is wanted."""

    __reduce_ex__ = refuse_copy

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._nodes = tuple(nodes)

    @override
    def __repr__(self) -> str:
        return f"<StaticSource: {len(self._nodes)} nodes>"

    def poll(self) -> Sequence[Node]:
        """Return the nodes it was made with."""
        return self._nodes
