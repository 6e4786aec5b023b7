"""The nodes of a cluster and their health at one moment, and the choice of the node that serves a key. Frozen.

A reader takes one snapshot and decides with it. `membership` replaces the snapshot when the health of a node or the set
of nodes changes. A pool is an opaque value here. This module opens no socket, takes no lock and reads no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, NamedTuple, NoReturn, TypeVar, final

import attrs

from metacache.cluster.health import HEALTHY, Health, moved_off
from metacache.errors import ConnectError, InvalidArgumentError, MetacacheError, NodeDownError
from metacache.marks import override
from metacache.nodes import Node
from metacache.routing import Router, split

__all__ = ["Assignment", "Member", "Snapshot"]

P = TypeVar("P")


@final
@attrs.frozen(eq=False)
class Member(Generic[P]):
    """One node of a cluster and its pool. The pool is its identity: a node that leaves and returns has another one."""

    node: Node
    pool: P


@final
class Assignment(NamedTuple, Generic[P]):
    """The keys of a batch that one member serves, by index. With an *error*: keys that no member serves."""

    member: Member[P]
    indices: Sequence[int]
    error: NodeDownError | None = None


@final
class _Members(dict[str, Member[P]]):
    """Members by name. Routers may be user code, and may return unknown nodes."""

    def __missing__(self, name: str) -> NoReturn:
        raise InvalidArgumentError(f"the router chose {name}, which is not a node of this cluster; check its `pick`")


@final
class _Unopened:
    """The router of a cluster whose nodes are not known yet."""

    nodes: tuple[Node, ...] = ()

    def pick(self, _: bytes, /) -> Node:
        raise ConnectError("the nodes are not found yet")

    def rank(self, _: bytes, __: int, /) -> tuple[Node, ...]:
        return ()


@final
@attrs.frozen(eq=False)
class Snapshot(Generic[P]):
    """One set of nodes with the health of each.

    Attributes:
        router: chooses the node that owns a key.
        members: by name.
        healths: the health of each member, by name.
        keys_move: the keys of a node that is down go to the next-ranked node.
        pick: the method of the router, bound once.
        down: the names of the nodes that are down.
        moved: the names of those down nodes whose keys other nodes serve.
        is_all_healthy: True if no node has failed since its last reply.
        is_direct: True if every request may go directly to the pool of its key's owner, without a second attempt.
    """

    router: Router
    members: Mapping[str, Member[P]]
    healths: Mapping[str, Health]
    keys_move: bool
    pick: Callable[[bytes], Node]
    down: frozenset[str]
    moved: frozenset[str]
    is_all_healthy: bool
    is_direct: bool

    @classmethod
    def of(
        cls, router: Router, members: Mapping[str, Member[P]], healths: Mapping[str, Health], *, keys_move: bool
    ) -> Snapshot[P]:
        """Return the snapshot of these members. It computes the other attributes from their health."""
        down = [name for name, health in healths.items() if health.is_down]
        down.sort(key=lambda name: healths[name].down_since)
        weights = {node.name: node.weight for node in router.nodes}
        is_all_healthy = not [health for health in healths.values() if health is not HEALTHY]
        return cls(
            router,
            members,
            healths,
            keys_move,
            router.pick,
            down=frozenset(down),
            moved=moved_off(down, weights) if keys_move else frozenset(),
            is_all_healthy=is_all_healthy,
            is_direct=is_all_healthy and bool(members) and not keys_move,
        )

    @classmethod
    def empty(cls, *, keys_move: bool) -> Snapshot[P]:
        """Return the snapshot of a cluster whose nodes are not known yet."""
        return cls.of(_Unopened(), _Members[P](), {}, keys_move=keys_move)

    def members_of(self, router: Router, make_pool: Callable[[Node], P]) -> Mapping[str, Member[P]]:
        """Return the members of the nodes of *router*, by name.

        Nodes of the same name and address keep their pool; the others get a pool of *make_pool*.
        """
        members = _Members[P]()
        for node in router.nodes:
            known = self._known(node)
            members[node.name] = Member(node, make_pool(node) if known is None else known.pool)
        return members

    def _known(self, node: Node) -> Member[P] | None:
        known = self.members.get(node.name)
        return known if known is not None and known.node.address == node.address else None

    def with_members(self, router: Router, members: Mapping[str, Member[P]]) -> Snapshot[P]:
        """Return the snapshot of *members*, which `members_of` made for *router*. Those that stay keep their health."""
        healths = {
            node.name: HEALTHY if self._known(node) is None else self.healths[node.name] for node in router.nodes
        }
        return Snapshot[P].of(router, members, healths, keys_move=self.keys_move)

    def with_health(self, name: str, health: Health) -> Snapshot[P]:
        """Return the snapshot in which the node called *name* has this *health*."""
        return Snapshot[P].of(self.router, self.members, {**self.healths, name: health}, keys_move=self.keys_move)

    @override
    def __repr__(self) -> str:
        return ", ".join([f"{name} {health.state.value}" for name, health in self.healths.items()])

    # --- members -----------------------------------------------------------------------------------------------------

    def by_node(self) -> dict[Node, Member[P]]:
        """Return the members by node."""
        return {node: self.members[node.name] for node in self.router.nodes}

    def has(self, member: Member[P]) -> bool:
        """Return whether *member* is in this set of nodes, perhaps with another weight."""
        own = self.members.get(member.node.name)
        return own is not None and own.pool is member.pool

    def pools_missing_in(self, after: Snapshot[P]) -> list[P]:
        """Return the pools of the members that are not in *after*."""
        return [member.pool for member in self.members.values() if not after.has(member)]

    def is_down(self, member: Member[P]) -> bool:
        """Return whether *member* is down."""
        return member.node.name in self.down

    def is_moved(self, member: Member[P]) -> bool:
        """Return whether other members serve the keys of *member* now, because it is down or left the set."""
        return self.keys_move and (member.node.name in self.moved or not self.has(member))

    def unsent(self, member: Member[P], errors: Mapping[int, MetacacheError]) -> list[int]:
        """Return the indexes of the failed requests that another member serves now, in ascending order.

        *errors*: the errors of the part of *member*, by index in that part. Requests that may have been sent are left
        out.
        """
        if not self.is_moved(member):
            return []
        return sorted([at for at, error in errors.items() if type(error) is ConnectError])

    # --- one key -----------------------------------------------------------------------------------------------------

    def owner(self, key: bytes) -> Member[P]:
        """Return the member that owns *key*. Raises InvalidArgumentError if the router chooses an unknown node."""
        return self.members[self.pick(key).name]

    def healthy_owner(self, key: bytes) -> Member[P] | None:
        """Return the member that owns *key*; None if it has failed since its last reply."""
        owner = self.owner(key)
        return owner if self.healths[owner.node.name] is HEALTHY else None

    def server(self, key: bytes) -> Member[P]:
        """Return the member that serves *key*: its owner, or the next-ranked one. Raises NodeDownError."""
        owner = self.owner(key)
        found = self._stand_in(owner, key) if self.is_down(owner) else owner
        if found is None:
            raise self._refusal(owner)
        return found

    def _stand_in(self, owner: Member[P], key: bytes) -> Member[P] | None:
        """Return the member that serves *key* while its *owner* is down; None if no member does."""
        if owner.node.name not in self.moved:
            return None
        ranked = self.router.rank(key, len(self.members))
        names = [node.name for node in ranked if node.name not in self.down]
        return self.members[names[0]] if names else None

    def _refusal(self, owner: Member[P]) -> NodeDownError:
        failures = self.healths[owner.node.name].failures
        why = f"the node is down after {failures} failures; the client probes it from time to time"
        return NodeDownError(why, node=owner.node.name)

    # --- many keys ---------------------------------------------------------------------------------------------------

    def due(self, keys: Sequence[bytes], now: float) -> list[Member[P]]:
        """Return the owners of *keys* that are down and due for a probe."""
        if not self.down:
            return []
        down = self.down.intersection(split(self.router, keys))
        return [self.members[name] for name in sorted(down) if self.healths[name].may_probe(now)]

    def assign(self, keys: Sequence[bytes]) -> list[Assignment[P]]:
        """Return, for each member, the *keys* that it serves, in ascending order of the nodes' names."""
        shares = split(self.router, keys)
        if not self.down.isdisjoint(shares):
            return self._assign_around(shares, keys)
        return [Assignment(self.members[name], indices) for name, indices in shares.items()]

    def _assign_around(self, shares: Mapping[str, list[int]], keys: Sequence[bytes]) -> list[Assignment[P]]:
        served: dict[str, list[int]] = {}
        refused: dict[str, list[int]] = {}
        for name, indices in shares.items():
            if name not in self.down:
                served.setdefault(name, []).extend(indices)
                continue
            for index in indices:
                server = self._stand_in(self.members[name], keys[index])
                kind, by = (refused, name) if server is None else (served, server.node.name)
                kind.setdefault(by, []).append(index)
        parts = [Assignment(self.members[name], sorted(indices)) for name, indices in served.items()]
        for name, indices in refused.items():
            parts.append(Assignment(self.members[name], indices, error=self._refusal(self.members[name])))
        return sorted(parts, key=_by_name)


def _by_name(assignment: Assignment[P]) -> str:
    return assignment.member.node.name
