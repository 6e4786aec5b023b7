"""Which types msgspec serves: those that it takes without hooks, and of which it can read what it writes."""

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
    """Raise InvalidTypeError, which says which part of *type_* is not served by *module* and why."""
    try:
        fingerprint(type_)  # it says best why it has none
        info = msgspec.inspect.type_info(type_)
        module.Decoder(type_)
    except Exception as error:  # it raises several kinds, and runs the annotations of classes
        if is_from_handler(error):
            raise
        raise InvalidTypeError(str(error) or type(error).__name__) from None
    custom = [*_custom(info, set())]
    for where, form in walk(resolve(type_)):
        problem = _problem(form, custom, module)
        if problem is not None:
            raise InvalidTypeError(f"{where}: {problem}" if where else problem)
    if custom:
        raise InvalidTypeError(_needs_hooks(custom[0]))


# Any: a msgspec.inspect.Type, its fields, and what is in these.
def _custom(info: Any, seen: set[int]) -> Iterable[Any]:
    """Yield the classes, anywhere in what msgspec says of a type, that it does not know."""
    if id(info) in seen:
        return
    seen.add(id(info))
    if isinstance(info, msgspec.inspect.CustomType):
        yield info.cls
    elif isinstance(info, tuple | list):
        for part in info:  # pyright: ignore[reportUnknownVariableType] - as said
            yield from _custom(part, seen)
    elif not isinstance(info, type):
        for name in getattr(info, "__struct_fields__", ()):
            yield from _custom(getattr(info, name), seen)


def _needs_hooks(class_: Any) -> str:  # Any: a class
    return f"msgspec needs hooks for {getattr(class_, '__name__', class_)}"


# What msgspec does not write as a key of an object.
_NO_KEYS: Final = frozenset(
    ("none", "bool", "list", "tuple", "vartuple", "namedtuple", "dict", "typeddict", "struct", "attrs", "dataclass")
)

# A record that is one of these too is written as one of these, without its fields.
_HOLDERS: Final = (int, float, str, bytes, bytearray, tuple, list, set, frozenset, dict)


def _problem(form: Form, custom: list[Any], module: Any) -> str | None:  # Any: as above
    if form.kind == "unknown" and form.class_ in custom:
        return _needs_hooks(form.class_)
    if form.reason == UNPACKED:
        return "msgspec does not take apart an unpacked tuple"
    if form.class_ is msgspec.msgpack.Ext and module is msgspec.json:
        return "JSON has no Ext of MessagePack"
    if form.kind == "dict" and form.parts[0].kind in _NO_KEYS and module is msgspec.json:
        return f"JSON has no dict with keys of {form.parts[0].name}"
    if form.kind not in ("attrs", "dataclass"):
        return None
    if issubclass(form.class_, _HOLDERS):
        return f"msgspec leaves out the fields of {form.name}, which has a builtin base too"
    left_out = next(
        (name for name in form.labels if name.startswith("_") and not _has_default(form.class_, name)), None
    )
    return left_out and f"msgspec leaves out the field {left_out} of {form.name}, whose name begins with _"


def _has_default(class_: Any, name: str) -> bool:  # Any: a class with fields, which no type expresses
    if attrs.has(class_):
        return getattr(attrs.fields(class_), name).default is not attrs.NOTHING
    field = class_.__dataclass_fields__[name]
    return (field.default, field.default_factory) != (dataclasses.MISSING, dataclasses.MISSING)
