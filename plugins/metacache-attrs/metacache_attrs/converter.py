"""A strict cattrs converter between values and what JSON has: it never coerces, and never stores what it could not read back.

    datetime, date, time, UUID, Decimal, bytes (base64)    strings in their one canonical form
    timedelta                                              microseconds
    tuple, set, frozenset, deque, NamedTuple               lists
    a mapping whose keys are no str                        a list of pairs
    a union whose members JSON tells apart                 the member
    any other union                                        {"type": name, "value": member}

Knows Python values and JSON values; knows no bytes and nothing of metacache.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any, TypeAlias

import cattrs

__all__ = ["strict_converter"]

# Any: a type expression is any object, and cattrs's hooks are typed so.
_Type: TypeAlias = Any
_Structure: TypeAlias = Callable[[Any, Any], Any]
_Unstructure: TypeAlias = Callable[[Any], Any]


def _wrong(value: object, wanted: str) -> TypeError:
    return TypeError(f"{type(value).__name__} where {wanted} is wanted")


def strict_converter() -> cattrs.Converter:
    """Return a new converter. Its hooks raise TypeError or ValueError for what is not exactly of the type."""
    converter = cattrs.Converter(detailed_validation=False)
    for class_ in (bool, int, float, str, type(None)):
        _register_scalar(converter, class_)
    for class_, (write, read) in _AS_STRING.items():
        _register_string(converter, class_, write, read)
    converter.register_structure_hook(datetime.timedelta, _structure_timedelta)
    converter.register_unstructure_hook(datetime.timedelta, _unstructure_timedelta)
    return converter
