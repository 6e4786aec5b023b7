"""Finds node sources by entry point: lists them without importing them, and loads one by name."""

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
    """An installed node source: its name, its distribution with version, and the import path of its factory."""

    name: str
    distribution: str
    version: str
    target: str


def available_node_sources() -> tuple[NodeSourceInfo, ...]:
    """Return the installed node sources, sorted by name. Imports none of them."""
    return SOURCES.listed(NodeSourceInfo)


def load_node_source(name: str) -> NodeSourceFactory:
    """Return the factory of the node source called *name*, as in ``memcached+name://host:port``.

    Raises InvalidArgumentError if no distribution or more than one offers that name, if the source cannot be imported,
    or if it is not a factory. Raises InvalidTypeError if *name* is not a str.
    """
    entry_point = SOURCES.find(name)
    factory = SOURCES.load(entry_point)
    if not callable(factory):
        raise InvalidArgumentError(
            f"node source {name!r}: {entry_point.value} is not a factory (host, port, *, settings) of a source"
        )
    return cast("NodeSourceFactory", factory)  # an entry point may name any object; only its callability is checked
