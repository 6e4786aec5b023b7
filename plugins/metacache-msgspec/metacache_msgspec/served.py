"""Decide which types the msgspec serializers serve.

msgspec must support the type without hooks, and must be able to decode what it encodes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, Final

import attrs
import msgspec

from metacache.errors import InvalidTypeError
from metacache.interrupts import is_from_handler
from metacache.serializers import Form, fingerprint, resolve
from metacache.serializers.forms import UNPACKED, walk

__all__ = ["check_served"]


# Any: msgspec.msgpack or msgspec.json; a module has no other type.
def check_served(type_: object, module: Any) -> None:
    """Raise InvalidTypeError, with the part and the reason, if *module* cannot serve *type_*."""
    try:
        fingerprint(type_)  # its error has the clearest reason
        info = msgspec.inspect.type_info(type_)
        module.Decoder(type_)
    except Exception as error:  # msgspec raises several classes, and annotations are code
        if is_from_handler(error):
            raise
        raise InvalidTypeError(str(error) or type(error).__name__) from None
    unknown = [*_unknown_classes(info, set())]
    for where, form in walk(resolve(type_)):
        problem = _problem(form, unknown, module)
        if problem is not None:
            raise InvalidTypeError(f"{where}: {problem}" if where else problem)
    if unknown:
        raise InvalidTypeError(_needs_hooks(unknown[0]))


# Any: a msgspec.inspect.Type, its fields, and the values of the fields.
def _unknown_classes(info: Any, seen: set[int]) -> Iterable[Any]:
    """Yield the classes that msgspec does not know, anywhere in its description of a type."""
    if id(info) in seen:
        return
    seen.add(id(info))
    if isinstance(info, msgspec.inspect.CustomType):
        yield info.cls
    elif isinstance(info, tuple | list):
        for part in info:  # pyright: ignore[reportUnknownVariableType] - info is Any, as said
            yield from _unknown_classes(part, seen)
    elif not isinstance(info, type):
        for name in getattr(info, "__struct_fields__", ()):
            yield from _unknown_classes(getattr(info, name), seen)


def _needs_hooks(class_: Any) -> str:  # Any: a class
    return f"msgspec needs hooks for {getattr(class_, '__name__', class_)}"


# The kinds that msgspec does not encode as a key of a JSON object.
_NOT_JSON_KEYS: Final = frozenset(
    ("none", "bool", "list", "tuple", "vartuple", "namedtuple", "dict", "typeddict", "struct", "attrs", "dataclass")
)

# msgspec encodes a record with one of these base classes as that base class, without the fields.
_BUILTIN_BASES: Final = (int, float, str, bytes, bytearray, tuple, list, set, frozenset, dict)


def _problem(form: Form, unknown: list[Any], module: Any) -> str | None:  # Any: a list of classes, and a module
    if form.kind == "unknown" and form.class_ in unknown:
        return _needs_hooks(form.class_)
    if form.reason == UNPACKED:
        return "msgspec does not support an unpacked tuple"
    if form.class_ is msgspec.msgpack.Ext and module is msgspec.json:
        return "JSON has no Ext, which belongs to MessagePack"
    if form.kind == "dict" and form.parts[0].kind in _NOT_JSON_KEYS and module is msgspec.json:
        return f"JSON has no dict with keys of {form.parts[0].name}"
    if form.kind not in ("attrs", "dataclass"):
        return None
    if issubclass(form.class_, _BUILTIN_BASES):
        return f"msgspec omits the fields of {form.name}, because it has a builtin base class"
    omitted = next((name for name in form.labels if name.startswith("_") and not _has_default(form.class_, name)), None)
    return omitted and f"msgspec omits the field {omitted} of {form.name}, because its name begins with _"


def _has_default(class_: Any, name: str) -> bool:  # Any: a class with fields, which no type expresses
    if attrs.has(class_):
        return getattr(attrs.fields(class_), name).default is not attrs.NOTHING
    field = class_.__dataclass_fields__[name]
    return (field.default, field.default_factory) != (dataclasses.MISSING, dataclasses.MISSING)
