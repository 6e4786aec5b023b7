"""Discovery: sources of nodes, and watches that poll a source and apply its changes to a cluster."""

from metacache.discovery.aio_watch import AsyncWatch
from metacache.discovery.dns import DnsSource
from metacache.discovery.elasticache import ElastiCacheSource
from metacache.discovery.plugins import NodeSourceInfo, available_node_sources, load_node_source
from metacache.discovery.sources import NodeSource, NodeSourceFactory, StaticSource
from metacache.discovery.watch import Watch

__all__ = [
    "AsyncWatch",
    "DnsSource",
    "ElastiCacheSource",
    "NodeSource",
    "NodeSourceFactory",
    "NodeSourceInfo",
    "StaticSource",
    "Watch",
    "available_node_sources",
    "load_node_source",
]
