"""The snapshot of a cluster as results come in, also late ones of nodes that left the set or returned to it."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Final

import attrs
import pytest

from metacache import ConnectError, InvalidArgumentError, Node, NodeState, PoolTimeout, RendezvousRouter
from metacache.cluster.health import Health
from metacache.cluster.membership import Membership
from metacache.cluster.snapshot import Member
from metacache.errors import ClosedError
from metacache.routing import Router

NOW: Final = 1000.0
NODES: Final = [Node("127.0.0.1:1", name=name) for name in "abc"]


def membership_of(nodes: Sequence[Node], *, keys_move: bool = False) -> Membership[object]:
    made: Membership[object] = Membership(RendezvousRouter, keys_move=keys_move, guard=nullcontext(), listener=None)
    made.set_nodes(nodes, _pool)
    return made


def _pool(_: Node) -> object:
    return object()


def bring_down(nodes: Membership[object], member: Member[object], now: float = NOW) -> None:
    for _ in range(3):
        nodes.failed(member, now)


def down(nodes: Membership[object]) -> str:
    return "".join(sorted(nodes.snapshot.down))


def test_each_change_is_a_snapshot_of_its_own() -> None:
    nodes = membership_of(NODES)
    member = nodes.snapshot.members["b"]
    seen = [nodes.snapshot]
    for _ in range(3):
        nodes.failed(member, NOW)
        seen.append(nodes.snapshot)
    states = [snapshot.healths["b"].state for snapshot in seen]
    assert states == [NodeState.UP, NodeState.SUSPECT, NodeState.SUSPECT, NodeState.DOWN]
    nodes.failed(member, NOW)
    nodes.succeeded(member)
    assert nodes.snapshot is seen[-1], "nothing changes while it is down"


def test_a_late_result_counts_for_a_node_that_stayed_with_another_weight() -> None:
    nodes = membership_of(NODES)
    before = nodes.snapshot.members["b"]
    nodes.set_nodes([NODES[0], attrs.evolve(NODES[1], weight=2.0)], _pool)
    bring_down(nodes, before)
    assert down(nodes) == "b"
    assert nodes.start_probe(before, NOW + 1.0)
    nodes.end_probe(nodes.snapshot.members["b"], NOW + 1.0, is_answered=True)
    assert nodes.snapshot.is_all_healthy


@pytest.mark.parametrize("returns", [False, True])
def test_a_late_result_of_a_node_that_left_changes_nothing(*, returns: bool) -> None:
    nodes = membership_of(NODES)
    before = nodes.snapshot.members["b"]
    nodes.failed(before, NOW)
    nodes.set_nodes(NODES[:1], _pool)
    if returns:
        nodes.set_nodes(NODES, _pool)
    snapshot = nodes.snapshot
    bring_down(nodes, before)
    nodes.succeeded(before)
    assert not nodes.start_probe(before, NOW + 1.0)
    nodes.end_probe(before, NOW, is_answered=False)
    assert nodes.snapshot is snapshot
    assert snapshot.is_all_healthy


def test_of_two_nodes_the_one_that_went_down_first_keeps_its_rank_through_its_probes() -> None:
    nodes = membership_of(NODES[:2], keys_move=True)
    first, second = (nodes.snapshot.members[name] for name in "ba")
    bring_down(nodes, first, NOW)
    bring_down(nodes, second, NOW + 0.1)
    assert nodes.snapshot.moved == {"b"}
    for is_answered, now in ((False, NOW + 10.0), (None, NOW + 20.0)):
        assert nodes.start_probe(first, now)
        nodes.end_probe(first, now, is_answered)
        assert nodes.snapshot.moved == {"b"}
    assert nodes.start_probe(first, NOW + 30.0)
    nodes.end_probe(first, NOW + 30.0, is_answered=True)
    assert nodes.snapshot.moved == {"a"}


def test_a_failed_connection_is_charged_to_the_node_of_its_name_and_address() -> None:
    nodes = membership_of(NODES)
    for error in (PoolTimeout("full"), ConnectError("refused")):
        nodes.connection_failed(NODES[1], error, NOW)
        assert nodes.states()[NODES[1]] is (NodeState.SUSPECT if isinstance(error, ConnectError) else NodeState.UP)
    elsewhere = Node("127.0.0.1:9", name="b")
    nodes.set_nodes([elsewhere], _pool)
    nodes.connection_failed(NODES[1], ConnectError("refused"), NOW)
    nodes.connection_failed(NODES[0], ConnectError("refused"), NOW)
    assert nodes.states() == {elsewhere: NodeState.UP}


def test_nodes_that_cannot_be_used_change_nothing_and_a_closed_cluster_takes_none() -> None:
    nodes = membership_of(NODES)
    snapshot = nodes.snapshot
    for wrong in ([], [NODES[0], NODES[0]]):
        with pytest.raises(InvalidArgumentError):
            nodes.set_nodes(wrong, _pool)
    assert nodes.snapshot is snapshot
    nodes.close()
    with pytest.raises(ClosedError, match="set_nodes"):
        nodes.set_nodes(NODES, _pool)
    assert repr(nodes) == "closed"


def test_nodes_set_while_the_router_is_made_are_not_lost() -> None:
    """As a signal handler does that interrupts `set_nodes`."""
    interruptions = [[NODES[2]]]

    def make_router(chosen: Sequence[Node]) -> Router:
        if interruptions and len(nodes.snapshot.members) > 0:
            nodes.set_nodes(interruptions.pop(), _pool)
        return RendezvousRouter(chosen)

    nodes: Membership[object] = Membership(make_router, keys_move=False, guard=threading.RLock(), listener=None)
    nodes.set_nodes(NODES[:1], _pool)
    first, gone = nodes.snapshot.members["a"].pool, nodes.set_nodes(NODES[1:2], _pool)
    assert list(nodes.snapshot.members) == ["b"]
    assert len(gone) == 1
    assert gone[0] is not first, "the handler has closed that one; this is the pool of the handler's node"


def test_no_writer_waits_for_another_that_makes_its_next_snapshot() -> None:
    """The operation of a writer that waits cannot end at its deadline."""
    begun, may_end = threading.Event(), threading.Event()

    def make_router(chosen: Sequence[Node]) -> Router:
        if len(chosen) == 2:
            begun.set()
            assert may_end.wait(10.0)
        return RendezvousRouter(chosen)

    def slow(health: Health) -> Health:
        if health.failures == 1:
            begun.set()
            assert may_end.wait(10.0)
        return health.failed(NOW, 0.5)

    nodes: Membership[object] = Membership(make_router, keys_move=False, guard=threading.RLock(), listener=None)
    nodes.set_nodes(NODES, _pool)
    member, other = nodes.snapshot.members["a"], nodes.snapshot.members["b"]
    nodes.failed(member, NOW)
    for write in (lambda: nodes._change(member, slow), lambda: nodes.set_nodes(NODES[:2], _pool)):
        begun.clear()
        may_end.clear()
        thread = threading.Thread(target=write)
        thread.start()
        assert begun.wait(10.0)
        nodes.failed(other, NOW)  # would wait for the thread
        may_end.set()
        thread.join(10.0)
    assert list(nodes.snapshot.members) == ["a", "b"]
    assert [nodes.snapshot.healths[name].failures for name in "ab"] == [2, 2]
    assert nodes.snapshot.members["a"].pool is member.pool


def test_no_change_of_many_threads_is_lost() -> None:
    nodes: Membership[object] = Membership(RendezvousRouter, keys_move=False, guard=threading.RLock(), listener=None)
    nodes.set_nodes(NODES, _pool)
    member, threads, times = nodes.snapshot.members["a"], 8, 150
    stop = threading.Event()

    def set_nodes() -> None:
        while not stop.is_set():
            for weight in (1.0, 2.0):
                nodes.set_nodes([attrs.evolve(node, weight=weight) for node in NODES], _pool)

    def write() -> None:
        for _ in range(times):
            nodes._change(member, lambda health: attrs.evolve(health, failures=health.failures + 1))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    setter = threading.Thread(target=set_nodes)
    try:
        setter.start()
        with ThreadPoolExecutor(threads) as pool:
            done = [pool.submit(write) for _ in range(threads)]
        assert [each.result() for each in done] == [None] * threads
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        setter.join()
    assert nodes.snapshot.healths["a"].failures == threads * times
    assert nodes.snapshot.members["a"].pool is member.pool


def test_a_listener_that_fails_is_logged_with_the_node(caplog: pytest.LogCaptureFixture) -> None:
    def listen(*_: object) -> None:
        raise ValueError("the listener is broken")

    nodes: Membership[object] = Membership(RendezvousRouter, keys_move=False, guard=nullcontext(), listener=listen)
    nodes.set_nodes(NODES, _pool)
    with caplog.at_level(logging.INFO, "metacache.cluster"):
        bring_down(nodes, nodes.snapshot.members["b"])
    assert [record.levelname for record in caplog.records] == ["INFO", "ERROR", "WARNING", "ERROR"]
    assert "on_state_change failed for node b" in caplog.text
