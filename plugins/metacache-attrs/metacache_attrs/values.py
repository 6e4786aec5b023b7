"""What JSON has one value for: numbers, strings, moments, choices. Each codec takes exactly its type, both ways.

Knows Python values and JSON values; knows nothing of classes with fields and nothing of metacache.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import math
import uuid
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias, final

import attrs

__all__ = [
    "ANY",
    "FLOAT",
    "TIMEDELTA",
    "Codec",
    "Value",
    "choice",
    "exact",
    "exactly",
    "flag",
    "plain",
    "string",
    "wrong",
]

# Any: a value that still has to be checked.
Value: TypeAlias = Any


@final
@attrs.frozen
class Codec:
    """Both directions of one type: how a value is written in JSON, and how it is read. Either raises for another.

    What is of one of the classes *as_is* is the same in JSON, so that neither need be called.
    """

    write: Callable[[Value], Value]
    read: Callable[[Value], Value]
    as_is: frozenset[type] = frozenset()


def wrong(value: Value, wanted: str) -> TypeError:
    """Return the error for *value*; it names types only."""
    return TypeError(f"expected {wanted}, got {type(value).__name__}")


def exactly(value: Value, class_: type) -> Value:
    """Return *value*; raise TypeError when its class is another, be it a subclass."""
    if type(value) is class_:
        return value
    raise wrong(value, class_.__name__)


_SCALARS: Final = frozenset[type]((type(None), bool, int, float, str))


def exact(class_: type) -> Codec:
    """Return the codec of a class that JSON has: None, bool, int, str."""

    def same(value: Value) -> Value:
        if type(value) is class_:
            return value
        raise wrong(value, class_.__name__)

    return Codec(same, same, frozenset((class_,)))


def _write_float(value: Value) -> float:
    if type(value) is not int:
        return _finite(value)
    number = float(value)
    if number != value:
        raise ValueError("no float holds the int exactly")
    return number


def _finite(value: Value) -> float:
    number: float = exactly(value, float)
    if not math.isfinite(number):
        raise ValueError("JSON has no NaN and no infinity")
    return number


FLOAT: Final = Codec(_write_float, _finite)


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
ANY: Final = Codec(_json, _json)


def _iso(value: Value) -> str:
    text: str = value.isoformat()
    return text


_STRINGS: Final[Mapping[type, tuple[Callable[[Value], str], Callable[[str], Value]]]] = {
    **{class_: (_iso, class_.fromisoformat) for class_ in (datetime.datetime, datetime.date, datetime.time)},
    uuid.UUID: (str, uuid.UUID),
    decimal.Decimal: (str, decimal.Decimal),
    bytes: (lambda value: b64encode(value).decode(), lambda text: b64decode(text, validate=True)),
}


def string(class_: type) -> Codec:
    """Return the codec of a class that is written as a string."""
    to_text, of_text = _STRINGS[class_]

    def read(data: Value) -> Value:
        value = of_text(exactly(data, str))
        if to_text(value) != data:  # "2020-W01-1", " 1_0 ", a UUID in braces
            raise ValueError(f"no {class_.__name__} in its canonical form")
        return value

    def write(value: Value) -> str:
        return to_text(exactly(value, class_))

    return Codec(write, read)


_MICROSECOND: Final = datetime.timedelta(microseconds=1)
TIMEDELTA: Final = Codec(
    lambda value: exactly(value, datetime.timedelta) // _MICROSECOND,
    lambda data: exactly(data, int) * _MICROSECOND,
)


def plain(value: Value) -> Value:
    """Return the JSON value of a choice: the value of an Enum's member, else *value* itself.

    Raises TypeError when JSON has no such value.
    """
    written = value.value if isinstance(value, enum.Enum) else value
    if type(written) not in _SCALARS:
        raise wrong(written, "a JSON value as the value of an Enum or Literal")
    return written


def choice(values: Iterable[Value]) -> Codec:
    """Return the codec of one of *values*. They are kept by class and value: True is not 1."""
    written: dict[tuple[type, Value], Value] = {(type(value), value): plain(value) for value in values}
    read: dict[tuple[type, Value], Value] = {(type(data), data): value for (_, value), data in written.items()}
    if len(read) < len(written):
        raise TypeError("two members of a Literal are written alike")
    return Codec(lambda value: written[type(value), value], lambda data: read[type(data), data])


def flag(class_: type[enum.Flag]) -> Codec:
    """Return the codec of a Flag: any combination of its members, the empty one too."""

    def read(data: Value) -> Value:
        value = class_(exactly(data, int))
        # A boundary may have dropped or mapped bits, or returned an int.
        if type(value) is not class_ or value.value != data:
            raise ValueError(f"no {class_.__name__} has this value")
        return value

    return Codec(lambda value: exactly(value, class_).value, read)
