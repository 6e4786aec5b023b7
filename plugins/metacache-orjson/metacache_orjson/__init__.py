"""The serializer plugin ``orjson``: dataclasses, TypedDicts, attrs classes, containers and unions as JSON.

The strict converter of metacache-attrs decides how values look in JSON, and never coerces. orjson makes the bytes.
"""

from __future__ import annotations

from typing import Final, Generic, Literal, TypeVar, final

import orjson
from metacache_attrs.converter import StrictConverter
from typing_extensions import TypeForm

from metacache.errors import InvalidTypeError
from metacache.serializers import RoundTrip, Serializer, fingerprint
from metacache.serializers.mismatches import find_non_json

__all__ = ["PLUGIN"]

T = TypeVar("T")


@final
class _Orjson(Generic[T]):
    """The serializer for one type."""

    wire_id = 112

    def __init__(self, type_: TypeForm[T]) -> None:
        self._converter = StrictConverter()
        self._codec = self._converter.codec(type_)
        self.fingerprint: int = fingerprint(type_)
        self._round_trip = RoundTrip(type_, self._encode, self.loads, untyped=find_non_json, probe=self._probe)

    def dumps(self, value: T, /) -> bytes:
        """Return *value* as JSON. Raises SerializationError with the path to a part that would not come back the same.

        Refuses an int of more than 64 bits.
        """
        data, _ = self._round_trip(value)
        return data

    def loads(self, data: bytes, /) -> T:
        """Return the value. Raises if *data* is not JSON, or if the value is not exactly of the type."""
        value: T = self._codec.read(orjson.loads(data))
        return value

    def _encode(self, value: T) -> bytes:
        return orjson.dumps(self._codec.write(value))

    def _probe(self, class_: type, part: object) -> object:
        codec = self._converter.codec_of_class(class_)
        return codec.read(orjson.loads(orjson.dumps(codec.write(part))))


@final
class _Plugin:
    """The plugin object: builds serializers for the types that the strict converter serves."""

    api_version: Literal[1] = 1
    wire_id = _Orjson.wire_id

    def supports(self, type_: object, /) -> bool:
        """Return whether the converter serves *type_* and all its parts."""
        try:
            StrictConverter().codec(type_)
        except InvalidTypeError:
            return False
        return True

    def build(self, type_: TypeForm[T], /) -> Serializer[T]:
        """Return the serializer for *type_*. Raises InvalidTypeError, which names the part that is not served."""
        return _Orjson(type_)


PLUGIN: Final = _Plugin()
