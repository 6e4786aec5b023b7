"""What JSON has one value for: numbers, strings, moments, choices. Each codec takes exactly its type, both ways.

Knows Python values and JSON values; knows nothing of cattrs and nothing of metacache.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import math
import uuid
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias, final

import attrs

__all__ = [
    "ANY",
    "ARRAY",
    "FLOAT",
    "OBJECT",
    "STRINGS",
    "TIMEDELTA",
    "Codec",
    "Type",
    "Value",
    "choice",
    "exact",
    "exactly",
    "string",
    "wrong",
]

# Any: a type expression is any object, and so is a value that still has to be checked.
Type: TypeAlias = Any
Value: TypeAlias = Any


@final
@attrs.frozen
class Codec:
    """Both directions of one type: the classes of the JSON values it makes, how it writes a value, how it reads one."""

    kinds: frozenset[type]
    write: Callable[[Value], Value]
    read: Callable[[Value], Value]


def wrong(value: Value, wanted: str) -> TypeError:
    """Return the error for *value*; it names types only."""
    return TypeError(f"{type(value).__name__} where {wanted} is wanted")


def exactly(value: Value, class_: type) -> Value:
    """Return *value*; raise TypeError when its class is another, be it a subclass."""
    if type(value) is class_:
        return value
    raise wrong(value, class_.__name__)


OBJECT: Final = frozenset[type]((dict,))
ARRAY: Final = frozenset[type]((list,))
_SCALARS: Final = frozenset[type]((type(None), bool, int, float, str))


def exact(class_: type) -> Codec:
    """Return the codec of a class that JSON has: None, bool, int, str."""

    def same(value: Value) -> Value:
        return exactly(value, class_)

    return Codec(frozenset((class_,)), same, same)


def _write_float(value: Value) -> float:
    number = float(value) if type(value) is int else value
    if number != value:
        raise ValueError("an int that no float equals, or NaN")
    return _finite(number)


def _finite(value: Value) -> float:
    number: float = exactly(value, float)
    if not math.isfinite(number):
        raise ValueError("JSON has no NaN and no infinity")
    return number


FLOAT: Final = Codec(frozenset((float,)), _write_float, _finite)


def _json(value: object) -> Value:
    return _JSON.get(type(value), _no_json)(value)


def _no_json(value: Value) -> Value:
    raise wrong(value, "a JSON value")


_JSON: Final[dict[type, Callable[[Value], Value]]] = {
    **dict.fromkeys(_SCALARS, lambda value: value),
    float: _finite,
    list: lambda value: [_json(part) for part in value],
    dict: lambda value: {exactly(key, str): _json(part) for key, part in value.items()},
}
ANY: Final = Codec(_SCALARS | OBJECT | ARRAY, _json, _json)


def _iso(value: Value) -> str:
    if value.tzinfo is not None and value.utcoffset() is None:
        raise ValueError("a time zone without an offset")
    text: str = value.isoformat()
    return text


STRINGS: Final[dict[type, tuple[Callable[[Value], str], Callable[[str], Value]]]] = {
    datetime.datetime: (_iso, datetime.datetime.fromisoformat),
    datetime.date: (datetime.date.isoformat, datetime.date.fromisoformat),
    datetime.time: (_iso, datetime.time.fromisoformat),
    uuid.UUID: (str, uuid.UUID),
    decimal.Decimal: (str, decimal.Decimal),
    bytes: (lambda value: b64encode(value).decode(), lambda text: b64decode(text, validate=True)),
}


def string(class_: type) -> Codec:
    """Return the codec of a class that is written as a string."""
    to_text, of_text = STRINGS[class_]

    def read(data: Value) -> Value:
        value = of_text(exactly(data, str))
        if to_text(value) != data:  # "2020-W01-1", " 1_0 ", a UUID in braces
            raise ValueError(f"no {class_.__name__} in its canonical form")
        return value

    return Codec(frozenset((str,)), lambda value: to_text(exactly(value, class_)), read)


_MICROSECOND: Final = datetime.timedelta(microseconds=1)
TIMEDELTA: Final = Codec(
    frozenset((int,)),
    lambda value: exactly(value, datetime.timedelta) // _MICROSECOND,
    lambda data: exactly(data, int) * _MICROSECOND,
)


def choice(values: Iterable[Value]) -> Codec:
    """Return the codec of one of *values*. They are kept by class and value: True is not 1."""
    written: dict[tuple[type, Value], Value] = {
        (type(value), value): value.value if isinstance(value, enum.Enum) else value for value in values
    }
    if not _SCALARS.issuperset(map(type, written.values())):
        raise TypeError("an Enum or Literal with a value that JSON does not have")
    read: dict[tuple[type, Value], Value] = {(type(data), data): value for (_, value), data in written.items()}
    if len(read) < len(written):
        raise TypeError("a Literal with two members that are written alike")
    kinds = frozenset(kind for kind, _ in read)
    return Codec(kinds, lambda value: written[type(value), value], lambda data: read[type(data), data])
