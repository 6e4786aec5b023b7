"""A node that fails three times in a row is down: it fails fast, is probed and comes back. Other nodes serve on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic, sleep
from typing import Final

import attrs
import pytest

from metacache import (
    Client,
    ClosedError,
    Cluster,
    ConnectError,
    Node,
    NodeDownError,
    OperationTimeout,
    PoolTimeout,
    Settings,
    ValueTooLargeError,
)
from metacache.observe import NodeState
from metacache.testing import Memcached
from tests.cluster.rig import (
    NOWHERE,
    PATIENT,
    QUICK,
    bring_down,
    failure_of,
    freeze,
    key_of,
    keys_of,
    nodes_of,
    servers,
    state_of,
)
from tests.pool.rig import Call, begin, finish, until
from tests.scripted import Peer, ScriptedServer, answering, silent
from tests.transports.rig import within
from tests.transports.test_interrupts import Interrupt, alarm

FIRST_PROBE: Final = 0.62  # seconds after which the first probe is due, with the greatest jitter

NEXT: Final = attrs.evolve(PATIENT, on_node_down="next")


def test_a_dead_node_fails_only_its_own_keys_then_fails_fast_and_is_used_again_when_it_returns() -> None:
    with servers(5) as five, Cluster(nodes_of(five), settings=PATIENT) as cluster:
        client = Client(cluster)
        others = [key_of(cluster, name) for name in "abde"]
        dead = key_of(cluster, "c")
        for key in (*others, dead):
            assert client.set(key, key.encode())
        five[2].kill()
        seen = [type(failure_of(lambda: client.get(dead))) for _ in range(5)]
        assert seen[:3] == [ConnectError] * 3
        assert seen[3:] == [NodeDownError] * 2
        assert state_of(cluster, "c") is NodeState.DOWN
        for key in others:
            assert client.get(key) == key.encode()
            assert client.set(key, key.encode())
        five[2].restart()
        until(lambda: _is_back(client, dead))
        assert state_of(cluster, "c") is NodeState.UP
        assert client.set(dead, b"again")
        assert client.get(dead) == b"again"


def _is_back(client: Client[bytes], key: str) -> bool:
    try:
        client.get(key)
    except NodeDownError:
        return False
    return True


@pytest.mark.alone
def test_a_node_that_is_down_fails_in_microseconds_with_a_clear_error() -> None:
    with Cluster([NOWHERE], settings=PATIENT) as cluster:
        client = Client(cluster)
        bring_down(client, "key")
        began = monotonic()
        for _ in range(100):
            failure_of(lambda: client.get("key"))
        assert monotonic() - began < 0.3, "a hundred refusals"
        error = failure_of(lambda: client.get("key"))
        assert isinstance(error, NodeDownError)
        assert (error.node, error.operation, error.key) == ("nowhere", "get", "key")
        assert not error.maybe_applied
        assert "down after 3 failures" in str(error)


def test_a_frozen_node_is_down_after_three_timeouts(memcached: Memcached) -> None:
    with Cluster([memcached.node], settings=attrs.evolve(QUICK, timeout=0.1)) as cluster:
        client = Client(cluster)
        client.set("key", b"value")
        freeze(memcached)
        seen = [type(failure_of(lambda: client.get("key"))) for _ in range(4)]
        assert seen == [OperationTimeout] * 3 + [NodeDownError]
        memcached.thaw()
        sleep(FIRST_PROBE)
        assert client.with_options(timeout=10.0).get("key") == b"value"


def test_a_success_between_failures_keeps_a_node_up(memcached: Memcached) -> None:
    with Cluster([memcached.node], settings=PATIENT) as cluster:
        client = Client(cluster)
        for _ in range(2):
            memcached.kill()
            for _ in range(2):
                assert isinstance(failure_of(lambda: client.get("key")), ConnectError)
            assert state_of(cluster, memcached.node.name) is NodeState.SUSPECT
            memcached.restart()
            assert client.get("key") is None
            assert state_of(cluster, memcached.node.name) is NodeState.UP


def test_a_batch_that_fails_is_one_failure_of_the_node_for_any_number_of_keys() -> None:
    with Cluster([NOWHERE], settings=PATIENT) as cluster:
        client = Client(cluster)
        keys = [str(number) for number in range(50)]
        for state in (NodeState.SUSPECT, NodeState.SUSPECT, NodeState.DOWN):
            assert {type(error) for error in client.get_many_outcomes(keys).errors.values()} == {ConnectError}
            assert state_of(cluster, "nowhere") is state
        errors = client.get_many_outcomes(keys).errors
        assert {type(error) for error in errors.values()} == {NodeDownError}
        assert errors.keys() == set(keys)


def test_a_full_pool_charges_no_node(shared_memcached: Memcached) -> None:
    settings = Settings(timeout=10.0, pool_size=1, pool_wait=0)
    with Cluster([shared_memcached.node], settings=settings) as cluster:
        client = Client(cluster)
        exchange = begin(cluster)
        for _ in range(5):
            assert isinstance(failure_of(lambda: client.get("key")), PoolTimeout)
            assert {type(error) for error in client.get_many_outcomes(["a"]).errors.values()} == {PoolTimeout}
        assert state_of(cluster, shared_memcached.node.name) is NodeState.UP
        finish(exchange)


def test_an_exception_of_a_signal_handler_charges_no_node() -> None:
    scripts = [*[silent] * 8, answering((b"EN", None))]
    with ScriptedServer(*scripts) as server, Cluster([server.node], settings=PATIENT) as cluster:
        client = Client(cluster)
        operations: tuple[Callable[[], object], ...] = (lambda: client.get("key"), lambda: client.get_many(["key"]))
        for operation in operations * 4:
            with alarm(0.02), pytest.raises(Interrupt):
                operation()
            assert state_of(cluster, server.node.name) is NodeState.UP
        assert client.get("key") is None


# --- probes ----------------------------------------------------------------------------------------------------------


def test_one_caller_probes_and_the_others_fail_fast_meanwhile() -> None:
    probed, release = threading.Event(), threading.Event()

    def slow(peer: Peer) -> None:
        asked = peer.request()
        assert asked.line == b"mn"
        probed.set()
        release.wait(10.0)
        asked.answer(b"MN")
        peer.request().answer(b"EN")
        peer.expect_end()

    refused = [Peer.fin] * 3
    with ScriptedServer(*refused, slow) as server, Cluster([server.node], settings=PATIENT) as cluster:
        client = Client(cluster)
        bring_down(client, "key")
        sleep(FIRST_PROBE)
        prober = Call(lambda: client.get("key"))
        assert probed.wait(10.0)
        assert state_of(cluster, server.node.name) is NodeState.PROBING
        with within(0.0, 1.0):
            for _ in range(10):
                assert isinstance(failure_of(lambda: client.get("key")), NodeDownError)
            assert {type(error) for error in client.get_many_outcomes(["a"]).errors.values()} == {NodeDownError}
        release.set()
        assert prober.result() is None
        assert state_of(cluster, server.node.name) is NodeState.UP


def test_an_interrupted_probe_leaves_the_next_caller_to_probe() -> None:
    refused = [Peer.fin] * 3
    scripts = [*refused, silent, silent, answering((b"MN", None), (b"EN", None))]
    with ScriptedServer(*scripts) as server, Cluster([server.node], settings=PATIENT) as cluster:
        client = Client(cluster)
        bring_down(client, "key")
        sleep(FIRST_PROBE)
        with alarm(0.05), pytest.raises(Interrupt):
            client.get("key")
        assert state_of(cluster, server.node.name) is NodeState.DOWN
        with alarm(0.05), pytest.raises(Interrupt):
            client.get_many(["key"])
        assert state_of(cluster, server.node.name) is NodeState.DOWN
        assert client.get("key") is None


def test_a_batch_refused_before_a_byte_was_sent_leaves_the_next_caller_to_probe(memcached: Memcached) -> None:
    with Cluster([memcached.node], settings=attrs.evolve(PATIENT, max_value_size=10)) as cluster:
        client = Client(cluster)
        memcached.kill()
        bring_down(client, "key")
        memcached.restart()
        sleep(FIRST_PROBE)
        with pytest.raises(ValueTooLargeError):
            client.set_many({"key": b"x" * 11})
        assert client.get("key") is None


def test_a_batch_also_brings_a_node_back(memcached: Memcached) -> None:
    with Cluster([memcached.node], settings=PATIENT) as cluster:
        client = Client(cluster)
        memcached.kill()
        bring_down(client, "key")
        memcached.restart()
        sleep(FIRST_PROBE)
        assert client.get_many(["a", "b"]) == {}
        assert state_of(cluster, memcached.node.name) is NodeState.UP


def test_states_are_reported_in_order_and_a_listener_that_fails_fails_no_request(memcached: Memcached) -> None:
    changes: list[tuple[Node, NodeState, NodeState]] = []

    def listen(node: Node, before: NodeState, after: NodeState) -> None:
        changes.append((node, before, after))
        raise RuntimeError("the listener is broken")

    with Cluster([memcached.node], settings=PATIENT, on_state_change=listen) as cluster:
        client = Client(cluster)
        assert client.get("key") is None
        memcached.kill()
        bring_down(client, "key")
        memcached.restart()
        sleep(FIRST_PROBE)
        assert client.get("key") is None
    up, suspect, down, probing = NodeState.UP, NodeState.SUSPECT, NodeState.DOWN, NodeState.PROBING
    assert {node for node, _, _ in changes} == {memcached.node}
    steps = [(before, after) for _, before, after in changes]
    assert steps == [(up, suspect), (suspect, down), (down, probing), (probing, up)]


# --- the next-ranked node --------------------------------------------------------------------------------------------


def test_the_next_ranked_node_serves_the_keys_of_one_that_is_down() -> None:
    with servers(3) as three, Cluster(nodes_of(three), settings=NEXT) as cluster:
        client = Client(cluster)
        keys = keys_of(cluster, "b", 20)
        three[1].kill()
        for key in keys[:2]:
            assert isinstance(failure_of(lambda key=key: client.get(key)), ConnectError)  # type: ignore[misc]
        # The third failure in a row takes the node down, and the same call goes to the next node.
        assert client.set(keys[2], b"moved")
        assert state_of(cluster, "b") is NodeState.DOWN
        for key in keys:
            assert client.set(key, key.encode())
            assert client.get(key) == key.encode()
        assert client.get_many(keys) == {key: key.encode() for key in keys}
        assert all(client.set_many(dict.fromkeys(keys, b"batch")).values())
        for key in keys:
            _, second, *_ = cluster.router.rank(key.encode(), 3)
            with Cluster([node for node in nodes_of(three) if node.name == second.name]) as alone:
                assert Client(alone).get(key) == b"batch"


def test_beyond_half_of_the_weight_the_rest_fails_fast() -> None:
    weights = {"a": 1.0, "b": 1.0, "c": 3.0, "d": 3.0}
    dead = [Node(f"127.0.0.1:{port}", name=name, weight=weights[name]) for port, name in enumerate("abc", 1)]
    with servers(1) as (server,):
        live = Node(server.node.address, name="d", weight=3.0)
        with Cluster([*dead, live], settings=NEXT) as cluster:
            client = Client(cluster)
            for name in "abc":
                for key in keys_of(cluster, name, 6):
                    client.get_many_outcomes([key])
            assert [state_of(cluster, name) for name in "abcd"] == [NodeState.DOWN] * 3 + [NodeState.UP]
            moved, stuck = [key_of(cluster, name) for name in "ab"], key_of(cluster, "c")
            for key in moved:
                assert client.set(key, b"moved")
                assert client.get(key) == b"moved"
            assert isinstance(failure_of(lambda: client.get(stuck)), NodeDownError)
            outcomes = client.get_many_outcomes([*moved, stuck])
            assert set(outcomes.results) == set(moved)
            assert {key: type(error) for key, error in outcomes.errors.items()} == {stuck: NodeDownError}


def test_when_every_node_is_down_operations_fail_fast() -> None:
    dead = [Node(f"127.0.0.1:{port}", name=name) for port, name in enumerate("abc", 1)]
    with Cluster(dead, settings=NEXT) as cluster, within(0.0, 5.0):
        client = Client(cluster)
        keys = [key_of(cluster, name) for name in "abc"]
        for _ in range(4):
            assert len(client.get_many_outcomes(keys).errors) == 3
        for key in keys:
            assert isinstance(failure_of(lambda key=key: client.get(key)), NodeDownError)  # type: ignore[misc]


def test_by_default_keys_stay_with_their_node() -> None:
    with servers(2) as two, Cluster(nodes_of(two), settings=PATIENT) as cluster:
        client = Client(cluster)
        key = key_of(cluster, "b")
        two[1].kill()
        bring_down(client, key)
        assert isinstance(failure_of(lambda: client.set(key, b"v")), NodeDownError)


# --- closed ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_down", [False, True])
def test_a_closed_cluster_refuses_everything_also_when_its_nodes_are_down(
    shared_memcached: Memcached, *, is_down: bool
) -> None:
    cluster = Cluster([NOWHERE if is_down else shared_memcached.node], settings=PATIENT)
    client = Client(cluster)
    if is_down:
        bring_down(client, "key")
    cluster.close()
    cluster.close()
    assert repr(cluster) == "<Cluster: closed>"
    operations: tuple[Callable[[], object], ...] = (
        lambda: client.get("key"),
        lambda: client.set_many({"key": b"v"}),
        cluster.ping,
        lambda: cluster.set_nodes([NOWHERE]),
    )
    for operation in operations:
        with pytest.raises(ClosedError):
            operation()
