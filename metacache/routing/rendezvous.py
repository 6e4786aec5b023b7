"""Choose nodes by weighted rendezvous hashing: the node with the least cost for a key owns it.

    h = xxh3_64(key, seed=xxh3_64(name));  u = ((h >> 12) + 0.5) * 2**-52;  cost = -ln(u) / weight

The cost of a node does not depend on other nodes, so adding or removing a node moves only the keys of that node. Never
change the formula: stored keys would move. Another formula needs another router class.

In pure Python a router remembers the owners of some keys.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Final, TypeAlias, cast, final

import attrs
from xxhash import xxh3_64_digest as xxh3_digest
from xxhash import xxh3_64_intdigest as xxh3

from metacache.acceleration import make_owners
from metacache.errors import InvalidArgumentError, InvalidKeyError, InvalidKeyTypeError, InvalidTypeError
from metacache.marks import override
from metacache.nodes import Node, nodes_of
from metacache.routing.router import Router, split

if TYPE_CHECKING:
    from metacache_speed import Owners

    from metacache.routing.reports import Moves, NodeScore

__all__ = ["RendezvousRouter"]

# A double holds 53 bits, so drop the lowest 12 bits of h. Then (h >> 12) + 0.5 is exact, and u is neither 0 nor 1.
DROPPED_BITS: Final = 12
DROPPED: Final = (1 << DROPPED_BITS) - 1
SCALE: Final = 2.0**-52

# -ln(u) lies between 1e-16 and 37. With weights beyond these bounds the quotient could overflow or become 0.
LEAST_WEIGHT: Final = 1e-200
GREATEST_WEIGHT: Final = 1e200

SAMPLES: Final = 50_000

# How many keys a router remembers with their owners, and the bytes of the longest of them: 3 MB at most. (A key that
# is longer than memcached allows is hashed after it is routed.) A `pick` of a key that it remembers takes 1,700
# instructions, and of another one over three nodes 10,000 (8,600 without this memory). When it is full the router
# forgets all: to know which key was used last would cost more than to route them again.
MOST_KNOWN: Final = 8192
LONGEST_KNOWN: Final = 250

Groups: TypeAlias = Sequence[tuple[float, Sequence[int]]]
"""The nodes by weight: (weight, ascending positions of its nodes in the order of names)."""


def cost(h: int, weight: float) -> float:
    """Return the cost of a node with a *weight* above 0 for a key with the hash *h*."""
    return -math.log(((h >> DROPPED_BITS) + 0.5) * SCALE) / weight


def winner(hashes: Iterator[int], groups: Groups) -> int:
    """Return the position of the node of least cost; of equal costs, the least position.

    *hashes* are in the order of *groups*. Within a group it is enough to compare hashes: the cost falls strictly as
    ``h >> 12`` grows, even after rounding. So each group needs only one logarithm.
    """
    owner, least_cost = 0, math.inf
    for weight, positions in groups:
        if len(positions) == 1:  # cheaper than a loop with one step
            best, ceiling = positions[0], next(hashes)
        else:
            best, ceiling = 0, -1
            # `positions` is the first argument, so that zip does not consume a hash of the next group. All dropped bits
            # of the ceiling are set, so a hash is above it only if it is greater in the other bits.
            for position, h in zip(positions, hashes, strict=False):
                if h > ceiling:
                    best, ceiling = position, h | DROPPED
        if len(groups) == 1:
            return best
        best_cost = -math.log(((ceiling >> DROPPED_BITS) + 0.5) * SCALE) / weight  # `cost`, without the call
        if best_cost < least_cost or (best_cost == least_cost and best < owner):
            owner, least_cost = best, best_cost
    return owner


def winners(columns: Iterator[bytes], groups: Groups, count: int) -> Sequence[int]:
    """Return the result of `winner` for each of *count* keys. A column has one node's digests of all keys, joined."""
    owners: list[int] = []
    least_costs: list[float] = []
    for weight, positions in groups:
        bests, tops = greatest(columns, positions, count)
        if len(groups) == 1:
            return _numbers(bests, count)
        # `cost`, without the call
        costs = [-math.log((top + 0.5) * SCALE) / weight for top in _numbers(tops, count)]
        if not owners:
            owners, least_costs = list(_numbers(bests, count)), costs
            continue
        for index, (best_cost, best) in enumerate(zip(costs, _numbers(bests, count), strict=True)):
            if best_cost < least_costs[index] or (best_cost == least_costs[index] and best < owners[index]):
                owners[index], least_costs[index] = best, best_cost
    return owners


