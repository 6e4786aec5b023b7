"""`are_same` finds only such values the same as `Comparer` does, and writes are refused with and without it alike.

METACACHE_EXAMPLES sets the number of examples of each test.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import datetime
import decimal
import enum
import math
import os
import struct
import sys
import uuid
import zoneinfo
from typing import Any, Final, TypeAlias
from unittest.mock import patch

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from metacache import SerializationError, Serializer, load_serializer
from metacache.acceleration import are_same
from metacache.serializers import comparison
from metacache.serializers.comparison import Comparer
from metacache.serializers.mismatches import Mismatch

pytestmark = pytest.mark.usefixtures("primitives")

MANY: Final = settings(max_examples=int(os.environ.get("METACACHE_EXAMPLES", "300")))
Value: TypeAlias = Any
"""Any: values of every class."""


class Shade(enum.IntEnum):
    RED = 1


class Text(str):
    __slots__ = ()


class Whole(int):
    pass


class Record(msgspec.Struct):
    one: Value = None
    real: float = 0.0
    more: Value = None


class Single(msgspec.Struct, eq=False):
    one: Value = None


class Empty(msgspec.Struct, eq=False):
    pass


@dataclasses.dataclass
class Data:
    one: Value = None
    real: float = 0.0


@dataclasses.dataclass
class Late:
    one: Value = None
    late: Value = dataclasses.field(default=None, init=False)


@dataclasses.dataclass(eq=False)
class Liar:
    one: Value = None

    @override
    def __eq__(self, _: object) -> bool:
        return True


@attrs.define(eq=False)
class Recluse:
    one: Value = None


class Model(pydantic.BaseModel):
    one: Value = None
    two: Value = None
    _hidden: int = 0


RECORDS: Final[tuple[Value, ...]] = (Record, Single, Data, Late, Liar, Recluse)
MOMENT: Final = datetime.datetime(2026, 1, 2, 3)
ZONES: Final = (
    None,
    datetime.UTC,
    datetime.timezone(datetime.timedelta()),
    datetime.timezone(datetime.timedelta(hours=1)),
    datetime.timezone(datetime.timedelta(0), "Z"),
    zoneinfo.ZoneInfo("UTC"),
)
OTHER_NAN: Final[float] = struct.unpack("d", struct.pack("Q", 0x7FF8000000000001))[0]
# Few, so that two of them are often equal, with or without the same class.
LEAVES: Final[list[Value]] = [
    None, False, True, 0, 1, 0.0, -0.0, 1.0, "", "a", b"", b"a", Shade.RED, Text("a"), Whole(1), math.nan, OTHER_NAN,
    math.inf, 2**53 + 1, float(2**53), 2**80, "\ud800", bytearray(b"a"), decimal.Decimal("NaN"),
    decimal.Decimal("sNaN"), decimal.Decimal("1"), decimal.Decimal("1.0"), uuid.UUID(int=1), complex(0, -0.0),
    MOMENT.date(), int, Empty(), datetime.timedelta(1), datetime.timedelta(2), set(), {1}, {True}, {1.0}, {1, "a"},
    {"a"}, {"b"}, frozenset(), frozenset("a"),
    *(MOMENT.replace(tzinfo=zone, fold=fold) for zone in ZONES for fold in (0, 1)),
    *(datetime.time(1, tzinfo=zone) for zone in ZONES),
]  # fmt: skip
KEYS: Final = st.sampled_from([0, 1, 1.0, True, "a", "b", b"a", None, (1,), (True,), frozenset((1,))])


def grown(inner: st.SearchStrategy[Value]) -> st.SearchStrategy[Value]:
    """Return a strategy for values whose parts are of *inner*."""
    few = st.lists(inner, max_size=3)
    containers: list[st.SearchStrategy[Value]] = [
        few,
        few.map(tuple),
        few.map(lambda parts: collections.deque(parts, 5)),
        st.dictionaries(KEYS, inner, max_size=3),
        st.builds(Record, inner, st.sampled_from([0.0, 1.0, 1]), inner),
        *[st.builds(class_, inner) for class_ in RECORDS],
        st.builds(Model, one=inner),
    ]
    return st.one_of(containers)


VALUES: Final = st.recursive(st.sampled_from(LEAVES), grown, max_leaves=8)


def class_of(value: object) -> type[object]:
    return type(value)


def twisted(value: Value, draw: Any) -> Value:  # Any: of st.data
    """Return a copy of *value* with one part replaced, or in another order."""
    kind = class_of(value)
    if kind in (list, tuple) and value:
        index = draw(st.integers(0, len(value) - 1))
        parts = [*value[:index], twisted(value[index], draw), *value[index + 1 :]]
        return parts if kind is list else tuple(parts)
    if kind is dict and value:
        key = draw(st.sampled_from(list(value)))
        changed = {**value, key: twisted(value[key], draw)}
        return draw(st.sampled_from([changed, dict(reversed(changed.items())), dict(reversed(value.items()))]))
    if kind in RECORDS or kind is Model:
        name = draw(st.sampled_from(["one", "real" if kind in (Record, Data) else "one"]))
        again = copy.copy(value)
        setattr(again, name, twisted(getattr(value, name), draw))
        return again
    return draw(st.sampled_from(LEAVES))


def verdict(value: Value, decoded: Value) -> bool | str:
    """Return what Python code alone says: whether a part has another class, or why the values are not the same."""
    with patch.object(comparison, "are_same", None):
        try:
            return Comparer().check(value, decoded)
        except Mismatch as found:
            return found.text


def check_pair(value: Value, decoded: Value) -> None:
    """Check that the primitive changes no verdict."""
    assert are_same is not None
    expected = verdict(value, decoded)
    comparer = Comparer()
    for _ in range(2):  # the second time it knows the classes
        try:
            found: bool | str = comparer.check(value, decoded)
        except Mismatch as mismatch:
            found = mismatch.text
        assert found == expected
    if are_same(value, decoded, comparer._fields):
        assert expected is False


@MANY
@given(value=VALUES, data=st.data())
def test_what_the_primitive_finds_the_same_python_finds_the_same(value: Value, data: st.DataObject) -> None:
    again = copy.deepcopy(value)
    for decoded in (again, twisted(value, data.draw), twisted(again, data.draw), data.draw(VALUES)):
        check_pair(value, decoded)


def test_no_two_simple_values_are_confused() -> None:
    others = copy.deepcopy(LEAVES)
    for value in LEAVES:
        for decoded in others:
            check_pair(value, decoded)
            check_pair(Single([value]), Single([decoded]))


@pytest.mark.parametrize(
    "value",
    [
        [1, 2.5, "text" * 9, b"bytes", None, True],
        {"a": {"b": (2**70, -0.0)}},
        {"some", "text"},
        frozenset((2**70, 2)),
        Record([1], 2.5, {"a": Single((Empty(),))}),
        [Data("a b"), Liar("c d"), Recluse("e f")],
        [MOMENT, MOMENT.replace(tzinfo=datetime.UTC), datetime.time(1), MOMENT.date(), uuid.uuid4()],
    ],
    ids=range(7),
)
def test_usual_values_are_decided_by_the_primitive(value: Value) -> None:
    comparer = Comparer()
    again = copy.deepcopy(value)
    comparer.check(value, again)
    assert are_same is not None
    assert are_same(value, again, comparer._fields)
    pydantic_models = Model(one=value), Model(one=again)
    comparer.check(*pydantic_models)
    assert are_same(*pydantic_models, comparer._fields)


def test_deep_values_are_left_to_python() -> None:
    assert are_same is not None
    for levels, is_decided in ((50, True), (51, False)):
        one: Value = [1.5]
        for _ in range(levels - 1):
            one = [one]
        assert are_same(one, copy.deepcopy(one), {}) is is_decided
    endless: list[Value] = []
    endless.append(endless)
    other: list[Value] = []
    other.append(other)
    assert not are_same(endless, other, {})


def test_what_code_of_the_user_does_is_survived() -> None:
    """An attribute may raise, and may change the lists and dicts that contain it."""
    assert are_same is not None
    held: list[Value] = []
    table: dict[str, Value] = {}

    class Odd:
        @property
        def failing(self) -> Value:
            raise KeyError("mine")

        @property
        def clearing(self) -> Value:
            held.clear()
            table.clear()
            return 1

    with pytest.raises(KeyError, match="mine"):
        are_same([Odd()], [Odd()], {Odd: ("failing",)})
    held.extend([Odd(), "a", "b"])
    are_same(held, [Odd(), "a", "b"], {Odd: ("clearing",)})
    table.update(a=Odd(), b=1)
    are_same(table, {"a": Odd(), "b": 1}, {Odd: ("clearing",)})
    malformed: list[Value] = [[1], [()], "text", {}]
    for each in malformed:
        assert not are_same([Odd()], [Odd()], {Odd: each})
    wrong_names: list[Value] = [[(1, 2)], (1,)]
    for each in wrong_names:
        with pytest.raises(TypeError, match="attribute name"):
            are_same([Odd()], [Odd()], {Odd: each})
    with pytest.raises(TypeError, match="two values and a dict"):
        are_same(1, 2, [])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # wrong on purpose


def test_no_reference_is_kept_or_lost() -> None:
    assert are_same is not None
    comparer = Comparer()
    value: Value = [
        Record([b"a" * 9], 2.5, {"k" * 9: MOMENT.replace(tzinfo=datetime.UTC)}),
        {2**70},
        ("t" * 9,),
        Data(1),
    ]
    again: Value = copy.deepcopy(value)
    comparer.check(value, again)
    other = copy.deepcopy(value)
    other[0].more = None
    shared = (*value, *again, value[0].one[0], value[0].more, Record, Data, datetime.UTC, comparer._fields[Record])
    before = list(map(sys.getrefcount, shared))
    for _ in range(1000):
        are_same(value, again, comparer._fields)
        are_same(value, other, comparer._fields)
    assert list(map(sys.getrefcount, shared)) == before


TYPES: Final[tuple[Value, ...]] = (
    Record, Data, list[float | int], list[float], dict[str, list[Record]], set[int | str], tuple[int, str], int, float,
    Record | Single | None, datetime.datetime, dict[int, float], list[bool | int], bytes, Value,
)  # fmt: skip
SERIALIZERS: Final[dict[tuple[str, int], Serializer[Value]]] = {}
NAMES: Final = ("msgspec", "msgspec-json", "orjson", "pydantic")


def write(name: str, number: int, value: Value) -> object:
    """Return the bytes, or the error, of a write as the type TYPES[number]; None if it is not served."""
    if (name, number) not in SERIALIZERS:
        try:
            SERIALIZERS[name, number] = load_serializer(name, TYPES[number])
        except TypeError:
            return None
    try:
        return SERIALIZERS[name, number].dumps(value)
    except SerializationError as error:
        return str(error)


@MANY
@given(name=st.sampled_from(NAMES), number=st.integers(0, len(TYPES) - 1), value=VALUES)
def test_writes_are_refused_with_and_without_the_primitive_alike(name: str, number: int, value: Value) -> None:
    with patch.object(comparison, "are_same", None):
        expected = write(name, number, value)
    assert write(name, number, value) == expected
