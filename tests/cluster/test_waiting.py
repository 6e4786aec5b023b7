"""A batch that waits for a connection of one node holds no connection of another, and follows keys that move."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Generator
from time import monotonic

import attrs

from metacache import (
    AsyncCluster,
    BatchError,
    Client,
    ClosedError,
    Cluster,
    MetacacheError,
    NodeDownError,
    PoolTimeout,
    Settings,
)
from metacache.observe import NodeState
from metacache.operations.batches import GET_MANY
from metacache.transports.base import Batch
from metacache.transports.blocking.exchange import Exchange
from tests.cluster.rig import failure_of, key_of, keys_of, nodes_of, servers, state_of
from tests.pool.rig import Call, begin, finish, until
from tests.transports.rig import within

TIGHT = Settings(timeout=10.0, pool_size=1)


def busy(cluster: Cluster, name: str) -> Exchange:
    """Take the only connection of the node called *name*, until it is finished."""
    key = key_of(cluster, name)
    batch = Batch(GET_MANY, [key], [key.encode()], [f"mg {key} f v".encode()])
    exchange = begin(cluster, batch, monotonic() + 20.0)
    exchange.advance(monotonic())
    return exchange


def in_use(cluster: Cluster) -> dict[str, int]:
    return {node.name: known.in_use for node, known in cluster.statistics.items()}


def waiting(cluster: Cluster, name: str) -> int:
    return {node.name: known.waiting for node, known in cluster.statistics.items()}[name]


def test_a_batch_that_waits_for_one_node_holds_no_connection_of_the_others() -> None:
    with servers(3) as three, Cluster(nodes_of(three), settings=TIGHT) as cluster:
        client = Client(cluster)
        keys = [key_of(cluster, name) for name in "abc"]
        held = busy(cluster, "b")
        call = Call(lambda: client.get_many(keys))
        until(lambda: waiting(cluster, "b") == 1 and in_use(cluster) == {"a": 0, "b": 1, "c": 0})
        with within(0.0, 5.0):
            assert client.get(keys[0]) is None
            assert client.set(keys[2], b"v")
        finish(held)
        assert call.result() in ({}, {keys[2]: b"v"})
        assert in_use(cluster) == {"a": 0, "b": 0, "c": 0}
        assert waiting(cluster, "b") == 0


def test_a_batch_whose_wait_ends_without_a_connection_has_the_other_results_and_leaves_every_queue() -> None:
    with servers(3) as three, Cluster(nodes_of(three), settings=TIGHT) as cluster:
        client = Client(cluster)
        keys = [key_of(cluster, name) for name in "abc"]
        client.set_many(dict.fromkeys(keys, b"v"))
        held = busy(cluster, "b")
        with within(0.19, 2.0):
            failure = failure_of(lambda: client.with_options(timeout=0.4).get_many(keys))
        assert isinstance(failure, BatchError)
        assert failure.results == {keys[0]: b"v", keys[2]: b"v"}
        assert {key: type(error) for key, error in failure.errors.items()} == {keys[1]: PoolTimeout}
        assert waiting(cluster, "b") == 0
        assert cluster.statistics[cluster.nodes[1]].waits >= 1
        finish(held)
        assert client.get(keys[1]) == b"v"
        assert set(cluster.states.values()) == {NodeState.UP}


def test_with_pool_wait_0_a_batch_does_not_wait() -> None:
    with servers(2) as two, Cluster(nodes_of(two), settings=attrs.evolve(TIGHT, pool_wait=0.0)) as cluster:
        keys = [key_of(cluster, name) for name in "ab"]
        held = busy(cluster, "a")
        with within(0.0, 0.2):
            failure = failure_of(lambda: Client(cluster).get_many(keys))
        assert isinstance(failure, BatchError)
        assert list(failure.errors) == [keys[0]]
        finish(held)


def test_a_batch_that_is_abandoned_while_it_waits_leaves_its_queue() -> None:
    with servers(2) as two, Cluster(nodes_of(two), settings=TIGHT) as cluster:
        held = busy(cluster, "b")
        second = busy(cluster, "b")
        assert waiting(cluster, "b") == 1
        second.outcomes()
        assert waiting(cluster, "b") == 0
        finish(held)
        assert Client(cluster).get(key_of(cluster, "b")) is None


def test_a_batch_that_waits_for_two_nodes_of_a_cluster_that_is_closed_names_each_for_its_own_keys() -> None:
    with servers(2) as two, Cluster(nodes_of(two), settings=TIGHT) as cluster:
        keys = {name: key_of(cluster, name) for name in "ab"}
        held = [busy(cluster, name) for name in "ab"]
        call = Call(lambda: Client(cluster).get_many_outcomes(keys.values()))
        until(lambda: all(waiting(cluster, name) for name in "ab"))
        cluster.close()
        errors = call.result().errors
        assert {(key, type(error), error.node) for key, error in errors.items()} == {
            (key, ClosedError, name) for name, key in keys.items()
        }
        for exchange in held:
            finish(exchange)


def test_when_the_node_that_a_batch_waits_for_is_removed_its_keys_go_to_their_new_nodes() -> None:
    with servers(3) as three, Cluster(nodes_of(three), settings=TIGHT) as cluster:
        client = Client(cluster)
        keys = [key for name in "abc" for key in keys_of(cluster, name, 5)]
        held = busy(cluster, "c")
        call = Call(lambda: client.set_many(dict.fromkeys(keys, b"v")))
        until(lambda: waiting(cluster, "c") == 1)
        cluster.set_nodes(nodes_of(three)[:2])
        assert all(call.result().values())
        assert client.get_many(keys) == dict.fromkeys(keys, b"v")
        finish(held)


def test_with_next_the_batch_that_finds_a_node_dead_moves_its_keys_in_the_same_call() -> None:
    settings = Settings(timeout=10.0, on_node_down="next")
    with servers(3) as three, Cluster(nodes_of(three), settings=settings) as cluster:
        client = Client(cluster)
        values = {key: key.encode() for name in "abc" for key in keys_of(cluster, name, 20)}
        three[1].kill()
        for _ in range(2):
            assert isinstance(failure_of(lambda: client.set_many(values)), BatchError)
        assert all(client.set_many(values).values()), "the third failure was the node's end"
        assert state_of(cluster, "b") is NodeState.DOWN
        assert client.get_many(values) == values


def test_with_next_keys_of_more_than_half_of_the_weight_fail_fast_in_the_same_call() -> None:
    settings = Settings(timeout=10.0, on_node_down="next")
    with servers(3) as three, Cluster(nodes_of(three), settings=settings) as cluster:
        client = Client(cluster)
        values = {key: key.encode() for name in "abc" for key in keys_of(cluster, name, 20)}
        three[1].kill()
        three[2].kill()
        for _ in range(3):
            assert isinstance(failure_of(lambda: client.set_many(values)), BatchError)
        failure = failure_of(lambda: client.set_many(values))
        assert isinstance(failure, BatchError)
        assert {type(error) for error in failure.errors.values()} == {NodeDownError}
        assert len(failure.errors) == 20


@contextlib.contextmanager
def no_descriptor_left() -> Generator[None]:
    """Use up the descriptors of this process."""
    lowest = os.dup(0)
    os.close(lowest)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_batch_over_open_connections_needs_no_further_descriptor() -> None:
    with servers(3) as three, Cluster(nodes_of(three), settings=TIGHT) as cluster:
        client = Client(cluster)
        values = {key: key.encode() for name in "abc" for key in keys_of(cluster, name, 20)}
        client.set_many(values)
        with no_descriptor_left():
            found = client.get_many(values)
        assert found == values


def test_closing_a_cluster_ends_the_wait_of_its_batches_immediately() -> None:
    with servers(2) as two, Cluster(nodes_of(two), settings=TIGHT) as cluster:
        client = Client(cluster)
        keys = [key_of(cluster, name) for name in "ab"]
        held = busy(cluster, "b")
        call = Call(lambda: failure_of(lambda: client.get_many(keys)))
        until(lambda: waiting(cluster, "b") == 1)
        cluster.close()
        with within(0.0, 5.0):
            failure = call.result()
        assert isinstance(failure, MetacacheError)
        finish(held)


async def test_with_next_each_key_has_its_own_value_when_several_nodes_die_in_one_batch() -> None:
    settings = Settings(timeout=10.0, on_node_down="next")
    with servers(5) as five, Cluster(nodes_of(five), settings=settings) as cluster:
        # Only keys of the nodes that die, alternating between the nodes.
        keys = [key for pair in zip(keys_of(cluster, "a", 20), keys_of(cluster, "b", 20), strict=True) for key in pair]
        values = {key: key.encode() for key in keys}
        five[0].kill()
        five[1].kill()
        for _ in range(2):
            failure_of(lambda: Client(cluster).set_many(values))
        assert all(Client(cluster).set_many(values).values())
        assert Client(cluster).get_many(values) == values
        async with AsyncCluster(nodes_of(five), settings=settings) as other:
            for _ in range(2):
                assert (await other.client().get_many_outcomes(keys)).results == {}
            assert await other.client().get_many(keys) == values, "the third failure was their end"
