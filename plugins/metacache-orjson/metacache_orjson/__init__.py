"""JSON by orjson for metacache: dataclasses, TypedDicts, attrs classes, containers and unions. Never coerces.

Knows orjson and the plugin protocol; what values look like in JSON is for the strict converter of metacache-attrs.
"""

from __future__ import annotations

from typing import Final, Generic, Literal, TypeVar, final

import orjson
from metacache_attrs.converter import StrictConverter
from typing_extensions import TypeForm

from metacache.serializers import Serializer, fingerprint

__all__ = ["PLUGIN"]

T = TypeVar("T")


@final
class _Orjson(Generic[T]):
    """The serializer of one type."""

    wire_id = 112

    def __init__(self, type_: TypeForm[T]) -> None:
        self.fingerprint: int = fingerprint(type_)
        self._codec = StrictConverter().codec(type_)

    def dumps(self, value: T, /) -> bytes:
        """Return *value* as JSON; raises when it is not of the type, within too, or an int has over 64 bits."""
        return orjson.dumps(self._codec.write(value))

    def loads(self, data: bytes, /) -> T:
        """Return the value; raises when *data* is no JSON, or not exactly of the type."""
        value: T = self._codec.read(orjson.loads(data))
        return value


@final
class _Plugin:
    """Builds serializers of whatever the strict converter knows."""

    api_version: Literal[1] = 1
    wire_id = _Orjson.wire_id

    def supports(self, type_: object, /) -> bool:
        """Tell whether JSON can keep *type_*, and whatever it is made of."""
        try:
            StrictConverter().codec(type_)
        except Exception:  # it raises as many kinds as there are ways to be no type
            return False
        return True

    def build(self, type_: TypeForm[T], /) -> Serializer[T]:
        """Return the serializer of *type_*. Raises TypeError or InvalidTypeError with the reason when it has none."""
        return _Orjson(type_)


PLUGIN: Final = _Plugin()
