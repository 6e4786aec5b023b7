"""A signal's handler that uses the cluster itself, in the middle of whatever the interrupted thread does with it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Final, TypeAlias

import attrs
import pytest

from metacache import Client, ClosedError, Cluster, ConnectError, Node, NodeDownError, RendezvousRouter
from metacache.cluster.health import HEALTHY, Health, NodeState
from metacache.cluster.health_tracker import HealthTracker
from metacache.cluster.table import Member, Table
from metacache.testing import Memcached
from tests.cluster.rig import NOWHERE, PATIENT, failure_of, keys_of, nodes_of, servers, state_of
from tests.pool.test_handlers import meddled

Happening: TypeAlias = Callable[[HealthTracker, Table[None], Member[None]], object]


def _probe(*, found: bool | None) -> Happening:
    def happen(keeper: HealthTracker, table: Table[None], member: Member[None]) -> None:
        if keeper.start_probe(member, 1000.0):
            keeper.end_probe(table, member, 1000.0, found)

    return happen


def _fail(keeper: HealthTracker, table: Table[None], member: Member[None]) -> None:
    keeper.failed(table, member, 1000.0)


def _fail_often(keeper: HealthTracker, table: Table[None], member: Member[None]) -> None:
    for _ in range(3):
        keeper.failed(table, member, 1000.0)


def _succeed(keeper: HealthTracker, table: Table[None], member: Member[None]) -> None:
    keeper.succeeded(table, member, 1000.0)


HAPPENINGS: Final[dict[str, Happening]] = {
    "a failure": _fail,
    "three failures": _fail_often,
    "a success": _succeed,
    "a probe with an answer": _probe(found=True),
    "a probe without": _probe(found=False),
    "a probe given up": _probe(found=None),
}
SUSPECT: Final = Health().failed(0.0, 0.5).failed(0.0, 0.5)
DOWN: Final = SUSPECT.failed(0.0, 0.5)
STATES: Final = {"up": HEALTHY, "suspect": SUSPECT, "down": DOWN, "probing": DOWN.probing(0.0)}


@pytest.mark.parametrize(("outer", "inner"), [*itertools.product(HAPPENINGS, repeat=2)])
@pytest.mark.parametrize("state", STATES)
def test_what_befalls_a_node_in_the_middle_of_what_befalls_it_leaves_the_table_true(
    state: str, outer: str, inner: str
) -> None:
    router = RendezvousRouter([Node("127.0.0.1:1", name="a"), Node("127.0.0.1:1", name="b")])
    keys = [b"%d" % number for number in range(20)]
    for at in range(1, 500):
        table: Table[None] = Table[None].of(router, _nothing, {}, moves=False)
        keeper = HealthTracker(threading.RLock(), None)
        member = table.members["a"]
        member.health = STATES[state]
        table.recount()
        is_done = not meddled(
            lambda table=table, keeper=keeper, member=member: HAPPENINGS[outer](keeper, table, member),  # type: ignore[misc]
            at,
            lambda table=table, keeper=keeper, member=member: HAPPENINGS[inner](keeper, table, member),  # type: ignore[misc]
        )
        served = {assignment.member.node.name for assignment in table.assign(keys) if assignment.error is None}
        assert served == ({"b"} if member.health.is_down else {"a", "b"}), f"meddled at place {at}: {member.health}"
        if is_done:
            assert at > 3
            break


def _nothing(_: Node) -> None:
    return None


def test_wherever_a_handler_meets_the_same_dead_node_both_end() -> None:
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
def test_nodes_set_in_the_middle_of_setting_nodes_are_all_open(outer: str, inner: str) -> None:
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
            is_done = not meddled(lambda: cluster.set_nodes(more), at, cluster.close)  # noqa: B023 - called at once
        except ClosedError:
            is_done = False
        if is_done:
            cluster.close()
            break
        assert isinstance(failure_of(lambda: Client(cluster).get("key")), ClosedError)  # noqa: B023 - as above
        assert isinstance(failure_of(lambda: cluster.set_nodes(more)), ClosedError)  # noqa: B023 - as above
        for statistics in cluster.statistics.values():
            assert (statistics.in_use, statistics.idle) == (0, 0)
