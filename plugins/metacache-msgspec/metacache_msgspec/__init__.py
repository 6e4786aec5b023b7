"""msgspec for metacache: ``msgspec`` is MessagePack, ``msgspec-json`` JSON. One encoder and one decoder a type.

msgspec takes an int for a float, a number for a Decimal, an object with unknown keys: here, what it would not have
written itself is refused. Knows msgspec; knows of metacache only the plugin protocol.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Generic, Literal, TypeVar, final

import msgspec
from typing_extensions import TypeForm

from metacache.errors import InvalidTypeError, SerializationError
from metacache.interrupts import is_from_handler
from metacache.serializers import Serializer, fingerprint, outer_check
from metacache.serializers.shapes import graph_of

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
        self._encode = module.Encoder().encode
        self._decode = module.Decoder(type_).decode
        self._decode_any = module.Decoder().decode

    def dumps(self, value: T, /) -> bytes:
        """Return *value* as bytes; raises when it is not of the type, within too, or would not come back equal.

        An int in a float's place, as type checkers allow, is written as the float that equals it. NaN equals NaN.
        """
        if not self._is_outer(value):
            raise TypeError(f"{type(value).__name__} is not of this client's type")
        again: T = self._decode(self._encode(value))
        # msgspec writes bytes as base64 and NaN as null in JSON, a tuple as a list: what it reads then is no error.
        if again != value:
            _check_equal(value, again)
        data: bytes = self._encode(again)
        return data

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


def _check_equal(value: Any, again: Any) -> None:
    """Raise SerializationError where *again*, which is *value* read back, is another.

    NaN equals NaN, and what is equal to nothing but itself equals one of its class with equal fields.
    """
    if again == value or _is_nan(value, again):
        return
    if type(again) is not type(value):
        raise SerializationError(f"{_kind(value)} would come back as {_kind(again)}")
    parts, others = _parts(value), _parts(again)
    if parts is None or others is None or len(parts) != len(others):
        raise SerializationError(f"{_kind(value)} would come back as another")
    for part, other in zip(parts, others, strict=True):
        _check_equal(part, other)


# Which containers, and what they consist of, in an order that an equal one has too.
_CONTAINERS: Final[tuple[tuple[tuple[type, ...], Callable[[Any], list[Any]]], ...]] = (
    ((list, tuple), lambda value: [*value]),
    ((dict,), lambda value: [*value, *value.values()]),
    ((set, frozenset), lambda value: sorted(value, key=repr)),
)


def _parts(value: object) -> list[Any] | None:
    """Return what *value* consists of; None for what is one piece."""
    class_ = type(value)
    for classes, parts in _CONTAINERS:
        if issubclass(class_, classes):
            return parts(value)
    names = _field_names(class_)
    return None if names is None else [getattr(value, name) for name in names]


def _field_names(class_: Any) -> Iterable[str] | None:
    if dataclasses.is_dataclass(class_):
        return [field.name for field in dataclasses.fields(class_)]
    if hasattr(class_, "__attrs_attrs__"):
        return [field.name for field in class_.__attrs_attrs__]
    names: Iterable[str] | None = getattr(class_, "__struct_fields__", None)
    return names


def _is_nan(value: Any, again: Any) -> bool:
    return isinstance(value, float) and isinstance(again, float) and math.isnan(value) and math.isnan(again)


@final
class _Plugin:
    """Builds serializers of one format."""

    api_version: Literal[1] = 1

    # Any: msgspec.msgpack or msgspec.json; a module has no other type.
    def __init__(self, wire_id: int, module: Any) -> None:
        self.wire_id = wire_id
        self._module = module

    def supports(self, type_: object, /) -> bool:
        """Return whether msgspec takes *type_* without hooks."""
        return _refusal(type_) is None

    def build(self, type_: TypeForm[T], /) -> Serializer[T]:
        """Return the serializer of *type_*. Raises InvalidTypeError with the reason when msgspec does not take it."""
        reason = _refusal(type_)
        if reason is not None:
            raise InvalidTypeError(reason)
        return _Msgspec(self.wire_id, type_, self._module)


def _refusal(type_: object) -> str | None:
    """Return why msgspec does not take *type_* without hooks, None when it does."""
    try:
        custom = next(_custom_classes(msgspec.inspect.type_info(type_), set()), None)
        fingerprint(type_)  # which says best why it has none
        kinds = graph_of(type_).kinds()
    except TypeError as error:
        return str(error)
    except Exception as error:  # it raises as many kinds as there are ways to be no type
        if is_from_handler(error):
            raise
        return f"msgspec raised {_kind(error)}: {error}"
    if custom is not None:
        return f"msgspec needs hooks for {custom.__qualname__}"
    return "msgspec does not take apart an unpacked tuple" if "unpacked" in kinds else None


# Any: a msgspec.inspect.Type, its fields, and what is in these.
def _custom_classes(info: Any, seen: set[int]) -> Iterator[type]:
    """Yield each class that msgspec knows nothing of and that stands anywhere in what it says of a type."""
    if id(info) in seen:
        return
    seen.add(id(info))
    if isinstance(info, msgspec.inspect.CustomType):
        yield info.cls
    for part in _parts_of(info):
        yield from _custom_classes(part, seen)


def _parts_of(info: Any) -> Iterable[Any]:
    if _kind(info) in ("tuple", "list"):
        parts: Iterable[Any] = info
        return parts
    names = () if isinstance(info, type) else getattr(info, "__struct_fields__", ())
    return [getattr(info, name) for name in names]


MSGPACK: Final = _Plugin(64, msgspec.msgpack)
JSON: Final = _Plugin(80, msgspec.json)
