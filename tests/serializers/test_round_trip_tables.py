"""A value that `dumps` accepts comes back the same; for a refused value the error names the part.

The table says for each type and value which serializers store it. ALL: every serializer that serves the type.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import math
import uuid
from collections.abc import Mapping
from typing import Any, Final, Literal

import pytest

from metacache import InvalidTypeError, SerializationError, Serializer, load_serializer
from metacache.serializers import difference
from tests.ids import stable
from tests.serializers import records

# Any: the tests use wrong values of these classes.
R: Final[Any] = records


class Number(int):
    pass


class Text(str):
    __slots__ = ()


class Level(enum.IntEnum):
    LOW = 1


def changed(value: Any, **attributes: object) -> Any:  # Any: of any class
    for name, attribute in attributes.items():
        object.__setattr__(value, name, attribute)
    return value


# Any, here and below: types and values of every kind, also wrong ones.
ALL: Final = frozenset(records.SERIALIZERS)
MSGSPEC: Final = frozenset(("msgspec", "msgspec-json"))
PACKED: Final = frozenset(("msgspec",))
NONE: Final = frozenset[str]()
BIG: Final = frozenset(("json", "msgspec-json", "attrs"))

_NAN: Final = decimal.Decimal("NaN")
_MIXED: Final = {1, "a", 2, "b", 3, "c"}

TABLE: Final[list[tuple[Any, Any, frozenset[str]]]] = [
    # numbers
    (int, 1, ALL),
    (int, True, NONE),
    (int, 1.0, NONE),
    (int, Number(1), NONE),
    (int, Level.LOW, NONE),
    (int, 2**64 - 1, ALL),
    (int, 2**64, BIG),
    (int, -(2**63) - 1, BIG),
    (bool, True, ALL),
    (bool, 1, NONE),
    (float, 1.5, ALL),
    (float, -0.0, ALL),
    (float, math.nan, PACKED),
    (float, math.inf, PACKED),
    (float, True, NONE),
    (float, "1", NONE),
    # an int where the type says float, at any depth
    (float, 1, ALL),
    (float, 2**53, ALL),
    (float, 2**53 + 1, NONE),
    (float, 10**400, NONE),
    (float, Number(1), NONE),
    (list[float], [1, 2.5], ALL),
    (list[float], [True], NONE),
    (dict[str, float], {"a": 1}, ALL),
    (dict[str, list[float | None]], {"a": [None, 1]}, ALL),
    (tuple[float, ...], (1,), ALL),
    (set[float], {1}, ALL),
    (int | float, 1, ALL),
    (int | float | str, 1, ALL),
    (float | None, 2**53 + 1, NONE),
    (float | None, None, ALL),
    (R.Keyed, R.Keyed(size=1, ratio=2), ALL),
    (R.Leaf, R.Leaf(1, 2), ALL),
    (R.Leaf, R.Leaf(1, ratio=True), NONE),
    (R.Row, R.Row(1, 2), ALL),
    (R.Pair, R.Pair(1, 2), ALL),
    (R.Boxed[float], R.Boxed(1), ALL),
    (R.Boxed[Any], R.Boxed(1), ALL),
    (Any, 1, ALL),
    (dict[float, int], {1: 1}, ALL),
    # text and bytes
    (str, "Zoë", ALL),
    (str, Text("a"), NONE),
    (str, "\ud800", NONE),
    (str, b"a", NONE),
    (bytes, b"\xff", ALL),
    (bytes, bytearray(b"a"), NONE),
    (list[str], ["a", "\udfff"], NONE),
    (list[str], ["a"], ALL),
    (dict[str, int], {"\ud800": 1}, NONE),
    # containers
    (list[int], [], ALL),
    (list[int], [1], ALL),
    (list[int], (1,), NONE),
    (list[int], [True], NONE),
    (tuple[int, str], (1, "a"), ALL),
    (tuple[int, str], (1,), NONE),
    (tuple[int, ...], (), ALL),
    (tuple[int, ...], R.Row(1, 2), NONE),
    (set[int], {1, 2}, ALL),
    (set[int], frozenset((1,)), NONE),
    (set[int], {True}, NONE),
    (set[float], {math.nan}, PACKED),
    (frozenset[frozenset[int]], frozenset((frozenset((1,)),)), ALL),
    (list[set[int | str]], [_MIXED], ALL),
    (set[tuple[int | str, int]], {(1, 2), ("a", 2), (3, 4), ("b", 5)}, ALL),
    (set[R.Leaf], {R.Leaf(1, 2), R.Leaf(3, 4.5)}, ALL),
    (dict[str, int], {"b": 1, "a": 2}, ALL),
    (dict[str, int], collections.OrderedDict(a=1), NONE),
    (dict[str, int], {Text("a"): 1}, NONE),
    (dict[int, str], {1: "a"}, ALL),
    (dict[int, str], {True: "a"}, NONE),
    (dict[tuple[int, int], int], {(1, 2): 3}, ALL),
    (dict[R.Leaf, int], {R.Leaf(1, 2.0): 3}, ALL),
    (collections.OrderedDict[str, int], collections.OrderedDict(b=1, a=2), ALL),
    (collections.OrderedDict[str, int], {"a": 1}, NONE),
    (collections.deque[int], collections.deque((1,)), ALL),
    (collections.deque[int], collections.deque((1,), 3), NONE),
    (R.Row, (1, 2.0), NONE),
    (Any, [{"a": [None]}], ALL),
    (Any, (1,), NONE),
    (list, [1, "a"], ALL),
    (dict, {"a": 1}, ALL),
    (dict, {1: 2}, PACKED),
    (R.Note, {"text": "a"}, ALL),
    (R.Note, {"text": "a", "inner": {"text": "b"}}, ALL),
    (R.Note, {"text": 1}, NONE),
    (R.Note, {}, NONE),
    (R.Note, {"text": "a", "more": 1}, NONE),
    (R.Note, {"text": "a", "inner": {"text": 1}}, NONE),
    (R.Json, {"a": [1, "b", None, {"c": []}]}, ALL),
    (R.Json, {"a": [1.5]}, NONE),
    (R.Json, [True], NONE),
    # choices
    (R.Perm, R.Perm.READ, ALL),
    (R.Perm, R.Perm.READ | R.Perm.WRITE, ALL),
    (R.Perm, R.Perm(0), ALL),
    (R.Perm, 1, NONE),
    (R.Chosen, R.Chosen.LEFT | R.Chosen.RIGHT, ALL),
    (R.Chosen, R.Chosen(0), ALL),
    (dict[R.Perm, int], {R.Perm(3): 1}, ALL),
    (Literal[1, "a", True], 1, ALL),
    (Literal[1, "a", True], 1.0, NONE),
    (Literal[1, "a"], 2, NONE),
    (Literal[1, "a"], "a", ALL),
    # other scalars
    (decimal.Decimal, decimal.Decimal("1.50"), ALL),
    (decimal.Decimal, decimal.Decimal("-0"), ALL),
    (decimal.Decimal, decimal.Decimal("1E+5"), ALL),
    (decimal.Decimal, _NAN, ALL),
    (decimal.Decimal, -_NAN, ALL),
    (decimal.Decimal, decimal.Decimal("NaN12"), ALL),
    (decimal.Decimal, decimal.Decimal("sNaN"), NONE),
    (list[decimal.Decimal], [_NAN, decimal.Decimal("Infinity")], ALL),
    (uuid.UUID, uuid.UUID("f9875026-eb56-11f1-81ec-02fc00000001"), ALL),
    (datetime.timedelta, datetime.timedelta(days=-1, microseconds=1), ALL),
    (datetime.timedelta, datetime.timedelta.max, MSGSPEC),
    (datetime.date, datetime.date.min, ALL),
    (datetime.date, datetime.datetime(2026, 1, 1), NONE),
    # classes
    (R.Place, R.Place("a", "b"), ALL),
    (R.Place, R.Place("a", 1), NONE),
    (R.Addressed, R.Addressed("a", [R.Place("b")], {"c": 1}), ALL),
    (R.Addressed, R.Addressed("a", [R.Place("b", 1)]), NONE),
    (R.Later, R.Later("a"), ALL),
    (R.Later, changed(R.Later("a"), label="b"), MSGSPEC),
    (R.Computed, R.Computed(2), ALL),
    (R.Computed, changed(R.Computed(2), twice=5), NONE),
    (R.Doubled, R.Doubled(0), ALL),
    (R.Doubled, R.Doubled(1), NONE),
    (R.Liar, R.Liar("a"), ALL),
    (R.Liar, changed(R.Liar("a"), label="b"), MSGSPEC),
    (R.Liar, R.Liar(1), NONE),
    (R.Unequal, R.Unequal(1), ALL),
    (R.Unequal, R.Unequal("a"), NONE),
    (R.Widened, R.Widened(1), ALL),
    (R.Widened, changed(R.Widened(1), size=1), NONE),
    (R.Positive, R.Positive(1), ALL),
    (R.Positive, changed(R.Positive(1), size=-1), NONE),
    (list[R.Positive], [R.Positive(1)], ALL),
    (R.LowerCase, R.LowerCase("A"), ALL),
    (R.LowerCase, changed(R.LowerCase("a"), name="A"), MSGSPEC),
    (R.Private, R.Private(1, 2), ALL),
    (R.Boxed[int], R.Boxed("a"), NONE),
    (R.Boxed[int], R.Boxed(1), ALL),
    (R.Node[int], R.Node(1, [R.Node(2)]), ALL),
    (R.Node[int], R.Node(1, [R.Node("a")]), NONE),
    (R.Boxed[list[R.Boxed[int]]], R.Boxed([R.Boxed(1)]), ALL),
    (R.Boxed[list[R.Boxed[int]]], R.Boxed([1, "x"]), NONE),
]


def serving(type_: Any) -> Mapping[str, Serializer[Any]]:
    """Return the serializers that serve *type_*."""
    found: dict[str, Serializer[Any]] = {}
    for name in records.SERIALIZERS:
        try:
            found[name] = load_serializer(name, type_)
        except InvalidTypeError:
            continue
    assert found, f"no serializer serves {type_}"
    return found


@pytest.mark.parametrize(("type_", "value", "stores"), TABLE, ids=stable(ascii))
def test_a_value_comes_back_the_same_or_is_refused(type_: Any, value: Any, stores: frozenset[str]) -> None:
    for name, serializer in serving(type_).items():
        if name in stores:
            assert difference(value, serializer.loads(serializer.dumps(value))) is None, name
            continue
        with pytest.raises(SerializationError, match=r"^\$[][.\w()*]*: \w"):
            serializer.dumps(value)


@pytest.mark.parametrize(("type_", "value", "stores"), TABLE, ids=stable(ascii))
def test_a_nested_value_comes_back_the_same_or_is_refused(type_: Any, value: Any, stores: frozenset[str]) -> None:
    for name, serializer in serving(R.Boxed[list[type_]]).items():
        deep = R.Boxed([value])
        if name in stores:
            assert difference(deep, serializer.loads(serializer.dumps(deep))) is None, name
            continue
        with pytest.raises(SerializationError, match=r"^\$\.held\[0\]"):
            serializer.dumps(deep)


@pytest.mark.parametrize("type_", {repr(case[0]): case[0] for case in TABLE}.values(), ids=stable(ascii))
def test_each_served_type_has_a_value_that_is_stored(type_: Any) -> None:
    stored = [case[2] for case in TABLE if case[0] == type_]
    for name in serving(type_):
        assert any(name in stores for stores in stored), name


@pytest.mark.parametrize("name", records.SERIALIZERS)
def test_an_int_is_stored_as_the_equal_float(name: str) -> None:
    if name != "attrs":
        serializer: Serializer[Any] = load_serializer(name, dict[str, list[float | None]])
        assert repr(serializer.loads(serializer.dumps({"a": [1, None, 2.5]}))) == "{'a': [1.0, None, 2.5]}"
        either: Serializer[Any] = load_serializer(name, list[int | float])
        assert repr(either.loads(either.dumps([1, 1.0]))) == "[1, 1.0]"
    if name != "json":
        record: Serializer[Any] = load_serializer(name, R.Leaf)
        assert repr(record.loads(record.dumps(R.Leaf(1, 2)))) == "Leaf(size=1, ratio=2.0)"
