"""A batch goes to all of its nodes at the same time. It takes as long as the slowest; a failing node fails alone."""

from __future__ import annotations

import socket
import threading
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from time import monotonic

import attrs
import pytest

from metacache import (
    BatchError,
    Client,
    Cluster,
    ConnectError,
    Node,
    NodeDownError,
    OperationTimeout,
    Settings,
    StoreResult,
)
from metacache.observe import NodeState
from metacache.operations.batches import GET_MANY
from metacache.transports.base import Batch
from tests.cluster.rig import (
    NOWHERE,
    PATIENT,
    bring_down,
    failure_of,
    freeze,
    key_of,
    keys_of,
    nodes_of,
    servers,
    state_of,
)
from tests.pool.rig import Call, begin
from tests.scripted import Peer, ScriptedServer
from tests.transports.rig import within

NAMES = "abcde"


def test_ten_thousand_keys_over_five_nodes_come_back_each_with_its_own_value() -> None:
    with servers(5) as five, Cluster(nodes_of(five), settings=PATIENT) as cluster:
        client = Client(cluster)
        stored = {f"batch:{number}": b"batch:%d:value" % number for number in range(10_000)}
        assert set(client.set_many(stored).values()) == {StoreResult.STORED}
        assert client.get_many(stored) == stored
        assert client.get_many([*stored, "none", *stored]) == stored
        sizes = cluster.stats()
        for node in cluster.nodes:
            known = sizes[node]
            assert isinstance(known, dict)
            assert 1500 < int(known["curr_items"]) < 2500, "a fifth each"
        assert all(client.delete_many(stored).values())
        assert client.get_many(stored) == {}
        assert {known.created for known in cluster.statistics.values()} == {1}


@contextmanager
def slow_nodes(delay: float) -> Generator[list[Node]]:
    """Run five servers, each of which answers one batch of reads *delay* seconds after it came."""

    def script(peer: Peer) -> None:
        asked = peer.request()
        threading.Event().wait(delay)
        asked.answer(b"VA 1 f0", b"v")
        peer.expect_end()

    with ExitStack() as stack:
        running = [stack.enter_context(ScriptedServer(script)) for _ in NAMES]
        yield [Node(server.node.address, name=name) for server, name in zip(running, NAMES, strict=True)]


def test_a_batch_takes_as_long_as_its_slowest_node() -> None:
    with slow_nodes(0.4) as nodes, Cluster(nodes, settings=PATIENT) as cluster:
        keys = [key_of(cluster, name) for name in NAMES]
        with within(0.39, 1.5):
            assert Client(cluster).get_many(keys) == dict.fromkeys(keys, b"v")


def test_a_frozen_node_fails_only_its_own_keys() -> None:
    with servers(5) as five, Cluster(nodes_of(five), settings=PATIENT) as cluster:
        client = Client(cluster, timeout=0.3)
        keys = [key for name in NAMES for key in keys_of(cluster, name, 20)]
        frozen = set(keys_of(cluster, "c", 20))
        client.set_many(dict.fromkeys(keys, b"v"))
        freeze(five[2])
        with within(0.25, 2.0):
            outcomes = client.get_many_outcomes(keys)
        assert outcomes.results.keys() == set(keys) - frozen
        assert {key: type(error) for key, error in outcomes.errors.items()} == dict.fromkeys(frozen, OperationTimeout)
        assert {error.node for error in outcomes.errors.values()} == {"c"}
        written = client.set_many_outcomes(dict.fromkeys(keys, b"new"))
        assert written.results.keys() == set(keys) - frozen
        assert all(error.maybe_applied for error in written.errors.values())
        five[2].thaw()
        assert [state_of(cluster, name) for name in "abde"] == [NodeState.UP] * 4
        # No later request gets a late reply.
        patient = client.with_options(timeout=10.0)
        for key in keys:
            assert patient.get(key) in {b"v", b"new"}


