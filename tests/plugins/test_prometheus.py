"""metacache-prometheus against real servers: each test scrapes over HTTP, as Prometheus does."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager, suppress

import pytest
from metacache_prometheus import PrometheusObserver, StatisticsCollector
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from metacache import Cluster, MetacacheError, Node, Settings
from metacache.testing import Memcached

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
