"""Which node serves a key, decided from a snapshot: without a cluster, a pool or a clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import attrs
import pytest

from metacache import ConnectError, InvalidArgumentError, Node, NodeDownError, OperationTimeout, RendezvousRouter
from metacache.cluster.health import HEALTHY, Health
from metacache.cluster.snapshot import Snapshot
from metacache.observe import NodeState
from metacache.routing import Router

DOWN: Final = Health(NodeState.DOWN, 3, 0.5, 100.0, 99.5)
SUSPECT: Final = Health(NodeState.SUSPECT, 2)
P = TypeVar("P")

KEYS: Final = [f"key:{number}".encode() for number in range(400)]


def with_nodes(before: Snapshot[P], router: Router, make_pool: Callable[[Node], P]) -> Snapshot[P]:
    return before.with_members(router, before.members_of(router, make_pool))


def snapshot_of(count: int, *, keys_move: bool = False) -> Snapshot[str]:
    router = RendezvousRouter([Node(f"127.0.0.1:{port}", name="abcdefgh"[port - 1]) for port in range(1, count + 1)])
    return with_nodes(Snapshot[str].empty(keys_move=keys_move), router, lambda node: f"pool of {node.name}")


@pytest.mark.parametrize("keys_move", [False, True])
def test_keys_of_a_node_that_is_down_are_refused_or_served_by_the_next(*, keys_move: bool) -> None:
    healthy = snapshot_of(4, keys_move=keys_move)
    whole = healthy.assign(KEYS)
    assert sorted(index for part in whole for index in part.indices) == list(range(400))
    assert [part.member.node.name for part in whole] == list("abcd")
    failed = whole[1].member
    snapshot = healthy.with_health("b", DOWN)
    parts = snapshot.assign(KEYS)
    assert sorted(index for part in parts for index in part.indices) == list(range(400))
    assert [part.member for part in parts if part.error is not None] == ([] if keys_move else [failed])
    if keys_move:
        for index in whole[1].indices:
            ranked = snapshot.router.rank(KEYS[index], 2)
            assert snapshot.server(KEYS[index]).node == ranked[1]
    else:
        with pytest.raises(NodeDownError, match="down after 3 failures"):
            snapshot.server(KEYS[whole[1].indices[0]])
    assert snapshot.due(KEYS, 99.0) == []
    assert snapshot.due(KEYS, 100.0) == [failed]
    assert snapshot.due([KEYS[whole[0].indices[0]]], 100.0) == [], "none of its keys is requested"
    back = snapshot.with_health("b", HEALTHY)
    assert [part.indices for part in back.assign(KEYS)] == [part.indices for part in whole]
    assert healthy.down == frozenset(), "the earlier snapshot is as it was"


def test_when_all_nodes_are_down_a_batch_is_refused_key_by_key() -> None:
    snapshot = snapshot_of(3, keys_move=True)
    for number, name in enumerate("abc"):
        snapshot = snapshot.with_health(name, attrs.evolve(DOWN, down_since=float(number)))
    assert snapshot.moved == {"a"}, "the one that went down first; two would be more than half of the weight"
    parts = snapshot.assign(KEYS)
    assert {type(part.error) for part in parts} == {NodeDownError}
    assert sorted(index for part in parts for index in part.indices) == list(range(400))


def test_the_node_that_went_down_first_is_the_one_whose_keys_move() -> None:
    snapshot = snapshot_of(2, keys_move=True)
    for first, second in ("ab", "ba"):
        one = snapshot.with_health(second, attrs.evolve(DOWN, down_since=2.0))
        both = one.with_health(first, attrs.evolve(DOWN, down_since=1.0))
        assert both.down == {"a", "b"}
        assert both.moved == {first}


@pytest.mark.parametrize(
    ("healths", "is_all_healthy"), [({}, True), ({"a": SUSPECT}, False), ({"a": DOWN}, False), ({"a": HEALTHY}, True)]
)
def test_only_while_all_are_healthy_a_request_needs_no_look_at_its_node(
    healths: dict[str, Health], *, is_all_healthy: bool
) -> None:
    snapshot = snapshot_of(2)
    for name, health in healths.items():
        snapshot = snapshot.with_health(name, health)
    assert snapshot.is_all_healthy is snapshot.is_direct is is_all_healthy
    for key in KEYS[:20]:
        owner = snapshot.owner(key)
        assert snapshot.healthy_owner(key) is (owner if is_all_healthy or owner.node.name == "b" else None)


def test_where_keys_move_or_no_node_is_known_no_request_goes_straight_to_a_pool() -> None:
    assert not snapshot_of(2, keys_move=True).is_direct
    unopened = Snapshot[str].empty(keys_move=False)
    assert not unopened.is_direct
    assert unopened.router.nodes == ()
    with pytest.raises(ConnectError, match="not found yet"):
        unopened.owner(b"key")


# --- other nodes -----------------------------------------------------------------------------------------------------


def test_nodes_that_stay_keep_pool_and_health_and_others_get_new_ones() -> None:
    before = snapshot_of(3).with_health("a", SUSPECT).with_health("b", DOWN).with_health("c", DOWN)
    made: list[str] = []

    def make(node: Node) -> str:
        made.append(node.name)
        return f"another pool of {node.name}"

    heavier = attrs.evolve(before.members["a"].node, weight=3.0)
    moved = Node("127.0.0.1:9", name="c")
    after = with_nodes(before, RendezvousRouter([heavier, moved, Node("127.0.0.1:8", name="d")]), make)
    assert made == ["c", "d"]
    assert [member.pool for member in after.members.values()] == ["pool of a", "another pool of c", "another pool of d"]
    assert after.members["a"].node.weight == 3.0
    assert after.healths == {"a": SUSPECT, "c": HEALTHY, "d": HEALTHY}
    assert before.pools_missing_in(after) == ["pool of b", "pool of c"]
    assert after.has(before.members["a"]), "it has another weight"
    assert not after.has(before.members["b"])
    assert not after.has(before.members["c"]), "it has another address"
    assert before.down == {"b", "c"}
    assert after.down == frozenset()


def test_requests_that_were_not_sent_are_for_others_only_where_the_keys_of_their_node_move() -> None:
    errors = {3: ConnectError("refused"), 1: ConnectError("refused"), 2: OperationTimeout("late")}
    for keys_move in (False, True):
        healthy = snapshot_of(4, keys_move=keys_move)
        member = healthy.members["b"]
        assert healthy.unsent(member, errors) == []
        for snapshot in (healthy.with_health("b", DOWN), with_nodes(healthy, _without_b(healthy), str)):
            assert snapshot.unsent(member, errors) == ([1, 3] if keys_move else [])
            assert snapshot.is_moved(member) is keys_move


def _without_b(snapshot: Snapshot[str]) -> RendezvousRouter:
    return RendezvousRouter([node for node in snapshot.router.nodes if node.name != "b"])


class _StrangeRouter:
    """A user's router that returns a node of another cluster."""

    nodes: tuple[Node, ...] = (Node("127.0.0.1:1", name="a"),)

    def pick(self, _: bytes, /) -> Node:
        return Node("127.0.0.1:2", name="strange")

    def rank(self, key: bytes, _: int, /) -> tuple[Node, ...]:
        return (self.pick(key),)


def test_a_router_that_returns_an_unknown_node_is_an_error_that_names_it() -> None:
    snapshot = with_nodes(Snapshot[None].empty(keys_move=False), _StrangeRouter(), lambda _: None)
    with pytest.raises(InvalidArgumentError, match="strange"):
        snapshot.server(b"key")
    with pytest.raises(InvalidArgumentError, match="strange"):
        snapshot.healthy_owner(b"key")
    with pytest.raises(InvalidArgumentError, match="strange"):
        snapshot.assign([b"key"])