def greatest(columns: Iterator[bytes], positions: Sequence[int], count: int) -> tuple[int, int]:
    """Return, for each of *count* keys, the position with the greatest ``h >> 12``, and that number.

    Of equal numbers, the first of *positions* wins. Each result is a large int with 64 bits for each key, of which at
    least 11 are free, so one step compares all keys. A loop over the keys takes nearly twice the time.
    """
    ones = int.from_bytes(b"\0\0\0\0\0\0\0\1" * count)  # the number 1 for each key
    guards = ones << 63
    kept = ones * (2**52 - 1)
    best = int.from_bytes(next(columns)) >> DROPPED_BITS & kept
    owner = ones * positions[0]
    for position, column in zip(positions[1:], columns, strict=False):
        h = int.from_bytes(column) >> DROPPED_BITS & kept
        # The subtraction clears the guard bit of each key for which h is not greater. It borrows no bit of another key.
        greater = ((h | guards) - best - ones) & guards
        mask = greater - (greater >> 63)  # the 63 bits below each guard bit that is left
        best ^= (best ^ h) & mask
        owner ^= (owner ^ ones * position) & mask
    return owner, best


def _numbers(packed: int, count: int) -> tuple[int, ...]:
    """Return the *count* numbers of 64 bits in *packed*."""
    return struct.unpack(f">{count}Q", packed.to_bytes(8 * count))


