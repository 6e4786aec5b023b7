"""Convert values to bytes and back: serializers, plugin loading, client flags, compression, fingerprints.

Imports nothing of the protocol, of routing, of transports or of clients.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metacache.serializers.builtin import JsonSerializer
    from metacache.serializers.compression import Zlib
    from metacache.serializers.discovery import SerializerInfo, available_serializers, load_serializer
    from metacache.serializers.fingerprints import fingerprint
    from metacache.serializers.forms import Form, resolve
    from metacache.serializers.interfaces import Compressor, Serializer, SerializerPlugin
    from metacache.serializers.plain import BytesSerializer, IntSerializer, StrSerializer
    from metacache.serializers.round_trips import RoundTrip, difference
    from metacache.serializers.signed import Signed
else:
    # Loaded when first used. The table has the names of the imports above; a test compares them.
    from metacache.lazy_names import names_of

    _MODULES = {
        "metacache.serializers.builtin": "JsonSerializer",
        "metacache.serializers.compression": "Zlib",
        "metacache.serializers.discovery": "SerializerInfo available_serializers load_serializer",
        "metacache.serializers.fingerprints": "fingerprint",
        "metacache.serializers.forms": "Form resolve",
        "metacache.serializers.interfaces": "Compressor Serializer SerializerPlugin",
        "metacache.serializers.plain": "BytesSerializer IntSerializer StrSerializer",
        "metacache.serializers.round_trips": "RoundTrip difference",
        "metacache.serializers.signed": "Signed",
    }
    __getattr__, __dir__ = names_of(globals(), _MODULES)

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
