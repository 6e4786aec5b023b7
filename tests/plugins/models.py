"""Models of pydantic with well-behaved and with strange values, for tests of the pydantic serializer."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import functools
import pathlib
import threading
import uuid
from typing import Any, Final, Generic, Literal, NotRequired, TypeVar

import pydantic
import pydantic.dataclasses
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr
from pydantic.alias_generators import to_camel
from typing_extensions import TypedDict, override

T = TypeVar("T")


class Shade(enum.Enum):
    LIGHT = "light"
    DARK = "dark"


class Address(BaseModel):
    street: str
    zip: str = ""


class FullAddress(Address):
    country: str = "GB"


class User(BaseModel):
    name: str
    age: int = Field(default=3, gt=0)
    ratio: float = 1.0
    addresses: list[Address] = []
    moment: datetime.datetime = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    hour: datetime.time = datetime.time(1)
    span: datetime.timedelta = datetime.timedelta(1)
    tags: set[str] = set()
    pairs: frozenset[tuple[int, int]] = frozenset()
    anything: Any = None  # Any: the test is about the values that pydantic then accepts
    home: pathlib.Path = pathlib.Path("/")
    site: pydantic.HttpUrl | None = None
    raw: bytes = b""
    paid: decimal.Decimal = decimal.Decimal("1.50")
    either: str | uuid.UUID = ""
    shade: Shade = Shade.LIGHT
    table: dict[int, str] = {}
    row: tuple[int, str] = (1, "a")
    queue: collections.deque[int] = collections.deque()
    friend: User | None = None


class Event(BaseModel):
    """Its defaults are new ones at each read."""

    id: uuid.UUID = Field(default_factory=uuid.uuid4)
    at: datetime.datetime = Field(default_factory=lambda: datetime.datetime.now(datetime.UTC))
    name: str = ""


class Log(BaseModel):
    model_config = ConfigDict(frozen=True)
    events: list[Event]
    last: dict[str, Event] = {}


class Counted(BaseModel):
    name: str = ""
    _count: int = PrivateAttr(0)


class PostInit(BaseModel):
    size: int
    _twice: int = 0

    @override
    def model_post_init(self, _: object, /) -> None:
        self._twice = 2 * self.size


class Locked(BaseModel):
    _lock: Any = PrivateAttr(default_factory=threading.Lock)  # Any: threading.Lock is no class


class Secret(BaseModel):
    password: pydantic.SecretStr


class Hidden(BaseModel):
    shown: int = 0
    hidden: str = Field(default="usual", exclude=True)


class HiddenAndRequired(BaseModel):
    hidden: str = Field(exclude=True)


class Box(BaseModel, Generic[T]):
    held: T


class Tree(BaseModel, Generic[T]):
    held: T
    children: list[Tree[T]] = []


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    name: str = ""


class Tags(pydantic.RootModel[list[str]]):
    pass


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)
    first_name: str
    other: int = Field(default=0, validation_alias="another")


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    whole: int = 0


class Assigned(BaseModel):
    model_config = ConfigDict(validate_assignment=True)
    whole: int = 0


class Computing(BaseModel):
    size: int

    @pydantic.computed_field  # type: ignore[prop-decorator]  # mypy does not know this decorator of pydantic
    @property
    def twice(self) -> int:
        return 2 * self.size

    @functools.cached_property
    def half(self) -> float:
        return self.size / 2


class Doubled(BaseModel):
    """Its validator changes the value, again at each read."""

    size: int

    @pydantic.field_validator("size")
    @classmethod
    def double(cls, size: int) -> int:
        return 2 * size


class Rounded(BaseModel):
    """Its serializer loses a part of the value."""

    real: float

    @pydantic.field_serializer("real")
    def rounded(self, real: float) -> float:
        return round(real)


class Revealed(BaseModel):
    """Its serializer stores the secret."""

    password: pydantic.SecretStr

    @pydantic.field_serializer("password")
    def reveal(self, password: pydantic.SecretStr) -> str:
        return password.get_secret_value()


@pydantic.dataclasses.dataclass
class Point:
    x: int = Field(gt=0)
    y: list[Address] = Field(default_factory=list[Address])


@pydantic.dataclasses.dataclass(config=ConfigDict(extra="allow"))
class OpenPoint:
    x: int = 1


class Row(TypedDict):
    whole: int
    address: NotRequired[Address]


def changed(model: Any, **parts: Any) -> Any:  # Any: a model, and values of wrong types
    """Return *model* with *parts* set without validation."""
    for name, part in parts.items():
        model.__dict__[name] = part
        model.__pydantic_fields_set__.add(name)
    return model


def cyclic() -> User:
    user = User(name="a")
    return changed(user, friend=user)  # type: ignore[no-any-return]


SECRET: Final = "hunter2"
