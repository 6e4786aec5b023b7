"""Finding nodes: sources that know which servers there are, and watches that follow a source. Routes no key."""

from metacache.discovery.aio import AsyncWatch
from metacache.discovery.blocking import Watch
from metacache.discovery.dns.blocking import DnsSource
from metacache.discovery.elasticache.blocking import ElastiCacheSource
from metacache.discovery.plugins import NodeSourceInfo, available_node_sources, load_node_source
from metacache.discovery.sources import NodeSource, NodeSourceFactory, StaticSource

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
