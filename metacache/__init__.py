"""metacache: a strictly typed client for memcached's meta commands. It has the public names and the version."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metacache.acceleration import accelerated
    from metacache.aio_connecting import connect_async
    from metacache.caching.cached import AsyncCached, Cached
    from metacache.caching.policy import Stampede
    from metacache.client.aio import AsyncClient
    from metacache.client.blocking import Client
    from metacache.cluster.aio import AsyncCluster
    from metacache.cluster.blocking import Cluster
    from metacache.connecting import connect
    from metacache.discovery.sources import NodeSource
    from metacache.errors import (
        AuthenticationError,
        BatchError,
        BusyError,
        ClientError,
        ClosedError,
        ConflictError,
        ConnectError,
        ConnectionLost,
        DecodeError,
        InvalidArgumentError,
        InvalidKeyError,
        InvalidKeyTypeError,
        InvalidTypeError,
        MetacacheError,
        NodeDownError,
        OperationTimeout,
        PoolTimeout,
        ProtocolError,
        SerializationError,
        SerializerConflict,
        SerializerNotFound,
        ServerError,
        TransportError,
        ValueTooLargeError,
    )
    from metacache.nodes import Node
    from metacache.observe import (
        Called,
        Dialled,
        Exchanged,
        NodesChanged,
        NodeState,
        Observer,
        Retried,
        Source,
        StateChanged,
        Waited,
    )
    from metacache.operations.arguments import DEFAULT, Default, Ttl
    from metacache.operations.options import ClientOptions
    from metacache.operations.results import Computed, DeleteResult, Item, Metadata, Outcomes, StoreResult
    from metacache.operations.statistics import ClientStatistics
    from metacache.pool.aio import AsyncPool
    from metacache.pool.blocking import Pool
    from metacache.pool.statistics import PoolStatistics
    from metacache.protocol.commands import Command
    from metacache.protocol.keys import Key
    from metacache.protocol.windows import Replies
    from metacache.routing.rendezvous import RendezvousRouter
    from metacache.routing.router import Router
    from metacache.serializers.compression import Zlib
    from metacache.serializers.discovery import SerializerInfo, available_serializers, load_serializer
    from metacache.serializers.interfaces import Compressor, Serializer, SerializerPlugin
    from metacache.serializers.signed import Signed
    from metacache.settings import Settings
    from metacache.transports.aio.connection import AsyncConnection
    from metacache.transports.base import AsyncTransport, Batch, Operation, Transport, Verb
    from metacache.transports.blocking.connection import Connection
else:
    # Loaded when first used. The table has the names of the imports above; a test compares them.
    from metacache.lazy_names import names_of

    _MODULES = {
        "metacache.acceleration": "accelerated",
        "metacache.caching.cached": "AsyncCached Cached",
        "metacache.caching.policy": "Stampede",
        "metacache.client.aio": "AsyncClient",
        "metacache.client.blocking": "Client",
        "metacache.cluster.aio": "AsyncCluster",
        "metacache.cluster.blocking": "Cluster",
        "metacache.aio_connecting": "connect_async",
        "metacache.connecting": "connect",
        "metacache.discovery.sources": "NodeSource",
        "metacache.errors": (
            "AuthenticationError BatchError BusyError ClientError ClosedError ConflictError "
            "ConnectError ConnectionLost DecodeError InvalidArgumentError InvalidKeyError "
            "InvalidKeyTypeError InvalidTypeError MetacacheError NodeDownError OperationTimeout "
            "PoolTimeout ProtocolError SerializationError SerializerConflict SerializerNotFound "
            "ServerError TransportError ValueTooLargeError"
        ),
        "metacache.nodes": "Node",
        "metacache.observe": (
            "Called Dialled Exchanged NodesChanged NodeState Observer Retried Source StateChanged Waited"
        ),
        "metacache.operations.arguments": "DEFAULT Default Ttl",
        "metacache.operations.options": "ClientOptions",
        "metacache.operations.results": "Computed DeleteResult Item Metadata Outcomes StoreResult",
        "metacache.operations.statistics": "ClientStatistics",
        "metacache.pool.aio": "AsyncPool",
        "metacache.pool.blocking": "Pool",
        "metacache.pool.statistics": "PoolStatistics",
        "metacache.protocol.commands": "Command",
        "metacache.protocol.keys": "Key",
        "metacache.protocol.windows": "Replies",
        "metacache.routing.rendezvous": "RendezvousRouter",
        "metacache.routing.router": "Router",
        "metacache.serializers.compression": "Zlib",
        "metacache.serializers.discovery": "SerializerInfo available_serializers load_serializer",
        "metacache.serializers.interfaces": "Compressor Serializer SerializerPlugin",
        "metacache.serializers.signed": "Signed",
        "metacache.settings": "Settings",
        "metacache.transports.aio.connection": "AsyncConnection",
        "metacache.transports.base": "AsyncTransport Batch Operation Transport Verb",
        "metacache.transports.blocking.connection": "Connection",
    }
    __getattr__, __dir__ = names_of(globals(), _MODULES)

__version__ = "0.1.0"

__all__ = [
    "DEFAULT",
    "AsyncCached",
    "AsyncClient",
    "AsyncCluster",
    "AsyncConnection",
    "AsyncPool",
    "AsyncTransport",
    "AuthenticationError",
    "Batch",
    "BatchError",
    "BusyError",
    "Cached",
    "Called",
    "Client",
    "ClientError",
    "ClientOptions",
    "ClientStatistics",
    "ClosedError",
    "Cluster",
    "Command",
    "Compressor",
    "Computed",
    "ConflictError",
    "ConnectError",
    "Connection",
    "ConnectionLost",
    "DecodeError",
    "Default",
    "DeleteResult",
    "Dialled",
    "Exchanged",
    "InvalidArgumentError",
    "InvalidKeyError",
    "InvalidKeyTypeError",
    "InvalidTypeError",
    "Item",
    "Key",
    "MetacacheError",
    "Metadata",
    "Node",
    "NodeDownError",
    "NodeSource",
    "NodeState",
    "NodesChanged",
    "Observer",
    "Operation",
    "OperationTimeout",
    "Outcomes",
    "Pool",
    "PoolStatistics",
    "PoolTimeout",
    "ProtocolError",
    "RendezvousRouter",
    "Replies",
    "Retried",
    "Router",
    "SerializationError",
    "Serializer",
    "SerializerConflict",
    "SerializerInfo",
    "SerializerNotFound",
    "SerializerPlugin",
    "ServerError",
    "Settings",
    "Signed",
    "Source",
    "Stampede",
    "StateChanged",
    "StoreResult",
    "Transport",
    "TransportError",
    "Ttl",
    "ValueTooLargeError",
    "Verb",
    "Waited",
    "Zlib",
    "accelerated",
    "available_serializers",
    "connect",
    "connect_async",
    "load_serializer",
]
