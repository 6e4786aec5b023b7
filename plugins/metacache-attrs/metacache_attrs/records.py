"""Classes with fields, of attrs and of the standard library, as objects of JSON.

Knows how such a class is made of its fields; what is in the fields is for their codecs.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, Final, final

import attrs

from metacache.errors import InvalidTypeError
from metacache.serializers import Form
from metacache_attrs.values import Codec, Value, exactly

__all__ = ["record"]


@final
@attrs.frozen
class _Field:
    """One field that the constructor takes: its name, what the constructor calls it, whether it may be left out."""

    name: str
    alias: str
    has_default: bool


def record(form: Form, codecs: Mapping[str, Codec]) -> Codec:
    """Return the codec of the class of *form*, whose fields have *codecs*.

    Fields that the constructor does not take are not written: they come back as it makes them.

    Raises InvalidTypeError when the constructor cannot make a value of its fields.
    """
    class_ = form.class_
    fields = _fields(class_)
    _check(form, fields)
    required = frozenset(field.name for field in fields if not field.has_default)
    writers = [(field.name, codecs[field.name].as_is, codecs[field.name].write) for field in fields]
    readers = {field.name: (field.alias, codecs[field.name].as_is, codecs[field.name].read) for field in fields}

    def write(value: Value) -> Value:
        exactly(value, class_)
        data: dict[str, Value] = {}
        for name, as_is, write in writers:
            part = getattr(value, name)
            data[name] = part if type(part) in as_is else write(part)
        return data

    def read(data: Value) -> Value:
        if not required <= exactly(data, dict).keys():
            raise ValueError(f"a field of {form.name} is missing")
        arguments: dict[str, Value] = {}
        for name, part in data.items():
            alias, as_is, read = readers[name]
            arguments[alias] = part if type(part) in as_is else read(part)
        return class_(**arguments)

    return Codec(write, read)


def _fields(class_: Any) -> list[_Field]:  # Any: a class with fields, which no type expresses
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


# A record that is one of these too holds more than its fields.
_HOLDERS: Final = (int, float, complex, str, bytes, bytearray, tuple, list, set, frozenset, dict)


def _check(form: Form, fields: list[_Field]) -> None:
    class_ = form.class_
    if issubclass(class_, _HOLDERS):
        raise InvalidTypeError(f"{form.name} holds more than its fields")
    try:
        signature = inspect.signature(class_)
    except ValueError:  # it has none
        return
    try:
        signature.bind(**{field.alias: None for field in fields})
    except TypeError as error:
        raise InvalidTypeError(f"{form.name}: its constructor does not take its fields ({error})") from None
