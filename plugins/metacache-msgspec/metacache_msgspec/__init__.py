"""msgspec for metacache: ``msgspec`` is MessagePack, ``msgspec-json`` JSON.

Strict as msgspec is; one encoder and decoder a type. Knows msgspec; knows of metacache only the plugin protocol.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Final, Generic, Literal, TypeVar, cast, final

import msgspec
from typing_extensions import TypeForm

from metacache.serializers import Serializer, fingerprint, outer_check

__all__ = ["JSON", "MSGPACK"]

T = TypeVar("T")


@final
class _Msgspec(Generic[T]):
    """One type's encoder and decoder."""

    __slots__ = ("_encode", "_is_json", "_is_outer", "fingerprint", "loads", "wire_id")

    def __init__(
        self, wire_id: int, type_: TypeForm[T], encode: Callable[[T], bytes], decode: Callable[[bytes], T]
    ) -> None:
        self.wire_id = wire_id
        self.fingerprint: int = fingerprint(type_)
        self.loads = decode
        self._encode = encode
        self._is_outer = outer_check(type_)
        self._is_json = wire_id == JSON_ID

    def dumps(self, value: T, /) -> bytes:
        """Return *value* as bytes.

        Raises TypeError when it is not of the type, ValueError for a NaN or infinity in JSON.
        """
        if not self._is_outer(value):
            raise TypeError(f"{type(value).__name__} is not of this client's type")
        data = self._encode(value)
        # msgspec writes NaN and the infinities as null in JSON, which would come back as None or not at all.
        if self._is_json and b"null" in data and not _is_finite(msgspec.to_builtins(value)):
            raise ValueError("JSON has no NaN and no infinity")
        return data


def _is_finite(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        fields = cast("dict[object, object]", value)  # isinstance tells nothing of what is inside
        return all(map(_is_finite, fields.keys())) and all(map(_is_finite, fields.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_finite, cast("Iterable[object]", value)))  # as above
    return True


@final
class _Plugin:
    """Builds serializers of one format."""

    api_version: Literal[1] = 1

    # Any: msgspec.msgpack or msgspec.json; a module has no other type.
    def __init__(self, wire_id: int, module: Any) -> None:
        self.wire_id = wire_id
        self._module = module

    def supports(self, type_: object, /) -> bool:
        """Tell whether msgspec takes *type_* without hooks."""
        try:
            return not _holds_custom(msgspec.inspect.type_info(type_), set())
        except Exception:  # it raises as many kinds as there are ways to be no type
            return False

    def build(self, type_: TypeForm[T], /) -> Serializer[T]:
        """Return the serializer of *type_*."""
        # pyright takes the slot `loads` for a method and its data for self.
        return _Msgspec(  # pyright: ignore[reportReturnType]
            self.wire_id, type_, self._module.Encoder().encode, self._module.Decoder(type_).decode
        )


def _holds_custom(info: object, seen: set[int]) -> bool:
    """Tell whether a class that msgspec knows nothing of stands anywhere in what it says of a type."""
    if id(info) in seen:
        return False
    seen.add(id(info))
    if isinstance(info, msgspec.inspect.CustomType):
        return True
    if isinstance(info, tuple | list):
        members = cast("Iterable[object]", info)  # isinstance tells nothing of what is inside
        return any(_holds_custom(part, seen) for part in members)
    parts = getattr(info, "__struct_fields__", ())
    return any(_holds_custom(getattr(info, name), seen) for name in parts if not isinstance(info, type))


MSGPACK_ID: Final = 32
JSON_ID: Final = 33
MSGPACK: Final = _Plugin(MSGPACK_ID, msgspec.msgpack)
JSON: Final = _Plugin(JSON_ID, msgspec.json)
