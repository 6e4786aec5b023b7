"""`StatisticsCollector`: reads the states of nodes and the pools of clusters when Prometheus scrapes. Does no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol, final

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from metacache import Node, NodeState, PoolStatistics

__all__ = ["StatisticsCollector"]


class _Cluster(Protocol):
    """What the collector reads of a `Cluster` or an `AsyncCluster`."""

    @property
    def states(self) -> Mapping[Node, NodeState]: ...

    @property
    def statistics(self) -> Mapping[Node, PoolStatistics]: ...


@final
class StatisticsCollector(Collector):
    """Reports the state and the pool of each node of the clusters at the moment of a scrape.

    It subclasses the Collector of prometheus_client, because a registry takes nothing else.

    Args:
        clusters: by name. The name is the label ``cluster``.
        registry: where the collector is registered; None: nowhere.
    """

    def __init__(self, clusters: Mapping[str, _Cluster], *, registry: CollectorRegistry | None = REGISTRY) -> None:
        self._clusters = dict(clusters)
        if registry is not None:
            registry.register(self)

    @override
    def collect(self) -> Iterable[Metric]:
        """Yield the metrics."""
        labels = ("cluster", "node")
        state = GaugeMetricFamily("metacache_node_state", "1 for the state of the node.", labels=(*labels, "state"))
        connections = GaugeMetricFamily(
            "metacache_pool_connections", "Open connections: in_use or idle.", labels=(*labels, "use")
        )
        size = GaugeMetricFamily("metacache_pool_size", "Connections that the pool may open.", labels=labels)
        waiting = GaugeMetricFamily("metacache_pool_waiting", "Callers that wait for a connection.", labels=labels)
        created = CounterMetricFamily("metacache_pool_created", "Connections dialled.", labels=labels)
        discarded = CounterMetricFamily(
            "metacache_pool_discarded", "Connections closed, by cause.", labels=(*labels, "cause")
        )
        for name, cluster in self._clusters.items():
            for node, now in cluster.states.items():
                for each in NodeState:
                    state.add_metric((name, node.name, each.value), float(each is now))
            for node, pool in cluster.statistics.items():
                place = (name, node.name)
                connections.add_metric((*place, "in_use"), pool.in_use)
                connections.add_metric((*place, "idle"), pool.idle)
                size.add_metric(place, pool.size)
                waiting.add_metric(place, pool.waiting)
                created.add_metric(place, pool.created)
                for cause, count in pool.discarded.items():
                    discarded.add_metric((*place, cause.value), count)
        return (state, connections, size, waiting, created, discarded)

    def describe(self) -> Iterable[Metric]:
        """Return nothing: a registry then does not read the clusters when the collector is registered."""
        return ()
