"""The serializer plugin ``attrs``: attrs classes as JSON, with the json module of the standard library.

`converter` decides how values look in JSON, and never coerces. This module adds the JSON bytes and the plugin protocol.
"""

from __future__ import annotations

import json
from typing import Final, Generic, Literal, TypeVar, final

from typing_extensions import TypeForm

from metacache.errors import InvalidTypeError
from metacache.serializers import Form, RoundTrip, Serializer, fingerprint, resolve
from metacache.serializers.forms import walk
from metacache.serializers.mismatches import find_non_json
from metacache_attrs.converter import StrictConverter

__all__ = ["PLUGIN"]

T = TypeVar("T")


@final
class _Attrs(Generic[T]):
    """The serializer for one type."""

    wire_id = 144

    def __init__(self, type_: TypeForm[T], form: Form) -> None:
        self._converter = StrictConverter()
        self._codec = self._converter.codec_of_form(form)
        self.fingerprint: int = fingerprint(type_)
        self._round_trip = RoundTrip(type_, self._encode, self._read_back, untyped=find_non_json, probe=self._probe)

    def dumps(self, value: T, /) -> bytes:
        """Return *value* as JSON. Raises SerializationError, which names the part that would not come back the same."""
        (_, data), _ = self._round_trip(value)
        return data

    def loads(self, data: bytes, /) -> T:
        """Return the value. Raises if *data* is not JSON in UTF-8, or if the value is not exactly of the type."""
        value: T = self._codec.read(json.loads(data.decode()))
        return value

    def _encode(self, value: T) -> tuple[object, bytes]:
        written = self._codec.write(value)
        return written, _encode(written).encode()

    def _read_back(self, encoded: tuple[object, bytes]) -> T:
        # Decode from the JSON values, because JSON bytes keep them unchanged. This saves parsing the bytes.
        value: T = self._codec.read(encoded[0])
        return value

    def _probe(self, class_: type, part: object) -> object:
        codec = self._converter.codec_of_class(class_)
        return codec.read(json.loads(_encode(codec.write(part)).encode().decode()))


_encode: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


@final
class _Plugin:
    """The plugin object: builds serializers for types that contain an attrs class."""

    api_version: Literal[1] = 1
    wire_id = _Attrs.wire_id

    def supports(self, type_: object, /) -> bool:
        """Return whether *type_* contains an attrs class and the converter serves all its parts."""
        try:
            StrictConverter().codec_of_form(_form(type_))
        except InvalidTypeError:
            return False
        return True

    def build(self, type_: TypeForm[T], /) -> Serializer[T]:
        """Return the serializer for *type_*. Raises InvalidTypeError, which names the part that is not served."""
        return _Attrs(type_, _form(type_))


def _form(type_: object) -> Form:
    form = resolve(type_)
    if any(each.kind == "attrs" for _, each in walk(form)):
        return form
    raise InvalidTypeError(form.reason or "it contains no attrs class")


PLUGIN: Final = _Plugin()
