"""`PrometheusObserver`: counts the events of metacache clients in Prometheus metrics. Does no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram

from metacache import Called, Dialled, Exchanged, NodesChanged, Retried, StateChanged, Waited

__all__ = ["BUCKETS", "PrometheusObserver"]

BUCKETS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""The upper bounds of the latency histograms, in seconds: a local memcached answers in a tenth of a millisecond."""


@final
class PrometheusObserver:
    """Keeps Prometheus metrics of the clients that it observes: ``connect(url, observer=PrometheusObserver())``.

    One observer may serve all clients of a process. No label holds a key.

    Args:
        registry: where the metrics are registered.
        buckets: the upper bounds of the latency histograms, in seconds.
    """

    def __init__(self, *, registry: CollectorRegistry = REGISTRY, buckets: Sequence[float] = BUCKETS) -> None:
        self._operations = Histogram(
            "metacache_operation_duration_seconds",
            "Calls of a client's methods.",
            ("operation", "prefix", "error"),
            registry=registry,
            buckets=buckets,
        )
        self._reads = Counter(
            "metacache_reads",
            "Keys that were read, by result: hit, miss or undecodable. A stored None is a hit.",
            ("prefix", "result"),
            registry=registry,
        )
        self._stale = Counter(
            "metacache_stale_hits", "Hits whose item was marked stale.", ("prefix",), registry=registry
        )
        self._sources = Counter(
            "metacache_computations",
            "Values of get_or_compute, by source.",
            ("prefix", "source"),
            registry=registry,
        )
        self._requests = Histogram(
            "metacache_request_duration_seconds",
            "Requests to one node. The part of a batch that one node serves is one request.",
            ("node", "operation", "error"),
            registry=registry,
            buckets=buckets,
        )
        self._node_hits = Counter(
            "metacache_node_hits", "Requests to read that a node answered with an item.", ("node",), registry=registry
        )
        self._node_keys = Counter(
            "metacache_node_keys", "Keys in the requests to a node.", ("node", "operation"), registry=registry
        )
        self._bytes = Counter(
            "metacache_node_bytes", "Bytes sent to and received from a node.", ("node", "direction"), registry=registry
        )
        self._dials = Counter("metacache_dials", "Attempts to connect.", ("node", "error"), registry=registry)
        self._waits = Histogram(
            "metacache_pool_wait_seconds",
            "Requests that had to wait for a connection.",
            ("node", "served"),
            registry=registry,
            buckets=buckets,
        )
        self._retries = Counter("metacache_retries", "Requests sent again.", ("node", "operation"), registry=registry)
        self._changes = Counter(
            "metacache_node_state_changes", "Changes of a node's state.", ("node", "state"), registry=registry
        )
        self._node_sets = Counter("metacache_node_set_changes", "Replacements of the set of nodes.", registry=registry)

    def called(self, event: Called, /) -> None:
        """Count one call."""
        prefix = event.prefix
        self._operations.labels(event.verb, prefix, _name(event.error)).observe(event.seconds)
        for result, count in (("hit", event.hits), ("miss", event.misses), ("undecodable", event.undecodable)):
            if count:
                self._reads.labels(prefix, result).inc(count)
        if event.stale:
            self._stale.labels(prefix).inc(event.stale)
        if event.source is not None:
            self._sources.labels(prefix, event.source.value).inc()

    def exchanged(self, event: Exchanged, /) -> None:
        """Count one request to a node."""
        node = event.node.name
        self._requests.labels(node, event.verb, _name(event.error)).observe(event.seconds)
        self._node_keys.labels(node, event.verb).inc(event.requests)
        if event.hits:
            self._node_hits.labels(node).inc(event.hits)
        if event.sent:
            self._bytes.labels(node, "sent").inc(event.sent)
        if event.received:
            self._bytes.labels(node, "received").inc(event.received)

    def happened(self, event: Dialled | Waited | Retried | StateChanged | NodesChanged, /) -> None:
        """Count another event."""
        match event:
            case Dialled():
                self._dials.labels(event.node.name, _name(event.error)).inc()
            case Waited():
                self._waits.labels(event.node.name, str(event.is_served).lower()).observe(event.seconds)
            case Retried():
                self._retries.labels(event.node.name, event.verb).inc()
            case StateChanged():
                self._changes.labels(event.node.name, event.after.value).inc()
            case NodesChanged():
                self._node_sets.inc()


def _name(error: type[BaseException] | None) -> str:
    return "" if error is None else error.__name__
