"""A type of every kind that has a fingerprint. Imports only pure Python: attrs, annotated_types, typing_extensions."""

from __future__ import annotations

import array
import collections
import collections.abc
import dataclasses
import datetime
import decimal
import enum
import fractions
import http
import ipaddress
import numbers
import pathlib
import re
import types
import typing
import urllib.parse
import uuid
import zoneinfo
from collections.abc import Callable
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    Generic,
    Literal,
    LiteralString,
    NamedTuple,
    Never,
    NewType,
    NoReturn,
    NotRequired,
    Optional,
    Required,
    Self,
    TypeVarTuple,
    Union,
    Unpack,
)

import annotated_types
import attrs
import typing_extensions
from typing_extensions import Doc, ReadOnly, TypeAliasType, TypedDict, TypeVar

T = TypeVar("T")
K = TypeVar("K")
D = TypeVar("D", default=int)
B = TypeVar("B", bound=decimal.Decimal)
Ts = TypeVarTuple("Ts")


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

Json = TypeAliasType("Json", "dict[str, Json] | list[Json] | str | int | float | bool | None")
Nested = TypeAliasType("Nested", "list[Nested[T]] | T", type_params=(T,))
Left = TypeAliasType("Left", "list[Right]")
Right = TypeAliasType("Right", "dict[str, Left]")
Amount = NewType("Amount", UserId)


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Strict(enum.IntFlag, boundary=enum.STRICT):
    A = 1
    B = 2


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2


class Level(str, enum.Enum):  # noqa: UP042 - the old spelling
    LOW = "low"
    HIGH = "high"


@attrs.frozen
class Box(Generic[T]):
    held: T


@dataclasses.dataclass
class Link:
    following: Self | None
    kinds: ClassVar[int] = 0


@dataclasses.dataclass
class Seeded:
    low: int
    seed: dataclasses.InitVar[int]


@dataclasses.dataclass
class Base(Generic[T]):
    value: T


@dataclasses.dataclass
class Narrowed(Base[int]):
    name: str


@dataclasses.dataclass
class Swapped(Base[list[T]], Generic[T, K]):
    key: K
    other: T


@dataclasses.dataclass
class Many(Generic[T, *Ts]):
    first: T
    rest: tuple[*Ts]


@dataclasses.dataclass
class Defaulted(Generic[B, D]):
    amount: B
    number: D


class Entry(TypedDict, Generic[T]):
    held: T
    following: NotRequired[Entry[T]]


class Row(NamedTuple, Generic[T]):
    cells: list[T]


@attrs.define
class Left1:
    right: Right1 | None


@attrs.define
class Right1:
    left: Left1 | None
    right: Right1 | None


@dataclasses.dataclass
class Computed:
    a: int
    b: int = dataclasses.field(default=3, init=False)


@attrs.define
class ComputedToo:
    a: int
    b: list[int] = attrs.field(factory=list[int], init=False)


Plain = collections.namedtuple("Plain", "x y")  # pyright: ignore[reportUntypedNamedTuple] - that is under test


class Shop:
    """Not a record, so it counts by its name."""


