"""Values and bytes: serializers, how plugins are found, client flags, compression, fingerprints. Knows no wire."""

from metacache.serializers.builtin import BytesSerializer, IntSerializer, JsonSerializer, StrSerializer
from metacache.serializers.compression import Zlib
from metacache.serializers.discovery import SerializerInfo, available_serializers, load_serializer
from metacache.serializers.fingerprints import fingerprint
from metacache.serializers.forms import Form, resolve
from metacache.serializers.interfaces import Compressor, Serializer, SerializerPlugin
from metacache.serializers.roundtrips import RoundTrip, difference

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
    "StrSerializer",
    "Zlib",
    "available_serializers",
    "difference",
    "fingerprint",
    "load_serializer",
    "resolve",
]
