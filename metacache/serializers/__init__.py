"""Values and bytes: serializers, how plugins are found, client flags, compression, fingerprints. Knows no wire."""

from metacache.serializers.builtin import BytesSerializer, IntSerializer, JsonSerializer, StrSerializer
from metacache.serializers.checks import outer_check
from metacache.serializers.compression import Zlib
from metacache.serializers.discovery import SerializerInfo, available_serializers, load_serializer
from metacache.serializers.fingerprints import fingerprint
from metacache.serializers.protocols import Compressor, Serializer, SerializerPlugin

__all__ = [
    "BytesSerializer",
    "Compressor",
    "IntSerializer",
    "JsonSerializer",
    "Serializer",
    "SerializerInfo",
    "SerializerPlugin",
    "StrSerializer",
    "Zlib",
    "available_serializers",
    "fingerprint",
    "load_serializer",
    "outer_check",
]