@contextmanager
def blackhole() -> Generator[Node]:
    """Listen where connections are neither accepted nor refused: the accept queue is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.settimeout(0)
            waiting.connect_ex(listener.getsockname())
        yield Node(f"127.0.0.1:{listener.getsockname()[1]}", name="a")  # first in the order of names


def test_a_node_that_does_not_accept_connections_fails_only_its_own_keys() -> None:
    with blackhole() as hole, servers(1) as (server,):
        nodes = [hole, Node(server.node.address, name="b")]
        with Cluster(nodes, settings=Settings(timeout=0.4)) as cluster:
            client = Client(cluster)
            lost, found = keys_of(cluster, "a", 10), keys_of(cluster, "b", 1000)
            stored = {key: key.encode() * 100 for key in found}
            for _ in range(3):
                with within(0.0, 1.5):
                    outcomes = client.set_many_outcomes({**dict.fromkeys(lost, b"v"), **stored})
                assert outcomes.errors.keys() == set(lost)
                assert {type(error) for error in outcomes.errors.values()} == {ConnectError}
                assert state_of(cluster, "b") is NodeState.UP
            assert state_of(cluster, "a") is NodeState.DOWN
            assert client.get_many_outcomes([*lost, *found]).results == stored


def test_a_batch_error_has_the_results_and_the_errors() -> None:
    with servers(2) as two, Cluster([*nodes_of(two), NOWHERE], settings=PATIENT) as cluster:
        client = Client(cluster)
        good = [key for name in "ab" for key in keys_of(cluster, name, 5)]
        lost = keys_of(cluster, "nowhere", 5)
        with pytest.raises(BatchError) as stored:
            client.set_many({key: key.encode() for key in (*lost, *good)})
        assert stored.value.results == dict.fromkeys(good, StoreResult.STORED)
        assert stored.value.errors.keys() == set(lost)
        assert not stored.value.maybe_applied
        with pytest.raises(BatchError, match="5 of 15 keys failed: 5 ConnectError at nowhere") as found:
            client.get_many([*good, *lost])
        assert found.value.results == {key: key.encode() for key in good}
        assert {(error.node, error.key) for error in found.value.errors.values()} == {("nowhere", key) for key in lost}


def test_with_on_error_miss_the_found_values_are_returned() -> None:
    with servers(2) as two, Cluster([*nodes_of(two), NOWHERE], settings=PATIENT) as cluster:
        client = Client(cluster, on_error="miss")
        good, lost = keys_of(cluster, "a", 5), keys_of(cluster, "nowhere", 5)
        client.set_many({key: key.encode() for key in good})
        assert client.get_many([*good, *lost]) == {key: key.encode() for key in good}
        assert client.get(lost[0]) is None
        bring_down(client.with_options(on_error="raise"), lost[0])
        assert client.get_items([*good, *lost]).keys() == set(good)
        with pytest.raises(BatchError):
            client.set_many(dict.fromkeys(lost, b"v"))
        assert isinstance(failure_of(lambda: client.set(lost[0], b"v")), NodeDownError)


def test_an_abandoned_batch_charges_no_node_and_releases_its_connections() -> None:
    with servers(3) as three, Cluster(nodes_of(three), settings=attrs.evolve(PATIENT, pool_size=1)) as cluster:
        client = Client(cluster)
        keys = [key for name in "abc" for key in keys_of(cluster, name, 3)]
        stored = {key: key.encode() for key in keys}
        client.set_many(stored)
        heads = [b"mg %b v f" % key.encode() for key in keys]
        for _ in range(4):
            exchange = begin(cluster, Batch(GET_MANY, keys, [key.encode() for key in keys], heads))
            exchange.advance(monotonic())
            exchange.outcomes()
        assert set(cluster.states.values()) == {NodeState.UP}
        assert client.get_many(keys) == stored
        assert {known.in_use for known in cluster.statistics.values()} == {0}


def test_threads_whose_batches_need_the_same_connections_never_deadlock() -> None:
    settings = Settings(timeout=20.0, pool_size=1)
    with servers(5) as five, Cluster(nodes_of(five), settings=settings) as cluster:
        client = Client(cluster)
        keys = [key for name in NAMES for key in keys_of(cluster, name, 4)]
        stored = {key: key.encode() for key in keys}
        client.set_many(stored)

        def work() -> None:
            for _ in range(30):
                assert client.get_many(keys) == stored

        with within(0.0, 15.0):
            for call in [Call(work) for _ in range(12)]:
                call.result()
        assert {known.in_use for known in cluster.statistics.values()} == {0}
        assert {known.created for known in cluster.statistics.values()} == {1}
