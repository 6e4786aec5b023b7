"""Weighted rendezvous hashing: each node bids for the key, the least cost owns it.

    h = xxh3_64(key, seed=xxh3_64(name));  u = ((h >> 12) + 0.5) * 2**-52;  cost = -ln(u) / weight

A cost depends on its own node alone, so a node that comes or goes moves its own keys only. Stored keys depend on
every bit of this: another formula is another router. Knows nodes and hashes; no health, clock or socket.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Final, TypeAlias, final

import attrs
from typing_extensions import override
from xxhash import xxh3_64_intdigest as xxh3

from metacache.errors import InvalidArgumentError, InvalidKeyError, InvalidKeyTypeError, InvalidTypeError
from metacache.nodes import Node, nodes_of
from metacache.routing.reports import Moves, NodeScore
from metacache.routing.router import Router, split

__all__ = ["RendezvousRouter"]

# A double holds 53 bits: (h >> 12) + 0.5 is exact, never 0 and, scaled, never 1. The lowest bits of h are dropped.
DROPPED_BITS: Final = 12
DROPPED: Final = (1 << DROPPED_BITS) - 1
SCALE: Final = 2.0**-52

# -ln(u) lies between 1e-16 and 37; with weights beyond these the quotient could leave a double's range, and costs tie.
LEAST_WEIGHT: Final = 1e-200
GREATEST_WEIGHT: Final = 1e200

SAMPLES: Final = 50_000

Groups: TypeAlias = Sequence[tuple[float, Sequence[int]]]
"""The nodes by weight: (weight, ascending places of its nodes in the order of names)."""


def cost(h: int, weight: float) -> float:
    """Return what a node of *weight*, above 0, whose hash of the key is *h* asks for it."""
    return -math.log(((h >> DROPPED_BITS) + 0.5) * SCALE) / weight


def winner(hashes: Iterator[int], groups: Groups) -> int:
    """Return the place of the least cost, of equal costs the least place. *hashes* come in the order of *groups*.

    Within a group hashes are compared and one logarithm tells how its best stands to the other groups: the cost falls
    as ``h >> 12`` grows, strictly even after rounding, for neighbours stay more than an ulp apart.
    """
    owner, least = 0, math.inf
    for weight, places in groups:
        if len(places) == 1:  # a third of the price of a loop round one
            best, ceiling = places[0], next(hashes)
        else:
            best, ceiling = 0, -1
            # Places come first: zip ends before it takes the next group's hash. The ceiling's dropped bits are all set:
            # only a hash that differs in the others is above it.
            for place, h in zip(places, hashes, strict=False):
                if h > ceiling:
                    best, ceiling = place, h | DROPPED
        if len(groups) == 1:
            return best
        asked = -math.log(((ceiling >> DROPPED_BITS) + 0.5) * SCALE) / weight  # `cost`, without the call
        if asked < least or (asked == least and best < owner):
            owner, least = best, asked
    return owner


def winners(columns: Iterator[Iterable[int]], groups: Groups, count: int) -> list[int]:
    """Return what `winner` returns for each of *count* keys. A column holds one node's hashes of all keys."""
    owners, leasts = [0] * count, [math.inf] * count
    for weight, places in groups:
        bests, ceilings = [places[0]] * count, list(next(columns))
        for place, column in zip(places[1:], columns, strict=False):
            for index, h in enumerate(column):
                if h > ceilings[index] | DROPPED:
                    bests[index], ceilings[index] = place, h
        if len(groups) == 1:
            return bests
        costs = [-math.log(((h >> DROPPED_BITS) + 0.5) * SCALE) / weight for h in ceilings]
        for index, (asked, best) in enumerate(zip(costs, bests, strict=True)):
            if asked < leasts[index] or (asked == leasts[index] and best < owners[index]):
                owners[index], leasts[index] = best, asked
    return owners


