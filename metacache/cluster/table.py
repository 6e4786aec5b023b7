"""Who serves a key: the nodes of a cluster with what is known of their health. Shared by both clusters; moves no byte.

A `Table` is one picture of the node set; setting other nodes makes another. The members' health changes over time; what
guards it is the cluster's: a lock, or the event loop. Knows pools only as what is made for a node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, NoReturn, TypeVar, final

import attrs
from typing_extensions import override

from metacache.cluster.health import HEALTHY, Health, moved_off
from metacache.errors import ConnectError, InvalidArgumentError, MetacacheError, NodeDownError
from metacache.nodes import Node
from metacache.protocol.windows import Replies
from metacache.routing import Router, split
from metacache.transports.base import Batch

__all__ = ["Assignment", "Member", "Table", "fill_part", "part_of"]

P = TypeVar("P")


@final
class Member(Generic[P]):
    """One node of a cluster: its pool and its health."""

    __slots__ = ("down_since", "health", "node", "pool", "table")

    table: Table[P]
    """The latest table it is in."""

    def __init__(self, node: Node, pool: P) -> None:
        self.node = node
        self.pool = pool
        self.health: Health = HEALTHY
        self.down_since = 0.0

    @override
    def __repr__(self) -> str:
        return f"<Member {self.node.name}: {self.health.state.value}>"


@final
@attrs.frozen
class Assignment(Generic[P]):
    """The keys of a batch that one member serves, by index; or, with an *error*, that nobody does."""

    member: Member[P]
    indices: Sequence[int]
    error: NodeDownError | None = None


@final
class _Members(dict[str, Member[P]]):
    """The members of a table by name. Looked in for whatever node a router chose, which may be somebody's own."""

    def __missing__(self, name: str) -> NoReturn:
        raise InvalidArgumentError(f"the router chose {name}, which is none of its nodes; `pick` and `rank` give these")