class Greets(typing.Protocol):
    def greet(self) -> str: ...


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
    # Forms of typing.
    "final": Final[int],
    "new type of a new type": Amount,
    "annotated without a constraint": Annotated[int, Doc("in cents"), {"unit": "c"}, ["unhashable"]],
    "constrained": Annotated[int, annotated_types.Gt(0)],
    "constrained by groups": Annotated[list[int], annotated_types.Len(1, 5), annotated_types.Interval(gt=0, le=9)],
    "constrained by other types": Annotated[decimal.Decimal, annotated_types.Ge(decimal.Decimal("1.50"))],
    "constrained by a time": Annotated[
        datetime.datetime, annotated_types.Lt(datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC))
    ],
    "with a time zone": Annotated[datetime.datetime, annotated_types.Timezone("Europe/Berlin")],
    "with any time zone": Annotated[datetime.datetime, annotated_types.Timezone(...)],
    "without a time zone": Annotated[datetime.datetime, annotated_types.Timezone(None)],
    "literal of an enum": Literal[Color.RED],
    "literal of an enum and a str": Literal[Color.RED, "red"],
    "literal of bytes": Literal[b"red"],
    "literal str": LiteralString,
    "never": Never,
    "no return": NoReturn,
    "type": type[int],
    "type of a record": type[Data],
    "bare type": type,
    "callable": Callable[[int, str], bool],
    "callable of anything": Callable[..., int],
    "bare callable": collections.abc.Callable,  # pyright: ignore[reportUnknownMemberType] - it has no arguments
    "self": Link,
    "init var and class var": Seeded,
    # Tuples.
    "tuple": tuple,
    "old tuple": typing.Tuple,  # noqa: UP006
    "empty tuple": tuple[()],
    "old row": typing.Tuple[int, ...],  # noqa: UP006
    "tuple with a tail": tuple[int, Unpack[tuple[str, ...]]],  # noqa: UP044 - both spellings are one type
    "tuple with a tail, new spelling": tuple[int, *tuple[str, ...]],
    "tuple with a tuple": tuple[int, tuple[str, ...]],
    # Containers.
    "old list": typing.List[int],  # noqa: UP006
    "bare old dict": typing.Dict,  # noqa: UP006
    "ordered dict": collections.OrderedDict[str, int],
    "counter": collections.Counter[str],
    "default dict": collections.defaultdict[str, list[int]],
    "chain map": collections.ChainMap[str, int],
    "mutable sequence": collections.abc.MutableSequence[int],
    "abstract set": collections.abc.Set[int],
    "mutable set": collections.abc.MutableSet[int],
    "mutable mapping": collections.abc.MutableMapping[str, int],
    "collection": collections.abc.Collection[int],
    "iterable": collections.abc.Iterable[int],
    "iterator": collections.abc.Iterator[int],
    "hashable": collections.abc.Hashable,
    "mapping proxy": types.MappingProxyType[str, int],
    "array": array.array,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "range": range,
    # Classes of the standard library.
    "object": object,
    "complex": complex,
    "path": pathlib.Path,
    "pure path": pathlib.PurePath,
    "posix path": pathlib.PurePosixPath,
    "address": ipaddress.IPv4Address,
    "network": ipaddress.IPv6Network,
    "fraction": fractions.Fraction,
    "pattern": re.Pattern[str],
    "bare pattern": re.Pattern,
    "zone": zoneinfo.ZoneInfo,
    "tzinfo": datetime.tzinfo,
    "status": http.HTTPStatus,
    "url": urllib.parse.SplitResult,
    "number": numbers.Number,
    "supports int": typing.SupportsInt,
    "namespace": types.SimpleNamespace,
    # Enums.
    "flag": Access,
    "strict flag": Strict,
    "int enum": Size,
    "str enum": Level,
    # Aliases.
    "recursive alias": Json,
    "optional recursive alias": Json | None,
    "recursive alias of a parameter": Nested[int],
    "alias of an alias": Left,
    "the other alias": Right,
    # Generic classes.
    "box": Box[int],
    "bare box": Box,
    "box in a box": Box[list[Box[int]]],
    "box of a box of str": Box[list[Box[str]]],
    "box of an alias": Box[Names],
    "narrowed": Narrowed,
    "swapped": Swapped[int, str],
    "swapped the other way": Swapped[str, int],
    "many": Many[int, str, bytes],
    "one of many": Many[int],
    "bare many": Many,
    "defaulted": Defaulted,
    "defaulted, given": Defaulted[decimal.Decimal, str],
    "entry": Entry[int],
    "generic row": Row[int],
    "generic row of str": Row[str],
    # Records.
    "each other": Left1,
    "each other, from the other end": Right1,
    "computed": Computed,
    "computed, in attrs": ComputedToo,
    "named tuple without types": Plain,
    "required": typing_extensions.Required[int],
    # Classes that count by their names.
    "class": Shop,
    "list of a class": list[Shop],
    "protocol": Greets,
}
