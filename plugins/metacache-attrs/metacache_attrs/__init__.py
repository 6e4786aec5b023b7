"""attrs classes for metacache, as JSON of the standard library by a strict cattrs converter. Never coerces.

Knows JSON bytes and the plugin protocol; what values look like in JSON is for the converter.
"""

from __future__ import annotations

import json
import typing
from typing import Any, Final, Generic, Literal, TypeVar, final

import attrs
from typing_extensions import TypeForm

from metacache.errors import InvalidTypeError
from metacache.serializers import Serializer, fingerprint
from metacache_attrs.converter import StrictConverter

__all__ = ["PLUGIN"]

T = TypeVar("T")


@final
class _Attrs(Generic[T]):
    """The serializer of one type."""

    wire_id = 144

    def __init__(self, type_: TypeForm[T]) -> None:
        self.fingerprint: int = fingerprint(type_)
        self._codec = StrictConverter().codec(type_)

    def dumps(self, value: T, /) -> bytes:
        """Return *value* as JSON; raises when it is not of the type, within too."""
        return _encode(self._codec.write(value)).encode()

    def loads(self, data: bytes, /) -> T:
        """Return the value; raises when *data* is no JSON in UTF-8, or not exactly of the type."""
        value: T = self._codec.read(json.loads(data.decode()))
        return value


_encode: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


@final
class _Plugin:
    """Builds serializers of types that hold an attrs class."""

    api_version: Literal[1] = 1
    wire_id = _Attrs.wire_id

    def supports(self, type_: object, /) -> bool:
        """Tell whether *type_* is an attrs class, or made with one, of what the converter knows."""
        try:
            StrictConverter().codec(type_)
        except Exception:  # it raises as many kinds as there are ways to be no type
            return False
        return _holds_attrs(type_)

    def build(self, type_: TypeForm[T], /) -> Serializer[T]:
        """Return the serializer of *type_*. Raises TypeError or InvalidTypeError with the reason when it has none."""
        serializer: Serializer[T] = _Attrs(type_)
        if not _holds_attrs(type_):
            raise InvalidTypeError("it holds no attrs class")
        return serializer


def _holds_attrs(type_: Any) -> bool:  # Any: a type expression is any object
    origin: Any = typing.get_origin(type_)
    return attrs.has(type_ if origin is None else origin) or any(map(_holds_attrs, typing.get_args(type_)))


PLUGIN: Final = _Plugin()
