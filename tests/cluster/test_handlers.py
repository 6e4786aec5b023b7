"""A signal handler that uses the cluster in the middle of a call to the same cluster."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Final, TypeAlias

import attrs
import pytest

from metacache import Client, ClosedError, Cluster, ConnectError, Node, NodeDownError, RendezvousRouter
from metacache.cluster.health import HEALTHY, Health
from metacache.cluster.membership import Membership
from metacache.cluster.snapshot import Member
from metacache.observe import NodeState
from metacache.testing import Memcached
from tests.cluster.rig import NOWHERE, PATIENT, failure_of, keys_of, nodes_of, servers, state_of
from tests.pool.test_handlers import meddled

Event: TypeAlias = Callable[[Membership[None], Member[None]], object]


def _probe(*, is_answered: bool | None) -> Event:
    def probe(nodes: Membership[None], member: Member[None]) -> None:
        if nodes.start_probe(member, 1000.0):
            nodes.end_probe(member, 1000.0, is_answered)

    return probe


def _fail(nodes: Membership[None], member: Member[None]) -> None:
    nodes.failed(member, 1000.0)


def _fail_often(nodes: Membership[None], member: Member[None]) -> None:
    for _ in range(3):
        nodes.failed(member, 1000.0)


def _succeed(nodes: Membership[None], member: Member[None]) -> None:
    nodes.succeeded(member)


def _set_nodes(nodes: Membership[None], _: Member[None]) -> None:
    nodes.set_nodes(NODES, _no_pool)


EVENTS: Final[dict[str, Event]] = {
    "a failure": _fail,
    "three failures": _fail_often,
    "a success": _succeed,
    "an answered probe": _probe(is_answered=True),
    "a failed probe": _probe(is_answered=False),
    "an abandoned probe": _probe(is_answered=None),
    "nodes are set": _set_nodes,
}
NODES: Final = [Node("127.0.0.1:1", name="a"), Node("127.0.0.1:1", name="b")]
SUSPECT: Final = Health().failed(0.0, 0.5).failed(0.0, 0.5)
DOWN: Final = SUSPECT.failed(0.0, 0.5)
STATES: Final = {"up": HEALTHY, "suspect": SUSPECT, "down": DOWN, "probing": DOWN.probing(0.0)}


def _no_pool(_: Node) -> None:
    return None


@pytest.mark.parametrize(("outer", "inner"), [*itertools.product(EVENTS, repeat=2)])
@pytest.mark.parametrize("state", STATES)
def test_an_event_in_the_middle_of_another_event_of_the_node_is_not_lost(state: str, outer: str, inner: str) -> None:
    keys = [b"%d" % number for number in range(20)]
    expected = {_result(state, (outer, inner)), _result(state, (inner, outer))}
    for at in range(1, 500):
        nodes, member = _in_state(state)
        is_done = not meddled(
            lambda nodes=nodes, member=member: EVENTS[outer](nodes, member),  # type: ignore[misc]
            at,
            lambda nodes=nodes, member=member: EVENTS[inner](nodes, member),  # type: ignore[misc]
        )
        snapshot = nodes.snapshot
        served = {assignment.member.node.name for assignment in snapshot.assign(keys) if assignment.error is None}
        health = snapshot.healths["a"]
        assert served == ({"b"} if health.is_down else {"a", "b"}), f"interrupted at place {at}: {health}"
        if is_done:
            assert at > (1 if (state, outer) == ("up", "a success") else 5)
            break
        if {outer, inner} <= COUNTED:
            assert health.failures in expected, f"interrupted at place {at}: {health}"


# Each of these is one change, so that any interruption has the result of one order or of the other.
COUNTED: Final = {"a failure", "a success", "nodes are set"}


def _in_state(state: str) -> tuple[Membership[None], Member[None]]:
    nodes: Membership[None] = Membership(RendezvousRouter, keys_move=False, guard=threading.RLock(), listener=None)
    nodes.set_nodes(NODES, _no_pool)
    nodes.snapshot = nodes.snapshot.with_health("a", STATES[state])
    return nodes, nodes.snapshot.members["a"]


def _result(state: str, events: tuple[str, ...]) -> int:
    """Return how many failures in a row are counted when *events* happen one after another."""
    nodes, member = _in_state(state)
    for name in events:
        EVENTS[name](nodes, member)
    return nodes.snapshot.healths["a"].failures


def test_a_handler_that_uses_the_same_dead_node_as_the_interrupted_thread_ends_at_any_place() -> None:
    for at in range(1, 1000):
        with Cluster([NOWHERE], settings=PATIENT) as cluster:
            client = cluster.client()
            failure_of(lambda client=client: client.get("key"))  # type: ignore[misc]
            fail: Callable[[], object] = lambda client=client: failure_of(lambda: client.get("key"))  # type: ignore[misc]  # noqa: E731
            is_done = not meddled(fail, at, fail)
            is_down = state_of(cluster, "nowhere") is NodeState.DOWN
            errors = client.get_many_outcomes(["a", "b"]).errors
            assert {type(error) for error in errors.values()} == {NodeDownError if is_down else ConnectError}
            if is_done:
                break


SETTING: Final[dict[str, Callable[[Cluster, list[Node]], None]]] = {
    "others": lambda cluster, nodes: cluster.set_nodes([nodes[0], nodes[2]]),
    "the same": lambda cluster, nodes: cluster.set_nodes(nodes[:2]),
    "elsewhere": lambda cluster, nodes: cluster.set_nodes([nodes[0], attrs.evolve(nodes[2], name="b")]),
}


@pytest.mark.parametrize(("outer", "inner"), [*itertools.product(SETTING, repeat=2)])
def test_after_nodes_are_set_in_the_middle_of_setting_nodes_all_pools_are_open(outer: str, inner: str) -> None:
    with servers(3) as three:
        nodes = nodes_of(three)
        for at in range(1, 1000):
            with Cluster(nodes[:2], settings=PATIENT) as cluster:
                is_done = not meddled(
                    lambda cluster=cluster: SETTING[outer](cluster, nodes),  # type: ignore[misc]
                    at,
                    lambda cluster=cluster: SETTING[inner](cluster, nodes),  # type: ignore[misc]
                )
                client = cluster.client()
                for node in cluster.nodes:
                    for key in keys_of(cluster, node.name, 2):
                        assert client.set(key, b"value"), f"meddled at place {at}"
                        assert client.get_many([key]) == {key: b"value"}
            if is_done:
                assert at > 10
                break


def test_a_cluster_closed_in_the_middle_of_setting_nodes_is_closed(shared_memcached: Memcached) -> None:
    for at in range(1, 1000):
        cluster = Cluster([shared_memcached.node], settings=PATIENT)
        more = [shared_memcached.node, attrs.evolve(shared_memcached.node, name="another")]
        try:
            is_done = not meddled(lambda: cluster.set_nodes(more), at, cluster.close)  # noqa: B023 - called immediately
        except ClosedError:
            is_done = False
        if is_done:
            cluster.close()
            break
        assert isinstance(failure_of(lambda: Client(cluster).get("key")), ClosedError)  # noqa: B023 - as above
        assert isinstance(failure_of(lambda: cluster.set_nodes(more)), ClosedError)  # noqa: B023 - as above
        for statistics in cluster.statistics.values():
            assert (statistics.in_use, statistics.idle) == (0, 0)
