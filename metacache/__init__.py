"""metacache: a strictly typed client for memcached's meta commands. It has the public names and the version."""

from metacache.caching.cached import AsyncCached, Cached
from metacache.caching.policy import Stampede
from metacache.client.aio import AsyncClient
from metacache.client.blocking import Client
from metacache.cluster.aio import AsyncCluster
from metacache.cluster.blocking import Cluster
from metacache.cluster.health import NodeState
from metacache.connect import connect, connect_async
from metacache.discovery import NodeSource
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
from metacache.operations.arguments import DEFAULT, Default, Ttl
from metacache.operations.options import ClientOptions
from metacache.operations.results import Computed, DeleteResult, Item, Metadata, Outcomes, Source, StoreResult
from metacache.operations.statistics import ClientStatistics
from metacache.pool.aio import AsyncPool
from metacache.pool.blocking import Pool
from metacache.pool.statistics import PoolStatistics
from metacache.protocol.commands import Command
from metacache.protocol.keys import Key
from metacache.protocol.windows import Replies
from metacache.routing import RendezvousRouter, Router
from metacache.serializers import (
    Compressor,
    Serializer,
    SerializerInfo,
    SerializerPlugin,
    Signed,
    Zlib,
    available_serializers,
    load_serializer,
)
from metacache.settings import Settings
from metacache.transports.aio.connection import AsyncConnection
from metacache.transports.base import AsyncTransport, Batch, Operation, Transport, Verb
from metacache.transports.blocking.connection import Connection

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
    "Operation",
    "OperationTimeout",
    "Outcomes",
    "Pool",
    "PoolStatistics",
    "PoolTimeout",
    "ProtocolError",
    "RendezvousRouter",
    "Replies",
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
    "StoreResult",
    "Transport",
    "TransportError",
    "Ttl",
    "ValueTooLargeError",
    "Verb",
    "Zlib",
    "available_serializers",
    "connect",
    "connect_async",
    "load_serializer",
]
