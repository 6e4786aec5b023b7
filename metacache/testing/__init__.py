"""Helpers for tests of services and plugins: a private memcached, a fake one, and a check of the serializer contract.

with Memcached() as server:
    client = connect(server.url, User, serializer="msgspec")
"""

from metacache.memory.faults import Faults, Trigger
from metacache.memory.server import MemoryServer
from metacache.testing.contract import check_serializer
from metacache.testing.fake import AsyncFakeTransport, FakeServer, FakeTransport
from metacache.testing.memcached import Memcached, MemcachedNotFound
from metacache.testing.served import ServedMemory, private_server

__all__ = [
    "AsyncFakeTransport",
    "FakeServer",
    "FakeTransport",
    "Faults",
    "Memcached",
    "MemcachedNotFound",
    "MemoryServer",
    "ServedMemory",
    "Trigger",
    "check_serializer",
    "private_server",
]
