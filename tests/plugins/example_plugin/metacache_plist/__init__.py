"""Property lists for metacache: dicts of str, int, float, bool and bytes, in Apple's binary format."""

from __future__ import annotations

import plistlib
from typing import Final, Generic, Literal, TypeVar, cast, final

from typing_extensions import TypeForm

from metacache import Serializer
from metacache.serializers import fingerprint

__all__ = ["PLUGIN"]

T = TypeVar("T")

# The types that are served, and the class of a dict's values in each.
SERVED: Final[dict[object, type]] = {
    dict[str, str]: str,
    dict[str, int]: int,
    dict[str, float]: float,
    dict[str, bool]: bool,
    dict[str, bytes]: bytes,
}


@final
class PlistSerializer(Generic[T]):
    """Turns dicts of one type into bytes and back."""

    wire_id = 224  # private, of a binary format; a published plugin takes one from metacache/serializers/README.md

    def __init__(self, type_: TypeForm[T]) -> None:
        # With the name: other serializers may use the private wire id too.
        self.fingerprint: int = fingerprint(type_, serializer="plist")
        self._class = SERVED[type_]

    def dumps(self, value: T, /) -> bytes:
        """Return *value* as bytes. Raise for a value that is not of the type, so that it is never stored."""
        return plistlib.dumps(self._checked(value), fmt=plistlib.FMT_BINARY)

    def loads(self, data: bytes, /) -> T:
        """Return the dict. Any exception makes a miss of *data*; a wrong dict would be worse."""
        value: object = plistlib.loads(data, fmt=plistlib.FMT_BINARY)
        return cast("T", self._checked(value))  # `_checked` has verified the type

    def _checked(self, value: object) -> dict[str, object]:
        if type(value) is not dict:
            raise TypeError(f"{type(value).__name__} is not a dict")
        parts = cast("dict[str, object]", value)  # the next line checks the keys
        if not all(type(key) is str and type(part) is self._class for key, part in parts.items()):
            raise TypeError("a key or a value is not of the type")
        if not all(-(2**63) <= part < 2**64 for part in parts.values() if isinstance(part, int)):
            raise ValueError("the format has no integer of more than 64 bits")
        return parts


@final
class PlistPlugin:
    """The entry point names an instance of this class. Any object with these four attributes is a plugin."""

    api_version: Literal[1] = 1
    wire_id = PlistSerializer.wire_id

    def supports(self, type_: object, /) -> bool:
        """Return whether `build` can serve *type_*."""
        return type_ in SERVED

    def build(self, type_: TypeForm[T], /) -> Serializer[T]:
        """Return the serializer of *type_*. Raise TypeError with the reason if it is not served."""
        if type_ not in SERVED:
            raise TypeError("this plugin serves dicts from str to str, int, float, bool or bytes")
        return PlistSerializer(type_)


PLUGIN: Final = PlistPlugin()
