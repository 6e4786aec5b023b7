"""Contracts: classes of tests that an author of a plugin subclasses. `check_serializer` is a check in one call."""

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
