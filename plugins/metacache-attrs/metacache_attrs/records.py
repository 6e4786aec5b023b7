"""Convert attrs classes and dataclasses to JSON objects and back.

This module reads the fields and calls the constructor. The codecs of the fields convert their values.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, Final, final

import attrs

from metacache.errors import InvalidTypeError
from metacache.serializers import Form
from metacache_attrs.values import Codec, Value, check_class

__all__ = ["record_codec"]


@final
@attrs.frozen
class _Field:
    """One field that the constructor takes: its name, the name of the parameter, and whether it has a default."""

    name: str
    alias: str
    has_default: bool


def record_codec(form: Form, codecs: Mapping[str, Codec]) -> Codec:
    """Return the codec of the class of *form*, whose fields have *codecs*.

    Fields that the constructor does not take are not written. The constructor sets them on a read.

    Raises InvalidTypeError if the constructor does not take exactly the other fields.
    """
    class_ = form.class_
    fields = _constructor_fields(class_)
    _check_constructor(form, fields)
    required = frozenset(field.name for field in fields if not field.has_default)
    writers = [(field.name, codecs[field.name].unchanged, codecs[field.name].write) for field in fields]
    readers = {field.name: (field.alias, codecs[field.name].unchanged, codecs[field.name].read) for field in fields}

    def write(value: Value) -> Value:
        check_class(value, class_)
        data: dict[str, Value] = {}
        for name, unchanged, write in writers:
            part = getattr(value, name)
            data[name] = part if type(part) in unchanged else write(part)
        return data

    def read(data: Value) -> Value:
        if not required <= check_class(data, dict).keys():
            raise ValueError(f"a field of {form.name} is missing")
        arguments: dict[str, Value] = {}
        for name, part in data.items():
            alias, unchanged, read = readers[name]
            arguments[alias] = part if type(part) in unchanged else read(part)
        return class_(**arguments)

    return Codec(write, read)


def _constructor_fields(class_: Any) -> list[_Field]:  # Any: a class with fields, which no type expresses
    if attrs.has(class_):
        return [
            _Field(field.name, field.alias or field.name, field.default is not attrs.NOTHING)
            for field in attrs.fields(class_)
            if field.init
        ]
    return [
        _Field(field.name, field.name, (field.default, field.default_factory) != (dataclasses.MISSING,) * 2)
        for field in dataclasses.fields(class_)
        if field.init
    ]


# A record with one of these base classes has contents beside its fields.
_BUILTIN_BASES: Final = (int, float, complex, str, bytes, bytearray, tuple, list, set, frozenset, dict)


def _check_constructor(form: Form, fields: list[_Field]) -> None:
    class_ = form.class_
    if issubclass(class_, _BUILTIN_BASES):
        raise InvalidTypeError(f"{form.name} has a builtin base class, so it holds more than its fields")
    try:
        signature = inspect.signature(class_)
    except ValueError:  # the constructor has no signature
        return
    try:
        signature.bind(**{field.alias: None for field in fields})
    except TypeError as error:
        raise InvalidTypeError(f"{form.name}: its constructor does not take its fields ({error})") from None
