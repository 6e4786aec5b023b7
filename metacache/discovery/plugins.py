"""Finds node sources by entry point: lists them without importing them, and loads one by name."""

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
    """An installed node source: its name, its distribution with version, and the import path of its factory."""

    name: str
    distribution: str
    version: str
    target: str


def available_node_sources() -> tuple[NodeSourceInfo, ...]:
    """Return the installed node sources, sorted by name. Imports none of them."""
    found = {_info(entry_point) for entry_point in entry_points(group=GROUP)}
    return tuple(sorted(found, key=lambda info: (info.name, info.target)))


def load_node_source(name: str) -> NodeSourceFactory:
    """Return the factory of the node source called *name*, as in ``memcached+name://host:port``.

    Raises InvalidArgumentError if no distribution or more than one offers that name, if the source cannot be imported,
    or if it is not a factory. Raises InvalidTypeError if *name* is not a str.
    """
    if not isinstance(name, str):
        raise InvalidTypeError(f"a node source's name is a str, not {type(name).__name__}")
    entry_point = _entry_point(name)
    try:
        factory: object = entry_point.load()
    except Exception as error:
        problem = f"node source {name!r} cannot be imported from {entry_point.value}: {error}"
        raise InvalidArgumentError(problem) from error
    if not callable(factory):
        problem = f"node source {name!r}: {entry_point.value} is not a factory (host, port, *, settings) of a source"
        raise InvalidArgumentError(problem)
    return cast("NodeSourceFactory", factory)  # an entry point may name any object; only its callability is checked


def _info(entry_point: EntryPoint) -> NodeSourceInfo:
    distribution = entry_point.dist
    name, version = (distribution.name, distribution.version) if distribution else ("unknown", "unknown")
    return NodeSourceInfo(entry_point.name, name, version, entry_point.value)


def _entry_point(name: str) -> EntryPoint:
    # A distribution that is on sys.path twice (such as an editable install and a wheel) counts once.
    found = ((_info(entry_point), entry_point) for entry_point in entry_points(group=GROUP, name=name))
    by_owner = {(info.distribution, info.target): entry_point for info, entry_point in found}
    if len(by_owner) > 1:
        owners = " and ".join(sorted(f"{distribution} ({target})" for distribution, target in by_owner))
        raise InvalidArgumentError(f"node source {name!r} is offered by {owners}; uninstall one of them")
    if not by_owner:
        installed = ", ".join(dict.fromkeys(info.name for info in available_node_sources())) or "none"
        raise InvalidArgumentError(f"there is no node source {name!r}; installed node sources: {installed}")
    return next(iter(by_owner.values()))
