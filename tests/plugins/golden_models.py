"""Types of pydantic whose fingerprints are the same on every version of pydantic from 2.7 on.

``python -m tests.plugins.golden_models`` fails if one differs on the installed version. `make test-pydantic` runs it on
several versions.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import json
import pathlib
import sys
import uuid
from pathlib import Path
from typing import Annotated, Any, Final, Generic, Literal, NotRequired, Optional, TypeVar

import pydantic
import pydantic.dataclasses
from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from typing_extensions import TypedDict

from metacache.serializers import fingerprint

GOLDEN: Final = Path(__file__).with_name("pydantic_fingerprints.json")

T = TypeVar("T")
K = TypeVar("K")


class Shade(enum.Enum):
    LIGHT = "light"
    DARK = "dark"


class Address(BaseModel):
    street: str
    zip: str = ""


class User(BaseModel):
    id: uuid.UUID = Field(default_factory=uuid.uuid4)
    name: Annotated[str, Field(min_length=1, max_length=80)]
    age: int = Field(ge=0, lt=200)
    addresses: list[Address] = []
    born: datetime.date | None = None
    joined: datetime.datetime = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    tags: set[str] = {"b", "a"}
    scores: dict[str, float] = Field(default_factory=dict[str, float])
    shade: Shade = Shade.LIGHT
    paid: decimal.Decimal = decimal.Decimal("1.50")


class Aliased(BaseModel):
    first: int = Field(alias="First")
    second: int = Field(validation_alias=AliasChoices("two", AliasPath("seconds", 0)), serialization_alias="Second")


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)
    first_name: str
    last_name: str = ""


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    whole: int


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    whole: int


class Plain(BaseModel):
    whole: int


class Documented(BaseModel):
    """Has the shape of Plain."""

    model_config = ConfigDict(title="Another", frozen=True, extra="ignore", json_schema_extra={"examples": [1]})
    whole: int = Field(title="Whole", description="A number.", examples=[1, 2], json_schema_extra={"x": 1})


class Seconds(BaseModel):
    model_config = ConfigDict(ser_json_timedelta="float")
    whole: int


class Tree(BaseModel, Generic[T]):
    held: T
    children: list[Tree[T]] = []


class Pair(BaseModel, Generic[T, K]):
    first: T
    second: list[K]


class Swapped(Pair[K, T], Generic[T, K]):
    third: T | None = None


class Ints(Pair[int, int]):
    pass


class Node(BaseModel):
    name: str
    next: Node | None = None


class Tags(pydantic.RootModel[list[str]]):
    pass


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    name: str = ""


class Odd(BaseModel):
    text: Annotated[str, pydantic.StringConstraints(pattern="^a+$", strip_whitespace=True, to_lower=True)] = "a"
    raw: pydantic.Base64Bytes = b""
    inner: pydantic.Json[list[int]] = [1]
    real: float = Field(1.0, allow_inf_nan=False)
    exact: decimal.Decimal = Field(decimal.Decimal(1), max_digits=4, decimal_places=2)
    home: pathlib.Path = pathlib.Path("/home")
    site: pydantic.HttpUrl | None = None
    secret: pydantic.SecretStr = pydantic.SecretStr("")
    positive: pydantic.PositiveInt = 1
    aware: pydantic.AwareDatetime | None = None
    queue: collections.deque[int] = collections.deque((1, 2))
    old: Optional[int] = None  # noqa: UP045 - the old spelling is part of the test


class Hidden(BaseModel):
    whole: int
    _count: int = pydantic.PrivateAttr(0)

    @pydantic.computed_field  # type: ignore[prop-decorator]  # mypy does not know this decorator of pydantic
    @property
    def twice(self) -> int:
        return 2 * self.whole


@pydantic.dataclasses.dataclass
class Point:
    x: int = Field(gt=0)
    y: Annotated[int, Field(alias="why")] = 0


@pydantic.dataclasses.dataclass(config=ConfigDict(extra="forbid"))
class ClosedPoint:
    x: int


class Row(TypedDict):
    whole: Annotated[int, Field(ge=1)]
    address: NotRequired[Address]


# Any: type expressions have no common type.
TYPES: Final[dict[str, Any]] = {
    "model": Address,
    "model of many types": User,
    "aliases": Aliased,
    "alias generator": Camel,
    "plain": Plain,
    "documented": Documented,
    "extra allow": Open,
    "extra forbid": Closed,
    "timedelta as float": Seconds,
    "tree": Tree[int],
    "bare tree": Tree,
    "tree of trees": Tree[Tree[str]],
    "pair": Pair[int, str],
    "swapped": Swapped[int, str],
    "bound by a base": Ints,
    "self reference": Node,
    "root model": Tags,
    "parametrised root model": pydantic.RootModel[dict[str, int]],
    "union": Cat | Dog,
    "discriminated union": Annotated[Cat | Dog, Field(discriminator="kind")],
    "constraints and special types": Odd,
    "private and computed": Hidden,
    "dataclass": Point,
    "closed dataclass": ClosedPoint,
    "typed dict": Row,
    "constrained int": Annotated[int, Field(gt=3, multiple_of=2)],
    "list of models": list[Address],
    "optional model": Address | None,
    "http url": pydantic.HttpUrl,
    "any url": pydantic.AnyUrl,
}  # fmt: skip


def found() -> dict[str, int]:
    """Return the fingerprints on the installed version of pydantic."""
    return {name: fingerprint(type_) for name, type_ in TYPES.items()}


def main() -> None:
    expected: dict[str, int] = json.loads(GOLDEN.read_text())
    wrong = [name for name, each in found().items() if expected.get(name) != each]
    if wrong or len(expected) != len(TYPES):
        sys.exit(f"pydantic {pydantic.VERSION}: other fingerprints for {', '.join(wrong)}")
    print(f"pydantic {pydantic.VERSION}: the same {len(TYPES)} fingerprints")  # noqa: T201


if __name__ == "__main__":
    main()
