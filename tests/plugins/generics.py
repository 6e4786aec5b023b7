"""Generic classes, aliases and recursive types of each kind."""

from __future__ import annotations

import dataclasses
from typing import Any, Generic, NamedTuple, NotRequired, Self, TypedDict, TypeVar

import attrs
import msgspec
import typing_extensions
from typing_extensions import TypeAliasType

T = TypeVar("T")
K = TypeVar("K")
Whole = TypeVar("Whole", bound=int)
Either = TypeVar("Either", int, str)
Defaulted = typing_extensions.TypeVar("Defaulted", default=int)


@dataclasses.dataclass
class Box(Generic[T]):
    held: T


@attrs.define
class Case(Generic[T]):
    held: T
    more: list[T] = attrs.field(factory=list)


class Cell(msgspec.Struct, Generic[T]):
    held: T


class IntBox(Box[int]):
    pass


@attrs.define
class Labelled(Case[int]):
    label: str = ""


@dataclasses.dataclass
class Both(Box[K], Generic[K, T]):
    """The T of Box is the K of this class."""

    other: T


@dataclasses.dataclass
class Deep(Both[str, list[int]]):
    last: float = 0.0


@dataclasses.dataclass
class Tree(Generic[T]):
    held: T
    children: list[Tree[T]] = dataclasses.field(default_factory=list["Tree[Any]"])


@dataclasses.dataclass
class Swapped(Generic[K, T]):
    """Contains itself with its type arguments swapped."""

    one: K
    other: T
    inner: Swapped[T, K] | None = None


@dataclasses.dataclass
class Me:
    name: str
    parent: Self | None = None


class Kid(Me):
    pass


class Row(NamedTuple, Generic[T]):
    held: T
    rest: list[T]


class Note(TypedDict, Generic[T]):
    held: T
    inner: NotRequired[Note[T]]


class IntNote(Note[int]):
    label: str


@dataclasses.dataclass
class Bounded(Generic[Whole]):
    held: Whole


@dataclasses.dataclass
class Chosen(Generic[Either]):
    held: Either


@dataclasses.dataclass
class Standing(Generic[Defaulted]):
    held: Defaulted


@dataclasses.dataclass
class Growing(Generic[T]):
    """Contains ever larger types of itself."""

    held: T
    inner: Growing[list[T]] | None = None


# Any: type checkers accept an alias only as a statement, and type expressions have no type.
alias: Any = TypeAliasType
parameters: Any = (T,)
Json: Any = alias("Json", "dict[str, Json] | list[Json] | str | int | None")
Ping: Any = alias("Ping", "list[Pong]")
Pong: Any = alias("Pong", "dict[str, Ping]")
Listed: Any = alias("Listed", list[parameters], type_params=parameters)
Nested: Any = alias("Nested", "T | list[Nested[T]]", type_params=parameters)
InTuple: Any = alias("InTuple", "tuple[int, InTuple | None]")
InRow: Any = alias("InRow", "Row[InRow] | int")
Boxes: Any = alias("Boxes", "Box[Boxes] | None")
Itself: Any = alias("Itself", "Itself")
Round: Any = alias("Round", "About | int")
About: Any = alias("About", "Round | str")
