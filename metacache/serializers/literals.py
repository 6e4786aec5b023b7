"""Turn literals, and constraints in Annotated, into texts for fingerprints.

Never calls repr, which differs between versions of Python and of libraries.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any, Final

from metacache.serializers.graphs import UnknownShape, quoted

__all__ = ["constraints", "literal_text", "time_text"]

# Any: a value of any class.
_Value = Any


def literal_text(value: object) -> str:
    """Return a text that distinguishes literals by type and value. Raises UnknownShape if *value* is not a literal."""
    if isinstance(value, enum.Enum):
        return f"member:{literal_text(value.value)}"
    if isinstance(value, str):
        return f"str:{quoted(value)}"
    if isinstance(value, bytes):
        return f"bytes:{value.hex()}"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"int:{value:d}"
    if isinstance(value, float):
        return f"float:{value.hex()}"
    raise UnknownShape(f"a value of class {type(value).__qualname__}, which has no text")


def time_text(value: datetime.datetime | datetime.time) -> str:
    """Return the text of *value*: its fields, its fold and its zone. Raises UnknownShape for a zone without a key."""
    return f"{quoted(value.replace(tzinfo=None).isoformat())} {value.fold} {zone_text(value.tzinfo)}"


def zone_text(zone: _Value) -> str:
    """Return the text of a time zone, or of a value that annotated_types takes for one. Raises UnknownShape."""
    if zone is None or isinstance(zone, str | bool):
        return literal_text(zone)
    if zone is Ellipsis:
        return "..."
    if isinstance(zone, datetime.timezone):
        return f"offset:{zone.utcoffset(None)}"
    key = getattr(zone, "key", None)  # zoneinfo.ZoneInfo
    if isinstance(key, str):
        return f"zone:{quoted(key)}"
    raise UnknownShape(f"a time zone of class {type(zone).__qualname__}, which has no text")


# --- constraints ---------------------------------------------------------------------------------------------------

# The names of constraints in msgspec.Meta, annotated_types and pydantic. Other metadata does not change the bytes, so
# it does not count.
_CONSTRAINTS: Final = (
    ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern", "tz")
    + ("max_digits", "decimal_places", "allow_inf_nan", "strip_whitespace", "to_lower", "to_upper")
)  # fmt: skip
_LIBRARIES: Final = frozenset(("msgspec", "annotated_types", "pydantic"))
# In the classes of these libraries None means that a constraint was not given.
_WITH_NONE: Final = frozenset(("msgspec", "pydantic"))
_GROUP: Final = "__is_annotated_types_grouped_metadata__"
_ABSENT: Final = object()


def constraints(meta: _Value) -> Iterator[str]:
    """Yield the texts of the constraints in *meta*, one item of metadata in Annotated. Documentation has none."""
    if _is_group(meta):
        for part in itertools.islice(meta, 1000):  # a bound: the iterator is code of the user, and may never end
            yield from constraints(part)
        return
    libraries = _libraries(meta)
    if "pydantic" in libraries:
        yield from _PYDANTIC.get(type(meta).__name__, _no_texts)(meta)
    absent = None if libraries & _WITH_NONE else _ABSENT
    for name in _CONSTRAINTS if libraries else ():
        limit = getattr(meta, name, absent)
        if limit is not absent:
            yield f"{name}={zone_text(limit) if name == 'tz' else _limit_text(limit)}"


def _no_texts(_: _Value) -> Iterator[str]:
    return iter(())


def _field_texts(info: _Value) -> Iterator[str]:
    for name in ("alias", "validation_alias", "serialization_alias"):
        alias = getattr(info, name)
        if alias is not None:
            yield f"{name}={_alias_text(alias)}"
    for meta in info.metadata:
        yield from constraints(meta)


def _alias_text(alias: _Value) -> str:
    """Return the text of an alias of pydantic: a str, an AliasPath or AliasChoices."""
    if isinstance(alias, str | int):
        return literal_text(alias)
    parts = alias.path if hasattr(alias, "path") else alias.choices
    return f"{'path' if hasattr(alias, 'path') else 'choices'}({','.join(map(_alias_text, parts))})"


def _url_texts(limits: _Value) -> Iterator[str]:
    if limits.allowed_schemes is not None:
        yield f"allowed_schemes=({','.join(map(literal_text, limits.allowed_schemes))})"


def _encoder_texts(encoding: _Value) -> Iterator[str]:
    yield f"encoded={quoted(encoding.encoder.__name__)}"


# The classes of pydantic that change the bytes, or have more than the attributes in _CONSTRAINTS.
_PYDANTIC: Final[Mapping[str, Callable[[_Value], Iterator[str]]]] = {
    "FieldInfo": _field_texts,
    "Json": lambda _: iter(("json",)),
    "EncodedBytes": _encoder_texts,
    "EncodedStr": _encoder_texts,
    "UrlConstraints": _url_texts,
}


def _is_group(meta: object) -> bool:
    return hasattr(type(meta), _GROUP)


def _libraries(meta: object) -> frozenset[str]:
    return _LIBRARIES & {base.__module__.partition(".")[0] for base in type(meta).__mro__}


def _limit_text(limit: object) -> str:
    """Return the text of *limit*. Equal limits (1 and 1.0) have one text, because typing caches one type for both."""
    if isinstance(limit, int | float | decimal.Decimal | Fraction):
        return f"number:{Fraction(limit) if math.isfinite(limit) else float(limit)}"
    if isinstance(limit, datetime.datetime) and limit.utcoffset() is not None:
        limit = limit.astimezone(datetime.UTC)
    if isinstance(limit, datetime.datetime | datetime.time):
        return time_text(limit)
    if isinstance(limit, datetime.date):
        return f"date:{limit.isoformat()}"
    if isinstance(limit, datetime.timedelta):
        return f"timedelta:{limit // datetime.timedelta(microseconds=1)}"
    if isinstance(limit, re.Pattern):
        return _pattern_text(limit)
    return literal_text(limit)


def _pattern_text(pattern: _Value) -> str:
    flags = pattern.flags & ~re.UNICODE  # every pattern of text has this flag
    return literal_text(pattern.pattern) + (f" flags:{flags:d}" if flags else "")
