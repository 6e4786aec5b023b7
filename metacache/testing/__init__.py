"""Helpers for tests of services and plugins: private servers, a fake one, a clock to move, and contracts of plugins.

with Memcached() as server:
    client = connect(server.url, User, serializer="msgspec")
"""

from metacache.memory.faults import Faults, Trigger
from metacache.memory.server import MemoryServer
from metacache.testing.clock import MovableClock
from metacache.testing.contracts import (
    AsyncTransportContract,
    NodeSourceContract,
    RouterContract,
    SerializerContract,
    TransportContract,
    check_serializer,
)
from metacache.testing.fake import AsyncFakeTransport, FakeServer, FakeTransport
from metacache.testing.memcached import Memcached, MemcachedNotFound
from metacache.testing.served import PrivateServer, ServedMemory, private_server

__all__ = [
    "AsyncFakeTransport",
    "AsyncTransportContract",
    "FakeServer",
    "FakeTransport",
    "Faults",
    "Memcached",
    "MemcachedNotFound",
    "MemoryServer",
    "MovableClock",
    "NodeSourceContract",
    "PrivateServer",
    "RouterContract",
    "SerializerContract",
    "ServedMemory",
    "TransportContract",
    "Trigger",
    "check_serializer",
    "private_server",
]
