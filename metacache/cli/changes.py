"""Changes of a set of nodes, as the user writes them for ``explain --move``. Pure.

``add=host:port``, ``remove=name`` and ``weight=name:2``; they apply from left to right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from metacache.errors import InvalidArgumentError
from metacache.nodes import Node

__all__ = ["changed_nodes"]


def changed_nodes(nodes: Iterable[Node], changes: Iterable[str]) -> tuple[Node, ...]:
    """Return *nodes* after *changes*. Raises InvalidArgumentError that names the change."""
    by_name = {node.name: node for node in nodes}
    for change in changes:
        kind, equals, rest = change.partition("=")
        apply = _KINDS.get(kind)
        if apply is None or not equals or not rest:
            raise InvalidArgumentError("--move takes add=host:port, remove=name or weight=name:2")
        apply(by_name, rest)
    return tuple(by_name.values())


def _add(nodes: dict[str, Node], text: str) -> None:
    added = Node(text)
    if added.name in nodes:
        raise InvalidArgumentError(f"--move add: there is already a node {added.name!r}")
    nodes[added.name] = added


def _remove(nodes: dict[str, Node], text: str) -> None:
    del nodes[_known(nodes, text)]


def _weight(nodes: dict[str, Node], text: str) -> None:
    name, _, number = text.rpartition(":")
    try:
        weight = float(number)
    except ValueError:
        raise InvalidArgumentError("--move weight takes name:number, for example weight=cache-1:11211:2") from None
    known = _known(nodes, name)
    nodes[known] = Node(nodes[known].address, weight=weight, name=known)


def _known(nodes: Mapping[str, Node], name: str) -> str:
    if name not in nodes:
        raise InvalidArgumentError(f"--move: no node is called {name!r}; the nodes are {', '.join(map(repr, nodes))}")
    return name


_KINDS: Final[Mapping[str, Callable[[dict[str, Node], str], None]]] = {
    "add": _add,
    "remove": _remove,
    "weight": _weight,
}
