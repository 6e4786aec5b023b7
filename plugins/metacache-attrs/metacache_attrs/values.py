"""Convert scalars to JSON values and back: numbers, strings, times, choices.

Each codec accepts exactly its own type in both directions. Depends on nothing of metacache.
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
    "check_class",
    "choice_codec",
    "exact_codec",
    "flag_codec",
    "json_of_choice",
    "string_codec",
    "wrong_class",
]

# Any: a value that is not yet checked.
Value: TypeAlias = Any


@final
@attrs.frozen
class Codec:
    """The two directions of one type: `write` makes a JSON value, `read` the value again. Both raise for another type.

    A value of one of the classes `unchanged` is the same in JSON, so the caller may skip both functions.
    """

    write: Callable[[Value], Value]
    read: Callable[[Value], Value]
    unchanged: frozenset[type] = frozenset()


def wrong_class(value: Value, wanted: str) -> TypeError:
    """Return the error for a *value* of a wrong class. It names types only."""
    return TypeError(f"expected {wanted}, got {type(value).__name__}")


def check_class(value: Value, class_: type) -> Value:
    """Return *value*. Raises TypeError if its class is not exactly *class_*."""
    if type(value) is class_:
        return value
    raise wrong_class(value, class_.__name__)


_SCALARS: Final = frozenset[type]((type(None), bool, int, float, str))


def exact_codec(class_: type) -> Codec:
    """Return the codec of None, bool, int or str, which are the same in JSON."""

    def same(value: Value) -> Value:
        if type(value) is class_:  # `check_class`, without the call: this runs for each key of a dict
            return value
        raise wrong_class(value, class_.__name__)

    return Codec(same, same, frozenset((class_,)))


def _write_float(value: Value) -> float:
    if type(value) is not int:
        return _finite_float(value)
    number = float(value)
    if number != value:
        raise ValueError("no float holds the int exactly")
    return number


def _finite_float(value: Value) -> float:
    number: float = check_class(value, float)
    if not math.isfinite(number):
        raise ValueError("JSON has no NaN and no infinity")
    return number


FLOAT: Final = Codec(_write_float, _finite_float)


def _json(value: object) -> Value:
    return _JSON.get(type(value), _no_json)(value)


def _no_json(value: Value) -> Value:
    raise wrong_class(value, "a JSON value")


_JSON: Final[dict[type, Callable[[Value], Value]]] = {
    **dict.fromkeys(_SCALARS, lambda value: value),
    float: _finite_float,
    list: lambda value: [_json(part) for part in value],
    dict: lambda value: {check_class(key, str): _json(part) for key, part in value.items()},
}
ANY: Final = Codec(_json, _json)


def _iso(value: Value) -> str:
    text: str = value.isoformat()
    return text


_MINUTE: Final = datetime.timedelta(minutes=1)


def _reader_of_times(class_: type[datetime.datetime] | type[datetime.time]) -> Callable[[str], Value]:
    def read(text: str) -> Value:
        value = class_.fromisoformat(text)
        offset = value.utcoffset()
        if offset is not None and offset % _MINUTE:  # `dumps` refuses it too: other formats cannot store it
            raise ValueError("expected a zone with an offset of whole minutes")
        return value

    return read


_STRINGS: Final[Mapping[type, tuple[Callable[[Value], str], Callable[[str], Value]]]] = {
    datetime.date: (_iso, datetime.date.fromisoformat),
    datetime.datetime: (_iso, _reader_of_times(datetime.datetime)),
    datetime.time: (_iso, _reader_of_times(datetime.time)),
    uuid.UUID: (str, uuid.UUID),
    decimal.Decimal: (str, decimal.Decimal),
    bytes: (lambda value: b64encode(value).decode(), lambda text: b64decode(text, validate=True)),
}


def string_codec(class_: type) -> Codec:
    """Return the codec of a class whose values become strings."""
    to_text, of_text = _STRINGS[class_]

    def read(data: Value) -> Value:
        value = of_text(check_class(data, str))
        if to_text(value) != data:  # for example "2020-W01-1", " 1_0 ", a UUID in braces
            raise ValueError(f"expected a {class_.__name__} in canonical form")
        return value

    def write(value: Value) -> str:
        return to_text(check_class(value, class_))

    return Codec(write, read)


_MICROSECOND: Final = datetime.timedelta(microseconds=1)
TIMEDELTA: Final = Codec(
    lambda value: check_class(value, datetime.timedelta) // _MICROSECOND,
    lambda data: check_class(data, int) * _MICROSECOND,
)


def json_of_choice(value: Value) -> Value:
    """Return the JSON value of a choice: the value of an Enum member, else *value* itself.

    Raises TypeError if JSON has no such value.
    """
    written = value.value if isinstance(value, enum.Enum) else value
    if type(written) not in _SCALARS:
        raise wrong_class(written, "a JSON value as the value of an Enum or Literal")
    return written


def choice_codec(values: Iterable[Value]) -> Codec:
    """Return the codec of a choice of *values*. Class and value count: True is not 1."""
    written: dict[tuple[type, Value], Value] = {(type(value), value): json_of_choice(value) for value in values}
    read: dict[tuple[type, Value], Value] = {(type(data), data): value for (_, value), data in written.items()}
    if len(read) < len(written):
        raise TypeError("two choices have the same JSON value")
    return Codec(lambda value: written[type(value), value], lambda data: read[type(data), data])


def flag_codec(class_: type[enum.Flag]) -> Codec:
    """Return the codec of a Flag. It accepts any combination of members, also the empty one."""

    def read(data: Value) -> Value:
        value = class_(check_class(data, int))
        # The boundary of the Flag may drop or map bits, or return an int.
        if type(value) is not class_ or value.value != data:
            raise ValueError(f"{class_.__name__} has no member or combination with this value")
        return value

    return Codec(lambda value: check_class(value, class_).value, read)
