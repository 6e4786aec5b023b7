"""Contracts: classes of tests that an author of a plugin subclasses, and `check_serializer`, one check as a function."""

from metacache.testing.contracts.checking import check_serializer
from metacache.testing.contracts.routers import RouterContract
from metacache.testing.contracts.serializers import SerializerContract
from metacache.testing.contracts.sources import NodeSourceContract
from metacache.testing.contracts.transports import AsyncTransportContract, TransportContract

__all__ = [
    "AsyncTransportContract",
    "NodeSourceContract",
    "RouterContract",
    "SerializerContract",
    "TransportContract",
    "check_serializer",
]