@final
class Table(Generic[P]):
    """One set of nodes. ``owner`` is the short way, for the member that a key belongs to while nothing is wrong."""

    __slots__ = ("_down", "_moved", "_moves", "members", "pick", "router")

    def __init__(self, router: Router, members: Mapping[str, Member[P]], *, moves: bool) -> None:
        self.router = router
        self.pick = router.pick
        self.members: Mapping[str, Member[P]] = _Members(members)
        self._moves = moves
        for member in members.values():
            member.table = self
        self._recount()

    @classmethod
    def of(
        cls,
        router: Router,
        make: Callable[[Node], P],
        known: Mapping[str, Member[P]],
        *,
        moves: bool,
    ) -> Table[P]:
        """Return the table of *router*'s nodes; those that are *known*, by name and address, keep pool and health.

        *moves*: the keys of a node that is down go to the next-ranked.
        """
        members: dict[str, Member[P]] = {}
        for node in router.nodes:
            member = known.get(node.name)
            if member is None or member.node.address != node.address:
                member = Member(node, make(node))
            member.node = node  # the weight may be another
            members[node.name] = member
        return cls(router, members, moves=moves)

    def by_node(self) -> dict[Node, Member[P]]:
        """Return its members by their nodes."""
        return {node: self.members[node.name] for node in self.router.nodes}

    def pools_gone_in(self, after: Table[P]) -> list[P]:
        """Return the pools of those members that *after* has no more."""
        kept = {id(member) for member in after.members.values()}
        return [member.pool for member in self.members.values() if id(member) not in kept]

    def recount(self) -> None:
        """Look again which members are down, and whose keys go to others.

        What began before other nodes were set, and ends now, tells their table too.
        """
        for table in {self} | {member.table for member in self.members.values()}:
            table._recount()

    def _recount(self) -> None:
        weights = {node.name: node.weight for node in self.router.nodes}
        while True:
            healths = self._healths()
            down = sorted((member for member in self.members.values() if member.health.is_down), key=_down_since)
            names = [member.node.name for member in down]
            self._moved = moved_off(names, weights) if self._moves else frozenset[str]()
            self._down = frozenset(names)
            if self._healths() == healths:  # else a signal's handler has changed them, and counted, in between
                return

    def _healths(self) -> list[Health]:
        return [member.health for member in self.members.values()]

    # --- one key -----------------------------------------------------------------------------------------------------

    def owner(self, key: bytes) -> Member[P]:
        """Return the member that *key* belongs to."""
        return self.members[self.pick(key).name]

    def stand_in(self, key: bytes) -> Member[P]:
        """Return the member that serves *key* now that its owner is down. Raises NodeDownError when nobody does."""
        owner = self.owner(key)
        if owner.node.name in self._moved:
            for node in self.router.rank(key, len(self.members)):
                if node.name not in self._down:
                    return self.members[node.name]
        raise self.refusal(owner)

    def moves(self, member: Member[P]) -> bool:
        """Tell whether the keys of *member*, which is down, are served by others."""
        return member.node.name in self._moved

    def unsent(self, member: Member[P], errors: Mapping[int, MetacacheError]) -> list[int]:
        """Return which requests of the part that *member* had are for others to serve now, in ascending order.

        *errors*: by place in that part. It is those that surely were not sent, where the keys of *member* move.
        """
        if not self.moves(member):
            return []
        return sorted(at for at, error in errors.items() if type(error) is ConnectError)

    def refusal(self, member: Member[P]) -> NodeDownError:
        """Return the error for an operation on a *member* that is down."""
        told = f"the node is down after {member.health.failures} failures; it is probed again from time to time"
        return NodeDownError(told, node=member.node.name)

    # --- many keys ---------------------------------------------------------------------------------------------------

    def due(self, keys: Sequence[bytes], now: float) -> list[Member[P]]:
        """Return the owners of *keys* that are down and that it is time to probe."""
        if not self._down:
            return []
        down = self._down.intersection(split(self.router, keys))
        return [member for name in sorted(down) if (member := self.members[name]).health.may_probe(now)]

    def assign(self, keys: Sequence[bytes]) -> list[Assignment[P]]:
        """Return who serves which of *keys*, in ascending order of the nodes' names."""
        shares = split(self.router, keys)
        if not self._down.isdisjoint(shares):
            return self._assign_around(shares, keys)
        return [Assignment(self.members[name], indices) for name, indices in shares.items()]

    def _assign_around(self, shares: Mapping[str, list[int]], keys: Sequence[bytes]) -> list[Assignment[P]]:
        served: dict[str, list[int]] = {}
        refused: list[Assignment[P]] = []
        for name, indices in shares.items():
            member = self.members[name]
            if name not in self._down:
                served.setdefault(name, []).extend(indices)
            elif name in self._moved:
                for index in indices:
                    served.setdefault(self.stand_in(keys[index]).node.name, []).append(index)
            else:
                refused.append(Assignment(member, indices, error=self.refusal(member)))
        own = [Assignment(self.members[name], sorted(indices)) for name, indices in served.items()]
        return sorted(own + refused, key=_by_name)


def _down_since(member: Member[P]) -> float:
    return member.down_since


def _by_name(assignment: Assignment[P]) -> str:
    return assignment.member.node.name


def part_of(batch: Batch, indices: Sequence[int]) -> Batch:
    """Return the part of *batch* that its requests at *indices* are, which ascend; the whole of it is itself."""
    if len(indices) == len(batch):
        return batch
    bodies = None if batch.bodies is None else [batch.bodies[index] for index in indices]
    given = [batch.given[index] for index in indices]
    keys = [batch.keys[index] for index in indices]
    heads = [batch.heads[index] for index in indices]
    return Batch(batch.verb, given, keys, heads, bodies)


def fill_part(whole: Replies, indices: Sequence[int], part: Replies) -> None:
    """Put *part*, the replies to the requests at *indices*, into their places."""
    for index, header, value in zip(indices, part.headers, part.values, strict=True):
        whole.headers[index] = header
        whole.values[index] = value
    for at, error in part.errors.items():
        whole.errors[indices[at]] = error
