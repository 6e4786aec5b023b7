"""attrs classes for metacache, as JSON of the standard library by a strict converter. Never coerces.

Knows JSON bytes and the plugin protocol; how values look in JSON is for the converter.
"""

from __future__ import annotations

import json
from typing import Final, Generic, Literal, TypeVar, final

from typing_extensions import TypeForm

from metacache.errors import InvalidTypeError
from metacache.serializers import Form, RoundTrip, Serializer, fingerprint, resolve
from metacache.serializers.fits import json_value
from metacache.serializers.forms import walk
from metacache_attrs.converter import StrictConverter

__all__ = ["PLUGIN"]

T = TypeVar("T")


@final
class _Attrs(Generic[T]):
    """The serializer of one type."""

    wire_id = 144

    def __init__(self, type_: TypeForm[T], form: Form) -> None:
        self._converter = StrictConverter()
        self._codec = self._converter.codec_of(form)
        self.fingerprint: int = fingerprint(type_)
        self._trip = RoundTrip(type_, self._encode, self._read_back, untyped=json_value, probe=self._probe)

    def dumps(self, value: T, /) -> bytes:
        """Return *value* as JSON. Raises SerializationError, which names the part that would not come back the same."""
        (_, data), _ = self._trip(value)
        return data

    def loads(self, data: bytes, /) -> T:
        """Return the value; raises when *data* is no JSON in UTF-8, or not exactly of the type."""
        value: T = self._codec.read(json.loads(data.decode()))
        return value

    def _encode(self, value: T) -> tuple[object, bytes]:
        written = self._codec.write(value)
        return written, _encode(written).encode()

    def _read_back(self, encoded: tuple[object, bytes]) -> T:
        # JSON values come back from bytes as they are, so that the bytes need not be read.
        value: T = self._codec.read(encoded[0])
        return value

    def _probe(self, class_: type, part: object) -> object:
        codec = self._converter.codec_of_class(class_)
        return codec.read(json.loads(_encode(codec.write(part)).encode().decode()))


_encode: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


@final
class _Plugin:
    """Builds serializers of types that hold an attrs class."""

    api_version: Literal[1] = 1
    wire_id = _Attrs.wire_id

    def supports(self, type_: object, /) -> bool:
        """Return whether *type_* is an attrs class, or made with one, of types that the converter serves."""
        try:
            StrictConverter().codec_of(_form(type_))
        except InvalidTypeError:
            return False
        return True

    def build(self, type_: TypeForm[T], /) -> Serializer[T]:
        """Return the serializer of *type_*. Raises InvalidTypeError, which says which part of it is not served."""
        return _Attrs(type_, _form(type_))


def _form(type_: object) -> Form:
    form = resolve(type_)
    if any(each.kind == "attrs" for _, each in walk(form)):
        return form
    raise InvalidTypeError(form.reason or "it holds no attrs class")


PLUGIN: Final = _Plugin()
