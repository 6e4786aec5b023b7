"""A type of every kind that has a fingerprint. Needs attrs and typing_extensions alone: any Python can load it."""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import datetime
import decimal
import enum
import uuid
from typing import (
    Annotated,
    Any,
    Final,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    Required,
    TypeVar,
    Union,
)

import attrs
from typing_extensions import ReadOnly, TypeAliasType, TypedDict

T = TypeVar("T")
K = TypeVar("K")


class Color(enum.Enum):
    RED = "red"
    BLUE = 2


class Flags(enum.IntFlag):
    A = 1
    B = 2


class Point(NamedTuple):
    x: int
    y: float = 0.0


class Note(TypedDict):
    text: Required[str]
    at: NotRequired[datetime.datetime]
    by: ReadOnly[str]


class Loose(TypedDict, total=False):
    text: str


@dataclasses.dataclass
class Data:
    number: int
    names: list[str]
    color: Color | None = None


@attrs.frozen
class Tree:
    name: str
    parent: Tree | None = None
    children: list[Tree] = attrs.field(factory=list["Tree"])


@attrs.frozen
class Pair(Generic[K, T]):
    first: K
    second: list[T]


@dataclasses.dataclass
class Bound:
    low: Annotated[int, "documentation"]


UserId = NewType("UserId", int)
Names = TypeAliasType("Names", list[str])

TYPES: Final[dict[str, object]] = {
    "None": None,
    "bool": bool,
    "int": int,
    "float": float,
    "str": str,
    "bytes": bytes,
    "datetime": datetime.datetime,
    "date": datetime.date,
    "time": datetime.time,
    "timedelta": datetime.timedelta,
    "uuid": uuid.UUID,
    "decimal": decimal.Decimal,
    "any": Any,
    "list": list,
    "list of int": list[int],
    "set of str": set[str],
    "frozenset of str": frozenset[str],
    "deque of int": collections.deque[int],
    "dict of int": dict[str, int],
    "mapping of int": collections.abc.Mapping[str, int],
    "sequence of int": collections.abc.Sequence[int],
    "pair": tuple[int, str],
    "row": tuple[int, ...],
    "optional": Optional[int],  # noqa: UP045 - both spellings are one type
    "optional, new spelling": int | None,
    "union": Union[str, int, None],  # noqa: UP007 - as above
    "union, other order": None | int | str,
    "literal": Literal["a", 1, True, None],
    "literal, other order": Literal[None, True, 1, "a"],
    "literal with separators": Literal["a,b;c(d)"],
    "enum": Color,
    "flags": Flags,
    "named tuple": Point,
    "typed dict": Note,
    "typed dict, not total": Loose,
    "dataclass": Data,
    "attrs": Tree,
    "generic": Pair[str, int],
    "generic of records": Pair[UserId, Data],
    "annotated": Bound,
    "new type": UserId,
    "alias": Names,
    "nested": dict[str, list[tuple[Data, Tree | Note | None]]],
}
