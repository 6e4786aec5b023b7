"""Helpers for tests of services and plugins: private servers, a fake one, a clock to move, and contracts of plugins.

with Memcached() as server:
    client = connect(server.url, User, serializer="msgspec")
"""

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
    "Memcached",
    "MemcachedNotFound",
    "MovableClock",
    "NodeSourceContract",
    "PrivateServer",
    "RouterContract",
    "SerializerContract",
    "ServedMemory",
    "TransportContract",
    "check_serializer",
    "private_server",
]
