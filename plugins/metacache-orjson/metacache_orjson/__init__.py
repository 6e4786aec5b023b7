"""JSON by orjson for metacache: dataclasses, TypedDicts, attrs classes, containers and unions. Never coerces.

Knows orjson and the plugin protocol; how values look in JSON is for the strict converter of metacache-attrs.
"""

from __future__ import annotations

from typing import Final, Generic, Literal, TypeVar, final

import orjson
from metacache_attrs.converter import StrictConverter
from typing_extensions import TypeForm

from metacache.errors import InvalidTypeError
from metacache.serializers import RoundTrip, Serializer, fingerprint
from metacache.serializers.fits import json_value

__all__ = ["PLUGIN"]

T = TypeVar("T")


@final
class _Orjson(Generic[T]):
    """The serializer of one type."""

    wire_id = 112

    def __init__(self, type_: TypeForm[T]) -> None:
        self._converter = StrictConverter()
        self._codec = self._converter.codec(type_)
        self.fingerprint: int = fingerprint(type_)
        self._trip = RoundTrip(type_, self._encode, self.loads, untyped=json_value, probe=self._probe)

    def dumps(self, value: T, /) -> bytes:
        """Return *value* as JSON. Raises SerializationError, which names the part that would not come back the same.

        An int of more than 64 bits is refused.
        """
        data, _ = self._trip(value)
        return data

    def loads(self, data: bytes, /) -> T:
        """Return the value; raises when *data* is no JSON, or not exactly of the type."""
        value: T = self._codec.read(orjson.loads(data))
        return value

    def _encode(self, value: T) -> bytes:
        return orjson.dumps(self._codec.write(value))

    def _probe(self, class_: type, part: object) -> object:
        codec = self._converter.codec_of_class(class_)
        return codec.read(orjson.loads(orjson.dumps(codec.write(part))))


@final
class _Plugin:
    """Builds serializers of the types that the strict converter serves."""

    api_version: Literal[1] = 1
    wire_id = _Orjson.wire_id

    def supports(self, type_: object, /) -> bool:
        """Return whether JSON can keep *type_*, and all that it is made of."""
        try:
            StrictConverter().codec(type_)
        except InvalidTypeError:
            return False
        return True

    def build(self, type_: TypeForm[T], /) -> Serializer[T]:
        """Return the serializer of *type_*. Raises InvalidTypeError, which says which part of it is not served."""
        return _Orjson(type_)


PLUGIN: Final = _Plugin()
