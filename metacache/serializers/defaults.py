"""Turn default values of fields into texts for fingerprints. Never calls repr, which differs between versions.

Different values have different texts. Code does not count: a factory that is a class of the standard library counts by
its public name, and all other factories share one text.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import pathlib
import typing
import uuid
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final

from metacache.serializers.graphs import quoted
from metacache.serializers.literals import literal_text, time_text
from metacache.serializers.models import secret_value, url_kind
from metacache.serializers.names import library_name
from metacache.serializers.records import Factory, record_of

__all__ = ["default_text"]

# Any: a value of any class.
_Value = Any


def default_text(default: object) -> str:
    """Return the text of *default*. Raises UnknownShape if values of its class have no text."""
    if isinstance(default, Factory):
        class_: Any = typing.get_origin(default.make)  # Any: the class list for list[int]
        return f"{library_name(default.make if class_ is None else class_) or 'factory'}()"
    return _text(default)


def _text(value: object) -> str:
    class_ = type(value)
    write = _TEXTS.get(class_)
    if write is not None:
        return f"{class_.__name__}:{write(value)}"
    kind = library_name(class_)
    if kind == "msgspec.UnsetType":
        return "unset"
    if isinstance(value, pathlib.PurePath):
        return f"path:{literal_text(str(value))}"
    url = url_kind(class_)
    if url is not None:
        return f"{url[0]}:{literal_text(str(value))}"
    secret = secret_value(value)
    if secret is not None:
        return f"secret:{_text(secret)}"
    record = record_of(class_)
    if record is None:
        return literal_text(value)
    fields = ",".join(f"{quoted(field.name)}={_text(getattr(value, field.name))}" for field in record.fields)
    return f"{record.kind}({fields})"


def _sequence_text(values: _Value) -> str:
    return f"({','.join(map(_text, values))})"


def _unordered_text(values: _Value) -> str:
    return f"({','.join(sorted(map(_text, values)))})"


_TEXTS: Final[dict[type, Callable[[_Value], str]]] = {
    datetime.datetime: time_text,
    datetime.time: time_text,
    datetime.date: datetime.date.isoformat,
    datetime.timedelta: lambda value: str(value // datetime.timedelta(microseconds=1)),
    decimal.Decimal: str,
    Fraction: str,
    uuid.UUID: str,
    bytearray: bytearray.hex,
    tuple: _sequence_text,
    list: _sequence_text,
    set: _unordered_text,
    frozenset: _unordered_text,
    dict: lambda value: _unordered_text(value.items()),
    collections.OrderedDict: lambda value: _sequence_text(value.items()),
    collections.deque: lambda value: f"{_text(value.maxlen)}{_sequence_text(value)}",
}
