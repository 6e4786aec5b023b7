"""metacache-prometheus against real servers: each test scrapes over HTTP, as Prometheus does."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from metacache_prometheus import PrometheusObserver, StatisticsCollector
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from metacache import (
    Called,
    Cluster,
    ConnectError,
    Exchanged,
    MetacacheError,
    Node,
    NodesChanged,
    NodeState,
    PoolStatistics,
    Retried,
    Settings,
    Waited,
)
from metacache.testing import Memcached
from metacache.transports.counters import CloseReason

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@contextmanager
def scraping(registry: CollectorRegistry) -> Generator[int]:
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
        text: str = reply.read().decode()
    return text


def samples_of(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def dead_node() -> Node:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return Node(f"127.0.0.1:{sock.getsockname()[1]}")


def test_a_scrape_shows_calls_hits_misses_and_undecodable_values() -> None:
    registry = CollectorRegistry()
    with Memcached() as server, Cluster([server.node], observer=PrometheusObserver(registry=registry)) as cluster:
        texts = cluster.client(str, prefix="t:")
        texts.set("secret-key", "secret-value")
        texts.get("secret-key")
        texts.get_many(["secret-key", "absent", "gone"])
        cluster.client(int, prefix="t:").get("secret-key")
        texts.get_or_compute("computed", lambda: "new")
        with scraping(registry) as port:
            text = scrape(port)
        samples = samples_of(text)
    assert value(samples, "metacache_reads_total", prefix="t:", result="hit") == 2
    assert value(samples, "metacache_reads_total", prefix="t:", result="miss") == 3
    assert value(samples, "metacache_reads_total", prefix="t:", result="undecodable") == 1
    assert value(samples, "metacache_computations_total", prefix="t:", source="computed") == 1
    count = "metacache_operation_duration_seconds_count"
    assert value(samples, count, operation="get", prefix="t:", error="") == 2
    assert value(samples, count, operation="get_many", prefix="t:", error="") == 1
    node = server.node.name
    assert value(samples, "metacache_node_keys_total", node=node, operation="get_many") == 3
    assert value(samples, "metacache_dials_total", node=node, error="") == 1
    assert value(samples, "metacache_node_bytes_total", node=node, direction="sent") > 0
    assert "secret" not in text


def test_the_collector_reads_states_and_pools_at_the_time_of_the_scrape() -> None:
    registry = CollectorRegistry()
    dead = dead_node()
    settings = Settings(timeout=0.5, connect_timeout=0.2)
    with (
        Memcached() as server,
        Cluster([server.node, dead], settings=settings, observer=PrometheusObserver(registry=registry)) as cluster,
        scraping(registry) as port,
    ):
        StatisticsCollector({"main": cluster}, registry=registry)
        before = samples_of(scrape(port))
        client = cluster.client()
        client.get_many_outcomes([f"key{number}" for number in range(50)])
        for number in range(50):
            with suppress(MetacacheError):
                client.get(f"key{number}")
        after = samples_of(scrape(port))
    place = {"cluster": "main", "node": server.node.name}
    assert value(before, "metacache_pool_connections", **place, use="idle") == 0
    assert value(after, "metacache_pool_connections", **place, use="idle") == 1
    assert value(after, "metacache_pool_connections", **place, use="in_use") == 0
    assert value(after, "metacache_pool_waiting", **place) == 0
    assert value(after, "metacache_node_state", **place, state="up") == 1
    dead_place = {"cluster": "main", "node": dead.name}
    assert value(before, "metacache_node_state", **dead_place, state="up") == 1
    assert value(after, "metacache_node_state", **dead_place, state="down") == 1
    assert value(after, "metacache_node_state", **dead_place, state="up") == 0
    assert value(after, "metacache_node_state_changes_total", node=dead.name, state="down") == 1
    assert value(after, "metacache_dials_total", node=dead.name, error="ConnectError") >= 3


def test_waits_for_a_connection_are_a_histogram() -> None:
    registry = CollectorRegistry()
    settings = Settings(pool_size=1, timeout=5.0)
    with (
        Memcached() as server,
        Cluster([server.node], settings=settings, observer=PrometheusObserver(registry=registry)) as cluster,
    ):
        client = cluster.client()
        client.set("key", b"x" * 500_000)
        threads = [threading.Thread(target=lambda: [client.get("key") for _ in range(30)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with scraping(registry) as port:
            samples = samples_of(scrape(port))
        waits = cluster.statistics[server.node].waits
    assert waits > 0
    count = value(samples, "metacache_pool_wait_seconds_count", node=server.node.name, served="true")
    assert count == waits


def test_the_script_writes_a_dashboard_whose_metrics_exist() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "metacache_prometheus.dashboard"], capture_output=True, text=True, check=True
    )
    board = json.loads(done.stdout)
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    used = {name for query in queries for name in re.findall(r"metacache_\w+", query)}
    registry = CollectorRegistry()
    with Memcached() as server, Cluster([server.node], observer=PrometheusObserver(registry=registry)) as cluster:
        StatisticsCollector({"main": cluster}, registry=registry)
        client = cluster.client()
        client.get_or_compute("key", lambda: b"value")
        client.get("key")
        with scraping(registry) as port:
            offered = {name for name, _ in samples_of(scrape(port))}
    assert used <= offered
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


@pytest.mark.parametrize("registry", [CollectorRegistry()])
def test_two_observers_in_one_registry_are_refused(registry: CollectorRegistry) -> None:
    PrometheusObserver(registry=registry)
    with pytest.raises(ValueError, match="Duplicated"):
        PrometheusObserver(registry=registry)


WORKER = """
import sys
from metacache import Cluster, Node
from metacache_prometheus import PrometheusObserver, StatisticsCollector

