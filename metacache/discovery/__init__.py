"""Discovery: sources of nodes, and watches that poll a source and apply its changes to a cluster."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metacache.discovery.aio_watch import AsyncWatch
    from metacache.discovery.dns import DnsSource
    from metacache.discovery.elasticache import ElastiCacheSource
    from metacache.discovery.plugins import NodeSourceInfo, available_node_sources, load_node_source
    from metacache.discovery.sources import NodeSource, NodeSourceFactory, StaticSource
    from metacache.discovery.watch import Watch
else:
    # Loaded when first used. The table has the names of the imports above; a test compares them.
    from metacache.lazy_names import names_of

    _MODULES = {
        "metacache.discovery.aio_watch": "AsyncWatch",
        "metacache.discovery.dns": "DnsSource",
        "metacache.discovery.elasticache": "ElastiCacheSource",
        "metacache.discovery.plugins": "NodeSourceInfo available_node_sources load_node_source",
        "metacache.discovery.sources": "NodeSource NodeSourceFactory StaticSource",
        "metacache.discovery.watch": "Watch",
    }
    __getattr__, __dir__ = names_of(globals(), _MODULES)

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
