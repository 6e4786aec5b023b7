"""The queue of callers that wait for a connection: dropped waiters, late waiters, and the counts of waits."""

from __future__ import annotations

import gc
import sys
import threading
from time import monotonic, sleep
from typing import Final

import attrs
import pytest

from metacache import Client, Cluster, ConnectError, NodeState, OperationTimeout, Pool, PoolTimeout, Settings
from metacache.testing import Memcached
from metacache.transports.blocking import checkout
from metacache.transports.blocking import lending as lending_module
from metacache.transports.blocking.checkout import Waker
from tests.cluster.rig import failure_of
from tests.pool.rig import PATIENCE, PATIENT, Call, begin, held, until
from tests.scripted import Peer, ScriptedServer, answering, silent
from tests.transports.rig import HIT

ONE: Final = attrs.evolve(PATIENT, pool_size=1)


def pool_of(cluster: Cluster) -> Pool:
    return next(iter(cluster._membership.snapshot.members.values())).pool


def test_a_cluster_batch_that_is_dropped_while_it_waits_leaves_the_queue(shared_memcached: Memcached) -> None:
    with Cluster([shared_memcached.node], settings=ONE) as cluster:
        client = cluster.client()
        client.set("queue:key", b"v")
        with held(pool_of(cluster)):
            batches = [begin(cluster) for _ in range(3)]
            call = Call(lambda: client.get("queue:key"))
            (node,) = cluster.nodes
            until(lambda: cluster.statistics[node].waiting == 4)
            batches.clear()
            gc.collect()
            assert cluster.statistics[node].waiting == 1
            began = monotonic()
        assert call.result() == b"v"
        assert monotonic() - began < PATIENCE / 2
        assert (cluster.statistics[node].in_use, cluster.statistics[node].created) == (0, 1)


def test_a_waiter_that_gets_a_connection_when_most_of_its_time_is_over_charges_no_node() -> None:
    def slow(peer: Peer) -> None:
        asked = peer.request()
        sleep(0.36)
        asked.answer(*HIT)
        silent(peer)

    with (
        ScriptedServer(slow, answering(HIT)) as server,
        Cluster([server.node], settings=attrs.evolve(ONE, timeout=0.4)) as cluster,
    ):
        client = cluster.client()
        first = Call(lambda: client.get("key"))
        until(lambda: cluster.statistics[server.node].in_use == 1)
        late = failure_of(lambda: client.get("key"))
        assert first.result() == b"right"
        assert isinstance(late, OperationTimeout | PoolTimeout)
        assert getattr(late, "is_local", True)
        assert cluster.states[server.node] is NodeState.UP
        assert client.get("key") == b"right"


def test_a_request_that_had_most_of_its_time_and_timed_out_charges_its_node() -> None:
    with (
        ScriptedServer(silent) as server,
        Cluster([server.node], settings=attrs.evolve(ONE, timeout=0.2)) as cluster,
    ):
        assert isinstance(failure_of(lambda: cluster.client().get("key")), OperationTimeout)
        assert cluster.states[server.node] is NodeState.SUSPECT


@pytest.mark.parametrize("count", [3, 8])
def test_threads_that_dial_a_full_server_at_the_same_time_charge_the_node_once(count: int) -> None:
    together = threading.Barrier(count)

    def full(peer: Peer) -> None:
        together.wait(PATIENCE)
        peer.send(b"ERROR Too many open connections\r\n")
        peer.fin()

    settings = attrs.evolve(PATIENT, pool_size=count)
    with (
        ScriptedServer(*[full] * count, answering(HIT)) as server,
        Cluster([server.node], settings=settings) as cluster,
    ):
        client = cluster.client()
        calls = [Call(lambda: failure_of(lambda: client.get("key"))) for _ in range(count)]
        assert {type(call.result()) for call in calls} == {ConnectError}
        assert cluster.states[server.node] is NodeState.SUSPECT
        assert client.get("key") == b"right"
        assert cluster.states[server.node] is NodeState.UP


def test_each_of_several_successive_failed_dials_charges_the_node() -> None:
    def full(peer: Peer) -> None:
        peer.send(b"ERROR Too many open connections\r\n")
        peer.fin()

    with ScriptedServer(full, full, full) as server, Cluster([server.node], settings=ONE) as cluster:
        client = cluster.client()
        for state in (NodeState.SUSPECT, NodeState.SUSPECT, NodeState.DOWN):
            assert isinstance(failure_of(lambda: client.get("key")), ConnectError)
            assert cluster.states[server.node] is state


def test_no_wait_is_lost_from_the_counts(shared_memcached: Memcached, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkout, "monotonic", lambda: 0.0)
    monkeypatch.setattr(lending_module, "monotonic", lambda: 1.0)
    times, count = 20_000, 4
    pool = Pool(shared_memcached.node, settings=ONE)
    lending = pool.lending

    def wait() -> None:
        for _ in range(times):
            lending.leave(lending.join(Waker()))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for call in [Call(wait) for _ in range(count)]:
            call.result()
    finally:
        sys.setswitchinterval(interval)
    assert pool.statistics.waits == times * count
    assert pool.statistics.wait_seconds == float(times * count)
    pool.close()


@pytest.mark.parametrize("settings", [ONE, Settings(timeout=PATIENCE, pool_size=3)])
def test_closing_a_pool_lets_a_running_batch_finish(memcached: Memcached, settings: Settings) -> None:
    items = {f"queue:{number}": b"v" * 2000 for number in range(2000)}
    with Pool(memcached.node, settings=settings) as pool:
        client = Client(pool)
        client.set_many(items)
        closing = threading.Thread(target=pool.close)
        call = Call(lambda: client.get_many_outcomes(items))
        until(lambda: pool.statistics.in_use == 1 or not call.is_alive())
        closing.start()
        assert call.result().results == items
        closing.join()
