"""An example serializer plugin: dicts of str, int, float, bool or bytes as binary property lists."""

from __future__ import annotations

import plistlib
from typing import Final, Generic, Literal, TypeVar, cast, final

from typing_extensions import TypeForm

from metacache import Serializer
from metacache.serializers import fingerprint

__all__ = ["PLUGIN"]

T = TypeVar("T")

# The served types, each with the class of the values of the dict.
SERVED: Final[dict[object, type]] = {
    dict[str, str]: str,
    dict[str, int]: int,
    dict[str, float]: float,
    dict[str, bool]: bool,
    dict[str, bytes]: bytes,
}


@final
class PlistSerializer(Generic[T]):
    """Converts dicts of one type to bytes and back."""

    wire_id = 224  # private, binary format; a published plugin takes a free id from metacache/serializers/README.md

    def __init__(self, type_: TypeForm[T]) -> None:
        # The fingerprint includes the name, because other serializers may share the private wire id.
        self.fingerprint: int = fingerprint(type_, serializer="plist")
        self._class = SERVED[type_]

    def dumps(self, value: T, /) -> bytes:
        """Return *value* as bytes. Refuses a value of another type, so that it never gets into the cache."""
        return plistlib.dumps(self._checked(value), fmt=plistlib.FMT_BINARY)

    def loads(self, data: bytes, /) -> T:
        """Return the dict. Raises for any other data: a miss is better than a wrong dict."""
        value: object = plistlib.loads(data, fmt=plistlib.FMT_BINARY)
        return cast("T", self._checked(value))  # `_checked` has just checked it

    def _checked(self, value: object) -> dict[str, object]:
        if type(value) is not dict:
            raise TypeError(f"expected a dict, got {type(value).__name__}")
        parts = cast("dict[str, object]", value)  # the next line checks the parts
        if not all(type(key) is str and type(part) is self._class for key, part in parts.items()):
            raise TypeError("a key or a value is of another type")
        return parts


@final
class PlistPlugin:
    """The object that the entry point names. A plugin needs these four attributes and no base class."""

    api_version: Literal[1] = 1
    wire_id = PlistSerializer.wire_id

    def supports(self, type_: object, /) -> bool:
        """Return whether `build` can return a serializer for *type_*."""
        return type_ in SERVED

    def build(self, type_: TypeForm[T], /) -> Serializer[T]:
        """Return the serializer for *type_*. Raises TypeError with the reason if the plugin does not serve *type_*."""
        if type_ not in SERVED:
            raise TypeError("it serves only dict[str, …] with values of str, int, float, bool or bytes")
        return PlistSerializer(type_)


PLUGIN: Final = PlistPlugin()
