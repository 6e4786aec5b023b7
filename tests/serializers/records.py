"""Classes with well-behaved and with strange values, for tests of round trips."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any, Final, Generic, NamedTuple, NotRequired, TypedDict, TypeVar

import attrs
import msgspec
from typing_extensions import TypeAliasType, override

__all__ = [
    "SERIALIZERS", "Addressed", "Boxed", "Chosen", "Computed", "Doubled", "EqualToEverything", "Json", "Keyed", "Later",
    "Leaf", "Liar", "LowerCase", "Node", "Note", "Pair", "Perm", "Place", "Positive", "Private", "Row", "Tuned",
    "Unequal", "Widened",
]  # fmt: skip

T = TypeVar("T")

SERIALIZERS: Final = ("json", "msgspec", "msgspec-json", "orjson", "attrs")


class Perm(enum.IntFlag):
    READ = 1
    WRITE = 2


class Chosen(enum.Flag):
    LEFT = 1
    RIGHT = 2


@dataclasses.dataclass
class Place:
    street: str
    zip: str = ""


@dataclasses.dataclass
class Addressed:
    name: str
    addrs: list[Place]
    scores: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Later:
    """A class with a field that its constructor does not take."""

    name: str
    label: str = dataclasses.field(default="", init=False)


@dataclasses.dataclass
class Computed:
    """A class whose constructor computes one field from another."""

    size: int
    twice: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.twice = 2 * self.size


@dataclasses.dataclass
class Doubled:
    """A class whose constructor changes its argument, again at each read."""

    size: int

    def __post_init__(self) -> None:
        self.size *= 2


@dataclasses.dataclass
class Widened:
    """A class whose constructor makes a float, although the type of the field is not float."""

    size: Any  # Any: the type must not say float

    def __post_init__(self) -> None:
        self.size = float(self.size)


class EqualToEverything:
    """A base class whose values are equal to everything."""

    @override
    def __eq__(self, _: object) -> bool:
        return True

    @override
    def __hash__(self) -> int:
        return 1


@dataclasses.dataclass(eq=False)
class Liar(EqualToEverything):
    name: str
    label: str = dataclasses.field(default="", init=False)


@attrs.define(eq=False)
class Unequal:
    """A class whose values are equal only to themselves."""

    size: int


@attrs.define
class Positive:
    """A class with a validator, which does not run on assignment."""

    size: int = attrs.field(validator=attrs.validators.gt(0), on_setattr=attrs.setters.NO_OP)


def lowered(text: str) -> str:
    return text.lower()


def length(text: str) -> int:
    return len(text)


@attrs.define
class LowerCase:
    """A class with a converter, which does not run on assignment."""

    name: str = attrs.field(converter=lowered, on_setattr=attrs.setters.NO_OP)


@attrs.define
class Tuned:
    """A class with a converter that does not accept its own result."""

    size: int = attrs.field(converter=length)


@attrs.define
class Private:
    _size: int
    shown: int = 0


@dataclasses.dataclass(kw_only=True, frozen=True, slots=True)
class Keyed:
    size: int
    ratio: float = 1.0


@attrs.frozen
class Leaf:
    size: int
    ratio: float


class Row(NamedTuple):
    size: int
    ratio: float = 0.0


class Note(TypedDict):
    text: str
    inner: NotRequired[Note]


class Pair(msgspec.Struct):
    first: int
    second: float = 0.0


@dataclasses.dataclass
class Boxed(Generic[T]):
    held: T


@attrs.define
class Node(Generic[T]):
    held: T
    children: list[Node[T]] = attrs.field(factory=list["Node[T]"])


make_alias: Any = TypeAliasType  # Any: type checkers accept an alias only as a statement
Json: Any = make_alias("Json", "dict[str, Json] | list[Json] | str | int | None")
