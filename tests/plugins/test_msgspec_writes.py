"""A value that a msgspec serializer writes comes back equal. Others are refused, and the error names only types."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import math
from collections import OrderedDict
from typing import Any, Final

import attrs
import msgspec
import pytest

from metacache import Client, Pool, SerializationError, Serializer, load_serializer
from metacache.testing import Memcached

FORMATS: Final = ("msgspec", "msgspec-json")
SECRET: Final = b"hunter2"


class Shade(enum.IntEnum):
    RED = 1


class Struct(msgspec.Struct):
    whole: int = 0
    real: float = 0.0
    text: str = ""
    row: list[int] = msgspec.field(default_factory=list)
    table: dict[str, int] = msgspec.field(default_factory=dict)
    either: int | str | None = 0
    moment: datetime.datetime = datetime.datetime(2020, 1, 1)
    group: set[int] = msgspec.field(default_factory=set)
    anything: Any = None  # Any: the test is about the values that msgspec then accepts
    reals: dict[str, list[float]] = msgspec.field(default_factory=dict)


@dataclasses.dataclass
class Data:
    whole: int = 0
    real: float = 0.0
    text: str = ""
    row: list[int] = dataclasses.field(default_factory=list)
    table: dict[str, int] = dataclasses.field(default_factory=dict)
    either: int | str | None = 0
    moment: datetime.datetime = datetime.datetime(2020, 1, 1)
    group: set[int] = dataclasses.field(default_factory=set)
    anything: Any = None  # Any: as above
    reals: dict[str, list[float]] = dataclasses.field(default_factory=dict)


class Loner(msgspec.Struct, eq=False):
    text: str = ""
    reals: set[float] = msgspec.field(default_factory=set)


@dataclasses.dataclass(eq=False)
class Hermit:
    text: str = ""
    reals: set[float] = dataclasses.field(default_factory=set[float])


@attrs.define(eq=False)
class Recluse:
    text: str = ""
    reals: set[float] = attrs.Factory(set[float])


class Empty(msgspec.Struct, eq=False):
    pass


# Any, here and below: the tests use values of wrong types.
UNFAITHFUL: Final[dict[str, tuple[Any, ...]]] = {
    "whole": (True, 1.0, "1", None, Shade.RED),
    "real": ("1", True, 2**53 + 1),
    "text": (1, None),
    "row": ((1, 2), {1}, [True], ["1"], None, "12"),
    "table": ({"a": 1.5}, {"a": True}, None, [("a", 1)], OrderedDict(b=1, a=2)),
    "either": (1.5, True, (1,)),
    "moment": ("2020-01-01", datetime.date(2020, 1, 1)),
    "group": ([1], (1, 2), frozenset((1,))),
    "anything": ((1, 2), {1}, [(1,)], {"a": {1}}, datetime.date(2020, 1, 1), Struct()),
}
# JSON has no bytes, and its keys are text.
UNFAITHFUL_IN_JSON: Final[dict[str, tuple[Any, ...]]] = {
    "text": (SECRET,),
    "table": ({1: 1}, {Shade.RED: 1}),
    "either": (SECRET,),
    "anything": (SECRET, {1: 1}, [SECRET], math.nan, {"a": [math.inf]}),
    "reals": ({"a": [math.nan]},),
}
FAITHFUL: Final[dict[str, tuple[Any, ...]]] = {
    "whole": (2**63 - 1,),
    "real": (5, -0.0, 0.1),
    "table": ({"b": 1, "a": 2},),
    "either": ("1", 1, None),
    "moment": (datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),),
    "group": ({1, 2, 1000}, set(map(str, ()))),
    "anything": (None, True, 1, [1, {"a": None}], "text"),
    "reals": ({"a": [1, 2.5]},),
}


def cases(table: dict[str, tuple[Any, ...]]) -> list[tuple[str, Any]]:
    return [(field, value) for field, values in table.items() for value in values]


def serializer_of(name: str, type_: Any) -> Serializer[Any]:
    return load_serializer(name, type_)


def check_refused(name: str, value: Any) -> None:
    with pytest.raises(SerializationError, match=r"^\$\.\w+[^ ]*: ") as raised:
        serializer_of(name, type(value)).dumps(value)
    assert SECRET.decode() not in str(raised.value)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("class_", [Struct, Data])
@pytest.mark.parametrize(("field", "value"), cases(UNFAITHFUL), ids=repr)
def test_a_value_that_would_come_back_changed_is_refused(name: str, class_: Any, field: str, value: Any) -> None:
    check_refused(name, class_(**{field: value}))


@pytest.mark.parametrize("class_", [Struct, Data])
@pytest.mark.parametrize(("field", "value"), cases(UNFAITHFUL_IN_JSON), ids=repr)
def test_json_refuses_values_that_only_messagepack_has(class_: Any, field: str, value: Any) -> None:
    check_refused("msgspec-json", class_(**{field: value}))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("class_", [Struct, Data])
@pytest.mark.parametrize(("field", "value"), cases(FAITHFUL), ids=repr)
def test_a_value_that_comes_back_equal_is_accepted(name: str, class_: Any, field: str, value: Any) -> None:
    serializer = serializer_of(name, class_)
    again = serializer.loads(serializer.dumps(class_(**{field: value})))
    assert again == class_(**{field: value})


@pytest.mark.parametrize("class_", [Struct, Data])
def test_nan_equals_nan_at_any_depth(class_: Any) -> None:
    serializer = serializer_of("msgspec", class_)
    given = class_(
        real=math.nan,
        reals={"a": [1, math.nan]},
        anything=[{"a": math.nan}, {"b": [math.inf]}],
    )
    assert repr(serializer.loads(serializer.dumps(given))) == repr(given).replace("[1, nan]", "[1.0, nan]")
    given.text = SECRET
    if class_ is Struct:
        check_refused("msgspec-json", given)
    given.text, given.row = "", (1, 2)
    check_refused("msgspec", given)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("class_", [Loner, Hermit, Recluse])
def test_objects_with_identity_equality_are_compared_by_their_fields(name: str, class_: Any) -> None:
    serializer = serializer_of(name, list[class_])
    (again,) = serializer.loads(serializer.dumps([class_("a", {1.0, 2.5})]))
    assert (again.text, again.reals) == ("a", {1.0, 2.5})
    for wrong in (class_("a", [1.0]), class_("a", (1.0,)), class_(1)):
        with pytest.raises(SerializationError, match=r"^\$\[0\]\.\w+: "):
            serializer.dumps([wrong])
    nothing = serializer_of(name, Empty)
    assert isinstance(nothing.loads(nothing.dumps(Empty())), Empty)


def test_nan_in_a_set_equals_nan() -> None:
    serializer = load_serializer("msgspec", set[float])
    again = serializer.loads(serializer.dumps({math.nan, 1.0, 2.0}))
    assert sorted(map(repr, again)) == ["1.0", "2.0", "nan"]


def test_the_error_names_the_types_and_the_key(shared_memcached: Memcached) -> None:
    wrong: Any = Data(text=SECRET)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # wrong on purpose
    reason = r"'writes': \$.text: expected str, got bytes$"
    with Client(Pool(shared_memcached.node), load_serializer("msgspec-json", Data), owns=True) as client:
        with pytest.raises(SerializationError, match=f"^set {reason}") as raised:
            client.set("writes", wrong)
        assert raised.value.__cause__ is None
        with pytest.raises(SerializationError, match=f"^set_many {reason}"):
            client.set_many({"other": Data(), "writes": wrong})
        assert client.get_many(["writes", "other"]) == {}
