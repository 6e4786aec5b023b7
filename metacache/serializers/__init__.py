"""Convert values to bytes and back: serializers, plugin loading, client flags, compression, fingerprints.

Imports nothing of the protocol, of routing, of transports or of clients.
"""

from metacache.serializers.builtin import BytesSerializer, IntSerializer, JsonSerializer, StrSerializer
from metacache.serializers.compression import Zlib
from metacache.serializers.discovery import SerializerInfo, available_serializers, load_serializer
from metacache.serializers.fingerprints import fingerprint
from metacache.serializers.forms import Form, resolve
from metacache.serializers.interfaces import Compressor, Serializer, SerializerPlugin
from metacache.serializers.round_trips import RoundTrip, difference
from metacache.serializers.signed import Signed

__all__ = [
    "BytesSerializer",
    "Compressor",
    "Form",
    "IntSerializer",
    "JsonSerializer",
    "RoundTrip",
    "Serializer",
    "SerializerInfo",
    "SerializerPlugin",
    "Signed",
    "StrSerializer",
    "Zlib",
    "available_serializers",
    "difference",
    "fingerprint",
    "load_serializer",
    "resolve",
]
