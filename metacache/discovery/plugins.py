"""Node sources found by entry point: listed without importing, loaded by name.

Knows entry points; knows no particular source.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Final, cast, final

import attrs

from metacache.discovery.sources import NodeSourceFactory
from metacache.errors import InvalidArgumentError, InvalidTypeError

__all__ = ["NodeSourceInfo", "available_node_sources", "load_node_source"]

GROUP: Final = "metacache.node_sources"


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
    found = {_info(entry_point) for entry_point in entry_points(group=GROUP)}
    return tuple(sorted(found, key=lambda info: (info.name, info.target)))


def load_node_source(name: str) -> NodeSourceFactory:
    """Return the factory of the node source called *name*, as in ``memcached+name://host:port``.

    Raises InvalidArgumentError when there is none of that name, when two distributions offer one, and when it cannot be
    imported or is no factory; InvalidTypeError when *name* is no str.
    """
    if not isinstance(name, str):
        raise InvalidTypeError(f"a node source's name is a str, not {type(name).__name__}")
    entry_point = _entry_point(name)
    try:
        factory: object = entry_point.load()
    except Exception as error:
        told = f"node source {name!r} cannot be imported from {entry_point.value}: {error}"
        raise InvalidArgumentError(told) from error
    if not callable(factory):
        told = f"node source {name!r}: {entry_point.value} is no factory (host, port, *, settings) of a source"
        raise InvalidArgumentError(told)
    return cast("NodeSourceFactory", factory)  # the boundary: an entry point names any object


def _info(entry_point: EntryPoint) -> NodeSourceInfo:
    distribution = entry_point.dist
    name, version = (distribution.name, distribution.version) if distribution else ("unknown", "unknown")
    return NodeSourceInfo(entry_point.name, name, version, entry_point.value)


def _entry_point(name: str) -> EntryPoint:
    # A distribution on sys.path twice (an editable install and a wheel, say) counts once.
    found = ((_info(entry_point), entry_point) for entry_point in entry_points(group=GROUP, name=name))
    by_owner = {(info.distribution, info.target): entry_point for info, entry_point in found}
    if len(by_owner) > 1:
        owners = " and ".join(sorted(f"{distribution} ({target})" for distribution, target in by_owner))
        raise InvalidArgumentError(f"node source {name!r} is offered by {owners}; uninstall one of them")
    if not by_owner:
        installed = ", ".join(dict.fromkeys(info.name for info in available_node_sources())) or "none"
        raise InvalidArgumentError(f"no node source is called {name!r}; installed are: {installed}")
    return next(iter(by_owner.values()))