with Cluster([Node(sys.argv[1])], observer=PrometheusObserver()) as cluster:
    StatisticsCollector({"main": cluster})
    client = cluster.client(str, prefix="w:")
    client.set("a", "1")
    client.get_many(["a", "b", "c"])
"""

SCRAPE = """
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

registry = CollectorRegistry()
MultiProcessCollector(registry)
print(generate_latest(registry).decode())
"""


def test_the_multiprocess_mode_adds_up_the_events_of_all_processes(tmp_path: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    with Memcached() as server:
        for _ in range(2):
            subprocess.run([sys.executable, "-c", WORKER, str(server.node)], env=environment, check=True)
        done = subprocess.run(
            [sys.executable, "-c", SCRAPE], env=environment, check=True, capture_output=True, text=True
        )
        node = server.node.name
    samples = samples_of(done.stdout)
    assert value(samples, "metacache_reads_total", prefix="w:", result="hit") == 2
    assert value(samples, "metacache_reads_total", prefix="w:", result="miss") == 4
    count = "metacache_operation_duration_seconds_count"
    assert value(samples, count, operation="get_many", prefix="w:", error="") == 2
    assert value(samples, "metacache_node_keys_total", node=node, operation="get_many") == 6
    assert not [name for name, _ in samples if name.startswith("metacache_pool_c")]  # of the collector


def registered() -> tuple[CollectorRegistry, PrometheusObserver]:
    registry = CollectorRegistry()
    return registry, PrometheusObserver(registry=registry)


def exposed(registry: CollectorRegistry) -> Samples:
    return samples_of(generate_latest(registry).decode())


def test_each_field_of_an_exchange_has_its_metric() -> None:
    registry, observer = registered()
    node = Node("cache:1")
    observer.exchanged(Exchanged("get_many", node, 0.0, 0.25, 100, 70, 5, 3, None))
    observer.exchanged(Exchanged("get", node, 0.0, 0.5, 10, 0, 1, 0, ConnectError))
    samples = exposed(registry)
    assert value(samples, "metacache_node_hits_total", node="cache:1") == 3
    assert value(samples, "metacache_node_bytes_total", node="cache:1", direction="sent") == 110
    assert value(samples, "metacache_node_bytes_total", node="cache:1", direction="received") == 70
    total = "metacache_request_duration_seconds_sum"
    assert value(samples, total, node="cache:1", operation="get_many", error="") == 0.25
    assert value(samples, total, node="cache:1", operation="get", error="ConnectError") == 0.5


def test_each_field_of_a_call_has_its_metric() -> None:
    registry, observer = registered()
    observer.called(Called("get_many", "p:", 9, 4, 3, 2, 1, None, 0.0, 0.25, None))
    observer.called(Called("get", "p:", 1, 0, 0, 0, 0, None, 0.0, 0.5, ConnectError))
    samples = exposed(registry)
    results = ("hit", "miss", "undecodable")
    assert [value(samples, "metacache_reads_total", prefix="p:", result=each) for each in results] == [4, 3, 1]
    assert value(samples, "metacache_stale_hits_total", prefix="p:") == 2
    total = "metacache_operation_duration_seconds_sum"
    assert value(samples, total, operation="get_many", prefix="p:", error="") == 0.25
    assert value(samples, total, operation="get", prefix="p:", error="ConnectError") == 0.5


def test_each_other_event_has_its_metric() -> None:
    registry, observer = registered()
    node = Node("cache:1")
    observer.happened(Retried("get", node, ConnectError))
    observer.happened(Waited(node, 0.0, 0.25, is_served=False))
    observer.happened(NodesChanged((), (node,)))
    samples = exposed(registry)
    assert value(samples, "metacache_retries_total", node="cache:1", operation="get") == 1
    assert value(samples, "metacache_pool_wait_seconds_sum", node="cache:1", served="false") == 0.25
    assert value(samples, "metacache_node_set_changes_total") == 1


def test_the_collector_shows_each_number_of_a_pool_and_reads_nothing_when_it_is_registered() -> None:
    class Cluster:
        scrapes = 0

        @property
        def states(self) -> dict[Node, NodeState]:
            return {}

        @property
        def statistics(self) -> dict[Node, PoolStatistics]:
            self.scrapes += 1
            discarded = dict.fromkeys(CloseReason, 0) | {CloseReason.STALE: 7}
            numbers = PoolStatistics(
                size=2, in_use=3, idle=4, waiting=5, created=6, discarded=discarded, waits=8, wait_seconds=9.0
            )
            return {Node("cache:1"): numbers}

    registry, cluster = CollectorRegistry(), Cluster()
    StatisticsCollector({"main": cluster}, registry=registry)
    assert cluster.scrapes == 0
    samples = exposed(registry)
    place = {"cluster": "main", "node": "cache:1"}
    assert value(samples, "metacache_pool_connections", **place, use="in_use") == 3
    assert value(samples, "metacache_pool_connections", **place, use="idle") == 4
    assert value(samples, "metacache_pool_size", **place) == 2
    assert value(samples, "metacache_pool_waiting", **place) == 5
    assert value(samples, "metacache_pool_created_total", **place) == 6
    assert value(samples, "metacache_pool_discarded_total", **place, cause=CloseReason.STALE.value) == 7