@final
@attrs.frozen(init=False, repr=False)
class RendezvousRouter:
    """Routes each key to a node. The share of a node is proportional to its weight.

    The same key and nodes give the same node in every process and on every platform. The order of *nodes* does not
    count. Removing a node moves only its keys. Changing a weight moves keys only to or from that node.

    Args:
        nodes: at least one with a weight above 0. Weight 0 drains a node: it is known but owns no keys.

    Attributes:
        nodes: the nodes in ascending order of names.

    Raises InvalidArgumentError if there are no nodes, if two nodes have one name, if all weights are 0, or if a weight
    is below 1e-200 (and not 0) or above 1e200. Raises InvalidTypeError for an argument of a wrong type.
    """

    nodes: tuple[Node, ...]
    _groups: Groups = attrs.field(eq=False)
    _seeds: tuple[int, ...] = attrs.field(eq=False)
    _only: Node | None = attrs.field(eq=False)
    _equals: Sequence[int] | None = attrs.field(eq=False)  # the order of _seeds; None: there are several weights
    _owners: Owners | None = attrs.field(eq=False)  # compiled
    _known: dict[bytes, int] = attrs.field(eq=False)  # the position of the owner, of some keys

    def __init__(self, nodes: Iterable[Node]) -> None:
        ordered = _ordered(nodes)
        groups = _grouped(ordered)
        seeds = tuple(_seed(ordered[position]) for _, positions in groups for position in positions)
        only = ordered[groups[0][1][0]] if len(seeds) == 1 else None
        equals = groups[0][1] if len(groups) == 1 else None
        # attrs generates __attrs_init__, which pyright does not know.
        self.__attrs_init__(  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
            ordered, groups, seeds, only, equals, make_owners(len(ordered), groups, seeds), {}
        )

    @override
    def __repr__(self) -> str:
        return f"<RendezvousRouter {', '.join(f'{node.name} (weight {node.weight:.12g})' for node in self.nodes)}>"

    @override
    def __reduce__(self) -> tuple[Callable[[Iterable[Node]], RendezvousRouter], tuple[tuple[Node, ...]]]:
        return RendezvousRouter, (self.nodes,)  # __init__ computes the other attributes

    def pick(self, key: bytes | str, /) -> Node:
        """Return the node that owns *key*. A str is encoded as UTF-8, so ``"k"`` and ``b"k"`` are one key.

        Raises InvalidKeyTypeError for other types, and InvalidKeyError for a lone surrogate.
        """
        if type(key) is not bytes:
            key = _as_bytes(key)
        if self._only is not None:
            return self._only
        if self._owners is not None and (owner := self._owners.pick(key)) is not None:
            return self.nodes[owner]
        if (position := self._known.get(key)) is not None:
            return self.nodes[position]
        hashes = map(xxh3, repeat(key), self._seeds)
        if self._equals is None:
            owner = winner(hashes, self._groups)
        else:
            # `winner` for nodes of one weight, without its call: that would cost 3,000 instructions, a tenth of a get.
            owner, ceiling = 0, -1
            for position, h in zip(self._equals, hashes):  # noqa: B905 - both have one element for each node
                if h > ceiling:
                    owner, ceiling = position, h | DROPPED
        if len(key) <= LONGEST_KNOWN:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[key] = owner
        return self.nodes[owner]

    def rank(self, key: bytes | str, n: int, /) -> tuple[Node, ...]:
        """Return the *n* nodes of least cost, the owner first. This is the order of failover.

        Drained nodes are never included. Returns fewer nodes if fewer have a weight above 0. Raises
        InvalidArgumentError if *n* is negative, and the errors of `pick`.
        """
        if isinstance(n, bool) or not isinstance(n, int):
            raise InvalidTypeError(f"n must be an int, not {type(n).__name__}")
        if n < 0:
            raise InvalidArgumentError(f"n is the number of nodes to return and must be at least 0, not {n}")
        raw = _as_bytes(key)
        hashes = map(xxh3, repeat(raw), self._seeds)
        ranked = sorted(
            (cost(next(hashes), weight), position) for weight, positions in self._groups for position in positions
        )
        return tuple(self.nodes[position] for _, position in ranked[:n])

    def split(self, keys: Sequence[bytes | str], /) -> dict[str, list[int]]:
        """Return, for each node name, the indexes into *keys* of the keys that the node owns.

        Names and indexes are in ascending order. Nodes that own none of the keys are omitted. This is cheaper than
        `pick` for each key. Raises the errors of `pick`.
        """
        found = None if self._owners is None else self._owners.shares(keys)
        if found is not None:
            return {node.name: share for node, share in zip(self.nodes, found, strict=True) if share}
        # cast: the types are checked, all together, which is cheaper than one by one.
        raws = cast("Sequence[bytes]", keys) if set(map(type, keys)) == {bytes} else list(map(_as_bytes, keys))
        if self._only is not None:
            return {self._only.name: list(range(len(raws)))} if raws else {}
        shares: list[list[int]] = [[] for _ in self.nodes]
        for index, position in enumerate(self._positions(raws)):
            shares[position].append(index)
        return {node.name: share for node, share in zip(self.nodes, shares, strict=True) if share}

    def _positions(self, keys: Sequence[bytes]) -> Sequence[int]:
        """Return the positions of the owners of *keys*."""
        known = list(map(self._known.get, keys))
        missing = known.count(None)
        if not missing:
            return cast("list[int]", known)  # cast: none of them is None
        if missing == len(keys):
            return self._find(keys)
        found = iter(self._find([key for key, position in zip(keys, known, strict=True) if position is None]))
        return [next(found) if position is None else position for position in known]

    def _find(self, keys: Sequence[bytes]) -> Sequence[int]:
        """Compute the positions of the owners of *keys*, and remember them unless they are too many or too long."""
        columns = (b"".join(map(xxh3_digest, keys, repeat(seed))) for seed in self._seeds)
        found = winners(columns, self._groups, len(keys))
        if len(keys) <= MOST_KNOWN and max(map(len, keys)) <= LONGEST_KNOWN:
            if len(self._known) + len(keys) > MOST_KNOWN:
                self._known.clear()
            self._known.update(zip(keys, found, strict=True))
        return found

    def explain(self, key: bytes | str, /) -> tuple[NodeScore, ...]:
        """Return the score of each node for *key*, the owner first, drained nodes last. Raises the errors of `pick`."""
        raw = _as_bytes(key)
        ranked = self.rank(raw, len(self.nodes))
        drained = (node for node in self.nodes if not node.weight)
        return (
            *(_score(raw, node, rank) for rank, node in enumerate(ranked, 1)),
            *(_score(raw, node, None) for node in drained),
        )

    def moved(self, other: Router, /, *, samples: int = SAMPLES) -> Moves:
        """Return the share of all keys that would move if *other* replaced this router.

        Estimates it with the first *samples* of the keys "0", "1", "2", …, so the result is always the same. Nodes are
        compared by name. Raises InvalidArgumentError if *samples* is below 1.
        """
        if isinstance(samples, bool) or not isinstance(samples, int):
            raise InvalidTypeError(f"samples must be an int, not {type(samples).__name__}")
        if samples < 1:
            raise InvalidArgumentError(f"samples must be at least 1, not {samples}")
        keys = [b"%d" % number for number in range(samples)]
        pairs = zip(_owner_names(self, keys), _owner_names(other, keys), strict=True)
        from metacache.routing.reports import Moves  # late: only operators ask for it

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
    for node in given:
        _check_node(node)
    if not any(node.weight for node in given):
        raise InvalidArgumentError(
            "every node has weight 0, so no node can own a key; give at least one a weight above 0"
        )
    return given


def _check_node(node: Node) -> None:
    if node.weight and not LEAST_WEIGHT <= node.weight <= GREATEST_WEIGHT:
        raise InvalidArgumentError(
            f"node {node.name!r} has weight {node.weight}; give 0, or a number from {LEAST_WEIGHT} to {GREATEST_WEIGHT}"
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
    for position, node in enumerate(ordered):
        if node.weight:
            groups.setdefault(node.weight, []).append(position)
    return tuple((weight, tuple(positions)) for weight, positions in groups.items())


def _as_bytes(key: bytes | str) -> bytes:
    if not isinstance(key, str | bytes):
        raise InvalidKeyTypeError(f"a key is str or bytes, not {type(key).__name__}")
    try:
        return key.encode() if isinstance(key, str) else bytes(key)
    except UnicodeEncodeError:
        raise InvalidKeyError("the key holds a lone surrogate, which UTF-8 cannot encode", key=key) from None


def _score(key: bytes, node: Node, rank: int | None) -> NodeScore:
    from metacache.routing.reports import NodeScore  # late: as above

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
