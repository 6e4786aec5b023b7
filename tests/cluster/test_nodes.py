"""Setting nodes of a cluster that is in use, admin operations on every node, and clusters from a URL."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import ExitStack
from typing import Final

import pytest

from metacache import (
    Client,
    ClosedError,
    Cluster,
    ConnectError,
    InvalidArgumentError,
    MetacacheError,
    Node,
    PoolTimeout,
    RendezvousRouter,
    Settings,
    connect,
)
from metacache.discovery import StaticSource
from metacache.discovery.follower import poll_source, usable_nodes
from metacache.observe import NodeState
from metacache.testing import Memcached
from tests.conftest import start

PATIENT: Final = Settings(timeout=10.0, connect_timeout=10.0)
KEYS: Final = [f"key:{number}" for number in range(300)]
ITEMS: Final = {key: key.encode() for key in KEYS}


@pytest.fixture
def servers() -> Generator[list[Memcached]]:
    with ExitStack() as stack:
        yield [stack.enter_context(start()) for _ in range(3)]


# --- setting nodes ---------------------------------------------------------------------------------------------------


def test_setting_nodes_under_load_moves_only_the_keys_that_the_router_moves_and_fails_no_request(
    servers: list[Memcached],
) -> None:
    nodes = [server.node for server in servers]
    with Cluster(nodes[:2], settings=PATIENT) as cluster:
        client = cluster.client()
        assert all(client.set_many(ITEMS).values())
        over = threading.Event()
        failures: list[MetacacheError] = []

        def load() -> None:
            try:
                while not over.is_set():
                    client.get_many(KEYS)
                    client.get(KEYS[0])
                    cluster.ping()
            except MetacacheError as error:
                failures.append(error)

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        for chosen in (nodes, nodes[:2], nodes, nodes[1:], nodes, nodes[:1], nodes):
            cluster.set_nodes(chosen)
            over.wait(0.03)
        over.set()
        for thread in threads:
            thread.join()
        assert failures == []
        before, after = RendezvousRouter(nodes[:2]), RendezvousRouter(nodes)
        stayed = [key for key in KEYS if before.pick(key.encode()) == after.pick(key.encode())]
        moved = set(KEYS) - set(stayed)
        assert client.get_many(stayed) == {key: ITEMS[key] for key in stayed}
        assert {after.pick(key.encode()) for key in moved} == {nodes[2]}
        assert client.get_many(moved) == {}


def test_a_node_that_stays_keeps_its_connections_and_a_removed_one_is_closed(servers: list[Memcached]) -> None:
    nodes = [server.node for server in servers]
    with Cluster(nodes, settings=PATIENT) as cluster:
        cluster.client().set_many(ITEMS)
        heavier = Node(nodes[0].address, weight=3.0)
        cluster.set_nodes([heavier, nodes[1]])
        assert cluster.client().get_many(KEYS)
        assert {node.weight for node in cluster.nodes} == {3.0, 1.0}
        assert [statistics.created for statistics in cluster.statistics.values()] == [1, 1]
    gone = Client(cluster)
    with pytest.raises(ClosedError):
        gone.get("key")


def test_nodes_that_cannot_be_used_change_nothing(servers: list[Memcached]) -> None:
    node = servers[0].node
    with Cluster([node]) as cluster:
        for wrong in ([], [node, node], [Node("a:1", weight=0.0)]):
            with pytest.raises(InvalidArgumentError):
                cluster.set_nodes(wrong)
        assert cluster.nodes == (node,)
        assert cluster.client().set("key", b"v")
    with pytest.raises(ClosedError):
        cluster.set_nodes([node])


# --- every node ------------------------------------------------------------------------------------------------------


def test_every_node_is_asked_and_a_dead_one_has_its_error(servers: list[Memcached]) -> None:
    nodes = [server.node for server in servers]
    with Cluster(nodes, settings=PATIENT) as cluster:
        assert all(cluster.client().set_many(ITEMS).values())
        servers[2].kill()
        pings = cluster.ping()
        assert isinstance(pings.pop(nodes[2]), ConnectError)
        assert list(pings.values()) == [True, True]
        assert all(str(cluster.version()[node]).startswith("1.") for node in nodes[:2])
        stats = cluster.stats()[nodes[0]]
        assert isinstance(stats, dict)
        assert int(stats["curr_items"]) > 0
        assert cluster.flush_all()[nodes[0]] is True
        assert isinstance(cluster.flush_all(10)[nodes[2]], ConnectError)
        for wrong in ("a\r\nb", "x" * 100):
            with pytest.raises(InvalidArgumentError):
                cluster.stats(wrong)


# --- URLs ------------------------------------------------------------------------------------------------------------


def test_a_url_of_several_hosts_is_a_weighted_cluster(servers: list[Memcached]) -> None:
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    with connect(f"memcached://{hosts}/?weights=1,2,0&timeout=10", str, prefix="a:") as client:
        assert all(client.set_many({key: key for key in KEYS}).values())
        assert client.get_many(KEYS) == {key: key for key in KEYS}
    with Cluster.from_url(f"memcached://{hosts}/?weights=1,2,0") as cluster:
        assert [node.weight for node in sorted(cluster.nodes, key=lambda node: node.weight)] == [0.0, 1.0, 2.0]
        assert cluster.client(str, prefix="a:").get_many(KEYS) == {key: key for key in KEYS}
        assert cluster.client(int).increment("n", initial=7) == 7


def test_a_url_of_a_source_leads_to_the_nodes_that_the_source_finds(servers: list[Memcached]) -> None:
    with connect(f"memcached+dns://localhost:{servers[0].port}", settings=PATIENT) as client:
        assert client.set("key", b"v")
        assert client.get("key") == b"v"
    with pytest.raises(InvalidArgumentError, match="no node source is called 'nosuch'"):
        connect("memcached+nosuch://localhost")


def test_the_answer_of_a_source_is_its_nodes_or_an_error() -> None:
    nodes = (Node("a:1"), Node("b:1"))
    source = StaticSource(nodes)
    assert tuple(usable_nodes(source, poll_source(source))) == nodes
    with pytest.raises(ConnectError, match="returned no usable nodes"):
        usable_nodes(source, ())
    with pytest.raises(ConnectError, match="OSError"):
        usable_nodes(source, OSError("no route"))
    with pytest.raises(PoolTimeout):
        usable_nodes(source, PoolTimeout("passed on unchanged"))


# --- errors that are no failure of a node ----------------------------------------------------------------------------


def test_a_full_pool_leaves_a_suspect_node_suspect(memcached: Memcached) -> None:
    settings = Settings(timeout=0.5, connect_timeout=5.0, pool_size=1, pool_wait=0.0)
    with Cluster([memcached.node], settings=settings) as cluster:
        client = cluster.client()
        assert client.set("key", b"v")
        memcached.freeze()
        with pytest.raises(MetacacheError):
            client.get("key")
        assert cluster.states[memcached.node] is NodeState.SUSPECT
        held = threading.Thread(target=client.with_options(on_error="miss").get, args=("key",))
        held.start()
        while cluster.statistics[memcached.node].in_use == 0:
            assert held.is_alive()
        with pytest.raises(PoolTimeout):
            client.get("key")
        assert cluster.states[memcached.node] is NodeState.SUSPECT
        held.join()
        memcached.thaw()