@final
@attrs.frozen(init=False, repr=False)
class RendezvousRouter:
    """Give each node its weight's share of the keys; move no key without need.

    The same key and nodes give the same answer in every process and on every platform, in whatever order the nodes are
    given. Removing a node moves its keys only; changing a weight moves keys only to or from that node.

    Args:
        nodes: at least one of a weight above 0. Weight 0 drains a node: it is known and owns nothing.

    Attributes:
        nodes: as given, in ascending order of names.

    Raises InvalidArgumentError (InvalidTypeError for a wrong type) on no nodes, on two of one name, when all are
    drained, and on a weight below 1e-200 or above 1e200.
    """

    nodes: tuple[Node, ...]
    _groups: Groups = attrs.field(eq=False)
    _seeds: tuple[int, ...] = attrs.field(eq=False)
    _only: Node | None = attrs.field(eq=False)

    def __init__(self, nodes: Iterable[Node]) -> None:
        ordered = _ordered(nodes)
        groups = _grouped(ordered)
        seeds = tuple(_seed(ordered[place]) for _, places in groups for place in places)
        only = ordered[groups[0][1][0]] if len(seeds) == 1 else None
        # attrs makes __attrs_init__; pyright does not know of it.
        self.__attrs_init__(  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
            ordered, groups, seeds, only
        )

    @override
    def __repr__(self) -> str:
        return f"<RendezvousRouter {', '.join(f'{node.name} (weight {node.weight:.12g})' for node in self.nodes)}>"

    @override
    def __reduce__(self) -> tuple[Callable[[Iterable[Node]], RendezvousRouter], tuple[tuple[Node, ...]]]:
        return RendezvousRouter, (self.nodes,)  # the rest follows from them

    def pick(self, key: bytes | str, /) -> Node:
        """Return the node that owns *key*. A str is its UTF-8: ``"k"`` and ``b"k"`` are one key.

        Raises InvalidKeyTypeError for other types, InvalidKeyError for a lone surrogate.
        """
        if type(key) is not bytes:
            key = _as_bytes(key)
        if self._only is not None:
            return self._only
        return self.nodes[winner(map(xxh3, repeat(key), self._seeds), self._groups)]

    def rank(self, key: bytes | str, n: int, /) -> tuple[Node, ...]:
        """Return the *n* nodes of the least costs, the owner first: the order in which to fail over.

        Drained nodes are never among them; when fewer than *n* are left, all of those. Raises InvalidArgumentError when
        *n* is negative, and what `pick` raises.
        """
        if isinstance(n, bool) or not isinstance(n, int):
            raise InvalidTypeError(f"n is an int, not {type(n).__name__}")
        if n < 0:
            raise InvalidArgumentError(f"n is how many nodes to return, not {n}")
        raw = _as_bytes(key)
        hashes = map(xxh3, repeat(raw), self._seeds)
        ranked = sorted((cost(next(hashes), weight), place) for weight, places in self._groups for place in places)
        return tuple(self.nodes[place] for _, place in ranked[:n])

    def split(self, keys: Sequence[bytes | str], /) -> dict[str, list[int]]:
        """Return by node name, in ascending order of names, the indices into *keys* of what that node owns, ascending.

        A node that owns none is left out. Cheaper than `pick` for each up to a dozen nodes. Raises what that raises.
        """
        raws = [key if type(key) is bytes else _as_bytes(key) for key in keys]
        if self._only is not None:
            return {self._only.name: list(range(len(raws)))} if raws else {}
        columns = (map(xxh3, raws, repeat(seed)) for seed in self._seeds)
        shares: list[list[int]] = [[] for _ in self.nodes]
        for index, place in enumerate(winners(columns, self._groups, len(raws))):
            shares[place].append(index)
        return {node.name: share for node, share in zip(self.nodes, shares, strict=True) if share}

    def explain(self, key: bytes | str, /) -> tuple[NodeScore, ...]:
        """Return how every node stands for *key*, the owner first, drained nodes last. Raises what `pick` raises."""
        raw = _as_bytes(key)
        ranked = self.rank(raw, len(self.nodes))
        drained = (node for node in self.nodes if not node.weight)
        return (
            *(_score(raw, node, rank) for rank, node in enumerate(ranked, 1)),
            *(_score(raw, node, None) for node in drained),
        )

    def moved(self, other: Router, /, *, samples: int = SAMPLES) -> Moves:
        """Return which share of all keys would move if *other* took over from this router.

        The same *samples* keys (the numbers from 0 in decimal) are tried each time: no chance is involved. A node keeps
        its keys as long as it keeps its name. Raises InvalidArgumentError when *samples* is below 1.
        """
        if isinstance(samples, bool) or not isinstance(samples, int):
            raise InvalidTypeError(f"samples is an int, not {type(samples).__name__}")
        if samples < 1:
            raise InvalidArgumentError(f"samples is at least 1, not {samples}")
        keys = [b"%d" % number for number in range(samples)]
        pairs = zip(_owner_names(self, keys), _owner_names(other, keys), strict=True)
        moves = [(before, after) for before, after in pairs if before != after]
        return Moves(
            samples=samples,
            total=len(moves) / samples,
            lost=_shares((before for before, _ in moves), samples),
            gained=_shares((after for _, after in moves), samples),
        )


