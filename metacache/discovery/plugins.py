"""Node sources found by entry point: listed without importing, loaded by name.

Knows entry points; knows no particular source.
"""

from __future__ import annotations

from typing import Final, cast, final

import attrs

from metacache.discovery.sources import NodeSourceFactory
from metacache.entry_points import PluginGroup
from metacache.errors import InvalidArgumentError

__all__ = ["NodeSourceInfo", "available_node_sources", "load_node_source"]

SOURCES: Final = PluginGroup("metacache.node_sources", "node source", InvalidArgumentError, InvalidArgumentError)


@final
@attrs.frozen
class NodeSourceInfo:
    """An installed node source: its name, the distribution that brings it, its version, and the factory it names."""

    name: str
    distribution: str
    version: str
    target: str


def available_node_sources() -> tuple[NodeSourceInfo, ...]:
    """Return the installed node sources by name. Imports none of them."""
    return SOURCES.listed(NodeSourceInfo)


def load_node_source(name: str) -> NodeSourceFactory:
    """Return the factory of the node source called *name*, as in ``memcached+name://host:port``.

    Raises InvalidArgumentError when there is none of that name, when two distributions offer one, and when it cannot be
    imported or is no factory; InvalidTypeError when *name* is no str.
    """
    entry_point = SOURCES.find(name)
    factory = SOURCES.load(entry_point)
    if not callable(factory):
        raise InvalidArgumentError(
            f"node source {name!r}: {entry_point.value} is not a factory (host, port, *, settings) of a source"
        )
    return cast("NodeSourceFactory", factory)  # the boundary: an entry point names any object
