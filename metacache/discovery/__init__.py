"""Finding nodes: sources that know which servers there are, and watches that follow a source. Routes no key."""

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
