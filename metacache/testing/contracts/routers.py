"""`RouterContract`: the tests that every router must pass."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import ClassVar, Final

from metacache.nodes import Node
from metacache.routing import Router, split
from metacache.testing.contracts.processes import in_new_process

__all__ = ["RouterContract"]

_NODES: Final = tuple(Node(f"cache-{number}:11211", name=f"node-{number}") for number in range(7))
_KEYS: Final = (
    *(b"key:%d" % number for number in range(400)),
    *(b"\0", b" ", b"a b", b"\xff\xfe", "ключ".encode(), b"x" * 250, b"node-1"),
)


class RouterContract:
    """Tests of a router. Subclass it in a test module, with a name that begins with ``Test``.

    Attributes:
        moves_few_keys: removing a node moves only its own keys. False: the router promises less.
    """

    moves_few_keys: ClassVar[bool] = True

    def router(self, nodes: Sequence[Node]) -> Router:
        """Return a new router of *nodes*."""
        raise NotImplementedError("override router(self, nodes)")

    def test_a_router_knows_its_nodes(self) -> None:
        """``nodes`` has each node once."""
        for count in (1, 2, len(_NODES)):
            found = self.router(_NODES[:count]).nodes
            assert isinstance(found, tuple), f"nodes is a {type(found).__name__}, not a tuple"
            names = sorted(node.name for node in found)
            assert names == [node.name for node in _NODES[:count]], f"nodes has the names {names}"

    def test_pick_is_the_first_of_rank(self) -> None:
        """``pick`` returns one of the nodes, the first one of ``rank``."""
        router = self.router(_NODES)
        for key in _KEYS:
            owner = router.pick(key)
            assert owner in router.nodes, f"pick({key!r}) returned an unknown node"
            assert router.rank(key, 1) == (owner,), f"pick and rank disagree about {key!r}"

    def test_rank_returns_different_nodes_in_a_fixed_order(self) -> None:
        """``rank(key, n)`` has n different nodes, or all; a shorter rank is the beginning of a longer one."""
        router = self.router(_NODES)
        for key in _KEYS:
            whole = router.rank(key, len(_NODES) + 3)
            assert isinstance(whole, tuple), f"rank returned a {type(whole).__name__}, not a tuple"
            names = {node.name for node in whole}
            assert len(whole) == len(names) == len(_NODES), f"rank({key!r}) does not have each node once"
            for n in range(1, len(_NODES)):
                assert router.rank(key, n) == whole[:n], f"rank({key!r}, {n}) is not the beginning of the whole rank"

    def test_the_same_key_has_the_same_owner(self) -> None:
        """The owner does not depend on earlier calls, nor on the order in which the nodes are given."""
        router = self.router(_NODES)
        expected = [router.pick(key).name for key in _KEYS]
        assert [router.pick(key).name for key in reversed(_KEYS)] == expected[::-1], "an earlier call changed an owner"
        others = list(_NODES)
        random.Random(1).shuffle(others)
        other = self.router(others)
        assert [other.pick(key).name for key in _KEYS] == expected, "the order of the nodes changes owners"

    def test_owners_are_the_same_in_another_process(self) -> None:
        """The owner does not depend on the hashes or addresses of one process."""
        ours, theirs = owners(type(self)), in_new_process(owners, type(self))
        assert ours == theirs, "keys have other owners in another process"

    def test_each_node_owns_keys(self) -> None:
        """No node of the same weight stays without keys."""
        router = self.router(_NODES)
        owning = {router.pick(key).name for key in _KEYS}
        idle = sorted({node.name for node in _NODES} - owning)
        assert not idle, f"of {len(_KEYS)} keys, the nodes {idle} own none"

    def test_a_node_of_weight_0_serves_no_keys(self) -> None:
        """A node of weight 0 stays in ``nodes``, and ``pick`` and ``rank`` leave it out."""
        drained = Node(_NODES[0].address, name=_NODES[0].name, weight=0.0)
        router = self.router([drained, *_NODES[1:]])
        assert drained in router.nodes, "nodes does not have the node of weight 0"
        for key in _KEYS:
            names = {router.pick(key).name, *(node.name for node in router.rank(key, len(_NODES)))}
            assert drained.name not in names, f"pick or rank gives {key!r} to a node of weight 0"

    def test_a_batch_is_split_as_single_keys_are_picked(self) -> None:
        """If the router has a method ``split``, it agrees with ``pick``."""
        router = self.router(_NODES)
        expected = split(_PickOnly(router), _KEYS)
        assert split(router, _KEYS) == expected, "split and pick disagree"
        assert split(router, []) == {}, "split of no keys is not empty"

    def test_removing_a_node_moves_only_its_keys(self) -> None:
        """The keys of the other nodes stay. Checked unless *moves_few_keys* is False."""
        whole = self.router(_NODES)
        for removed in _NODES if self.moves_few_keys else ():
            rest = self.router([node for node in _NODES if node is not removed])
            for key in _KEYS:
                before, after = whole.pick(key).name, rest.pick(key).name
                is_right = after != before if before == removed.name else after == before
                assert is_right, f"without {removed.name}, {key!r} moves from {before} to {after}"


def owners(contract: type[RouterContract]) -> list[str]:
    """Return the owner of each key. Public within this package, so that another process can import it."""
    router = contract().router(_NODES)
    return [router.pick(key).name for key in _KEYS]


class _PickOnly:
    """A router without its own method ``split``."""

    def __init__(self, router: Router) -> None:
        self.nodes = router.nodes
        self.pick = router.pick
        self.rank = router.rank
