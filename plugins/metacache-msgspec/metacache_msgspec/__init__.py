"""msgspec for metacache: ``msgspec`` is MessagePack, ``msgspec-json`` JSON. One encoder and one decoder a type.

msgspec takes an int for a float, a number for a Decimal, an object with unknown keys: here, what it would not have
written itself is refused. Knows msgspec; knows of metacache only the plugin protocol.
"""

from __future__ import annotations

import math
from typing import Any, Final, Generic, Literal, TypeVar, final

import msgspec
from typing_extensions import TypeForm

from metacache.serializers import Serializer, fingerprint, outer_check

__all__ = ["JSON", "MSGPACK"]

T = TypeVar("T")


@final
class _Msgspec(Generic[T]):
    """The serializer of one type."""

    # Any: msgspec.msgpack or msgspec.json; a module has no other type.
    def __init__(self, wire_id: int, type_: TypeForm[T], module: Any) -> None:
        self.wire_id = wire_id
        self.fingerprint: int = fingerprint(type_)
        self._is_outer = outer_check(type_)
        self._is_json = module is msgspec.json
        self._encode = module.Encoder().encode
        self._decode = module.Decoder(type_).decode
        self._decode_any = module.Decoder().decode

    def dumps(self, value: T, /) -> bytes:
        """Return *value* as bytes; raises when it is not of the type, within too, or would not come back equal.

        An int in a float's place, as type checkers allow, is written as the float that equals it.
        """
        if not self._is_outer(value):
            raise TypeError(f"{type(value).__name__} is not of this client's type")
        data: bytes = self._encode(value)
        again: T = self._decode(data)
        canonical: bytes = self._encode(again)
        if canonical != data and again != value:
            raise TypeError("a part of the value is not of this client's type")
        # msgspec writes NaN and the infinities as null in JSON, which would come back as None or not at all.
        if self._is_json and b"null" in data and not _is_finite(msgspec.to_builtins(value)):
            raise ValueError("JSON has no NaN and no infinity")
        return canonical

    def loads(self, data: bytes, /) -> T:
        """Return the value; raises when *data* is not exactly of the type."""
        value: T = self._decode(data)
        canonical: bytes = self._encode(value)
        # Equal bytes are the rule. Others may differ in what does not matter: the order of a set, a default left out.
        if canonical != data and not _agree(self._decode_any(data), self._decode_any(canonical)):
            raise ValueError("msgspec had to coerce or to drop something")
        return value


# Any, here and below: msgspec decodes without a type to whatever the bytes hold.
def _agree(data: Any, again: Any) -> bool:
    """Tell whether *data* has the kinds of *again*, which is the same written by msgspec, and no more parts."""
    kind = _kind(data)
    if kind != _kind(again):
        return False
    if kind == "dict":
        kept = {(_kind(key), key) for key in again}
        return all((_kind(key), key) in kept and _agree(part, again[key]) for key, part in data.items())
    return kind != "list" or (len(data) <= len(again) and all(map(_agree, *_aligned(data, again))))


def _aligned(data: list[Any], again: list[Any]) -> tuple[list[Any], list[Any]]:
    """Return both by kind when their kinds stand in another order, as those of a set may."""
    in_order = all(_kind(one) == _kind(other) for one, other in zip(data, again, strict=False))
    return (data, again) if in_order else (sorted(data, key=_kind), sorted(again, key=_kind))


def _kind(value: object) -> str:
    return type(value).__name__


def _is_finite(value: Any) -> bool:
    kind = _kind(value)
    if kind == "float":
        return math.isfinite(value)
    if kind == "dict":
        return all(map(_is_finite, value.keys())) and all(map(_is_finite, value.values()))
    return kind not in ("list", "tuple") or all(map(_is_finite, value))


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
        return _Msgspec(self.wire_id, type_, self._module)


# Any: a msgspec.inspect.Type, its fields, and what is in these.
def _holds_custom(info: Any, seen: set[int]) -> bool:
    """Tell whether a class that msgspec knows nothing of stands anywhere in what it says of a type."""
    if id(info) in seen:
        return False
    seen.add(id(info))
    if isinstance(info, msgspec.inspect.CustomType):
        return True
    if _kind(info) in ("tuple", "list"):
        return any(_holds_custom(part, seen) for part in info)
    names = () if isinstance(info, type) else getattr(info, "__struct_fields__", ())
    return any(_holds_custom(getattr(info, name), seen) for name in names)


MSGPACK: Final = _Plugin(32, msgspec.msgpack)
JSON: Final = _Plugin(33, msgspec.json)