def _ordered(nodes: Iterable[Node]) -> tuple[Node, ...]:
    return tuple(sorted(_checked(nodes), key=lambda node: node.name))


def _checked(nodes: Iterable[Node]) -> tuple[Node, ...]:
    given = nodes_of(nodes)
    if not given:
        raise InvalidArgumentError("there are no nodes to route to; give at least one")
    for node in given:
        _check_node(node)
    twice = sorted(name for name, count in Counter(node.name for node in given).items() if count > 1)
    if twice:
        raise InvalidArgumentError(f"two nodes have the name {twice[0]!r}; the name is what a node's keys hang on")
    if not any(node.weight for node in given):
        raise InvalidArgumentError("every node has weight 0, so none may own a key; give one a weight above 0")
    return given


def _check_node(node: Node) -> None:
    if not isinstance(node, Node):
        raise InvalidTypeError(f"nodes is an iterable of Node, one of them is {type(node).__name__}")
    if node.weight and not LEAST_WEIGHT <= node.weight <= GREATEST_WEIGHT:
        raise InvalidArgumentError(
            f"node {node.name!r} has weight {node.weight}; give 0 or between {LEAST_WEIGHT} and {GREATEST_WEIGHT}"
        )
    _seed(node)


def _seed(node: Node) -> int:
    try:
        return xxh3(node.name.encode())
    except UnicodeEncodeError:
        raise InvalidArgumentError(
            f"node name {node.name!r} holds a lone surrogate, which UTF-8 cannot encode"
        ) from None


def _grouped(ordered: Sequence[Node]) -> Groups:
    groups: dict[float, list[int]] = {}
    for place, node in enumerate(ordered):
        if node.weight:
            groups.setdefault(node.weight, []).append(place)
    return tuple((weight, tuple(places)) for weight, places in groups.items())


def _as_bytes(key: bytes | str) -> bytes:
    if not isinstance(key, str | bytes):
        raise InvalidKeyTypeError(f"a key is str or bytes, not {type(key).__name__}")
    try:
        return key.encode() if isinstance(key, str) else bytes(key)
    except UnicodeEncodeError:
        raise InvalidKeyError("the key holds a lone surrogate, which UTF-8 cannot encode", key=key) from None


def _score(key: bytes, node: Node, rank: int | None) -> NodeScore:
    h = xxh3(key, _seed(node))
    return NodeScore(node.name, node.weight, h, cost(h, node.weight) if node.weight else math.inf, rank)


def _owner_names(router: Router, keys: Sequence[bytes]) -> list[str]:
    names = [""] * len(keys)
    for name, indices in split(router, keys).items():
        for index in indices:
            names[index] = name
    return names


def _shares(names: Iterable[str], samples: int) -> dict[str, float]:
    return {name: count / samples for name, count in sorted(Counter(names).items())}
