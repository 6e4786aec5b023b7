"""The probe of a node that is down by one caller, and the results of other batches meanwhile."""

from __future__ import annotations

import contextlib
from time import monotonic
from typing import Final

import pytest

from metacache import BatchError, Client, Cluster, MetacacheError, Node, NodeDownError, Settings
from metacache.observe import NodeState
from metacache.settings import OnNodeDown
from tests.cluster.rig import failure_of, freeze, key_of, keys_of, nodes_of, servers, state_of
from tests.pool.rig import Call, until

FIRST_PROBE: Final = 0.7  # seconds after which a node that went down is due for a probe: 0.5 and a fifth


def take_down(cluster: Cluster, name: str) -> None:
    """Use a dead node until the cluster has it as down."""
    client = Client(cluster)
    while state_of(cluster, name) is not NodeState.DOWN:
        with contextlib.suppress(MetacacheError):
            client.get(key_of(cluster, name))


def wait_for_the_first_probe() -> None:
    """Wait until a node that went down just now may be probed."""
    at = monotonic() + FIRST_PROBE
    until(lambda: monotonic() >= at)


@pytest.mark.parametrize("on_node_down", ["fail", "next"])
def test_one_batch_probes_and_other_batches_do_not_end_its_probe(on_node_down: OnNodeDown) -> None:
    settings = Settings(timeout=10.0, on_node_down=on_node_down)
    with servers(3) as three, Cluster(nodes_of(three), settings=settings) as cluster:
        client = cluster.client()
        mine, lost = key_of(cluster, "a"), key_of(cluster, "b")
        three[1].kill()
        take_down(cluster, "b")
        three[1].restart()
        freeze(three[1])  # so that the probe goes on until this test thaws it
        wait_for_the_first_probe()
        prober = Call(lambda: client.get_many([mine, lost]))
        until(lambda: state_of(cluster, "b") is NodeState.PROBING)
        if on_node_down == "next":
            assert client.get_many([mine, lost]) == {}
        else:
            failure = failure_of(lambda: client.get_many([mine, lost]))
            assert isinstance(failure, BatchError)
            assert {key: type(error) for key, error in failure.errors.items()} == {lost: NodeDownError}
        assert state_of(cluster, "b") is NodeState.PROBING
        three[1].thaw()
        assert prober.result() == {}
        assert state_of(cluster, "b") is NodeState.UP


def test_with_next_no_batch_fails_while_a_node_is_down_whether_it_probes_or_not() -> None:
    failed_probes: list[Node] = []

    def listen(node: Node, before: NodeState, after: NodeState) -> None:
        if (before, after) == (NodeState.PROBING, NodeState.DOWN):
            failed_probes.append(node)

    settings = Settings(timeout=1.0, on_node_down="next")
    with servers(3) as three, Cluster(nodes_of(three), settings=settings, on_state_change=listen) as cluster:
        client = cluster.client()
        values = {key: key.encode() for name in "abc" for key in keys_of(cluster, name, 20)}
        three[1].kill()
        take_down(cluster, "b")
        assert all(client.set_many(values).values()), "the next nodes serve its keys immediately"
        wait_for_the_first_probe()
        assert client.get_many(values) == values, "also of the batch that probes a dead node"
        assert len(failed_probes) == 1
        three[1].restart()
        freeze(three[1])
        until(lambda: client.get_many(values) == values and len(failed_probes) == 2)  # one of them probes a frozen node
        three[1].thaw()
        until(lambda: len(client.get_many(values)) == 40)  # one of them finds it back, and empty
        assert state_of(cluster, "b") is NodeState.UP


@pytest.mark.alone
def test_several_dead_nodes_are_probed_within_half_of_a_batch_s_time() -> None:
    settings = Settings(timeout=2.0)
    with servers(4) as four, Cluster(nodes_of(four), settings=settings) as cluster:
        client = cluster.client()
        for name, server in zip("bcd", four[1:], strict=True):
            server.kill()
            take_down(cluster, name)
        for server in four[1:]:
            server.restart()
            freeze(server)
        wait_for_the_first_probe()
        began = monotonic()
        failure = failure_of(lambda: client.set_many({key_of(cluster, name): b"v" for name in "abcd"}))
        assert isinstance(failure, BatchError)
        assert list(failure.results) == [key_of(cluster, "a")]
        assert {type(error) for error in failure.errors.values()} == {NodeDownError}
        assert monotonic() - began < 1.5, "half of two seconds"
