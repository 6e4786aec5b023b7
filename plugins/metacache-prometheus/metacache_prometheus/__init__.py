"""metacache_prometheus: an observer that keeps Prometheus metrics, and a collector of the state of clusters."""

from metacache_prometheus.collector import StatisticsCollector
from metacache_prometheus.observer import PrometheusObserver

__all__ = ["PrometheusObserver", "StatisticsCollector"]
