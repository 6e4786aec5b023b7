"""Two values are the same if their parts are equal and of the same classes. A user's ``__eq__`` is never called."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import math
import pathlib
import struct
import zoneinfo
from datetime import UTC
from typing import Any, Final, Generic, NoReturn, TypeVar

import attrs
import msgspec
import pytest
from typing_extensions import override

from metacache.serializers import difference
from tests.ids import stable
from tests.serializers import records
from tests.serializers.records import EqualToEverything

# Any: the tests use wrong values of these classes.
R: Final[Any] = records

T = TypeVar("T")


class Loose(EqualToEverything):
    """A class without fields."""

    def __init__(self, **attributes: object) -> None:
        vars(self).update(attributes)


class Slots:
    __slots__ = ("one", "two")

    def __init__(self, one: object) -> None:
        self.one = one


class Shadow(dict[str, int]):
    """A dict whose methods hide its contents."""

    @override
    def __eq__(self, _: object) -> bool:
        return True

    @override
    def keys(self) -> NoReturn:
        raise AssertionError("it was asked")

    values = items = __iter__ = __len__ = keys


@dataclasses.dataclass
class Counted(dict[str, int]):
    size: int = 0


@attrs.define
class Generic1(Generic[T]):
    held: T
    plain: int = 0


class Vague(EqualToEverything, enum.Enum):
    """An enum whose members are equal to one another."""

    ONE = 1
    TWO = 2


def changed(value: Any, **attributes: object) -> Any:  # Any: of any class
    for name, attribute in attributes.items():
        object.__setattr__(value, name, attribute)
    return value


OTHER_NAN: Final[float] = struct.unpack("d", struct.pack("Q", 0x7FF8000000000001))[0]
MOMENT: Final = datetime.datetime(2026, 1, 2, 3)
CET: Final = datetime.timezone(datetime.timedelta(hours=1))
DAYS: Final = collections.OrderedDict((("a", 1), ("b", 2)))

# Any, here and below: values of every class.
SAME: Final[list[tuple[Any, Any]]] = [
    (None, None),
    (1, 1),
    (2**70, 2**70),
    ("a" * 500, "a" * 499 + "a"),
    (1.5, 1.5),
    (math.nan, OTHER_NAN),
    (-0.0, -0.0),
    (complex(0, math.nan), complex(0, math.nan)),
    (bytearray(b"a"), bytearray(b"a")),
    (memoryview(b"a"), memoryview(b"a")),
    (decimal.Decimal("NaN"), decimal.Decimal("NaN")),
    (decimal.Decimal("1.50"), decimal.Decimal("1.50")),
    (MOMENT, datetime.datetime(2026, 1, 2, 3)),
    (MOMENT.replace(tzinfo=UTC), MOMENT.replace(tzinfo=UTC)),
    (MOMENT.replace(tzinfo=CET), MOMENT.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=1)))),
    ([1, [2.5, "a"]], [1, [2.5, "a"]]),
    ((1,), (1,)),
    ({1, "a"}, {"a", 1}),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ({MOMENT: 1, CET: 2}, {CET: 2, MOMENT: 1}),
    ({math.nan, 1.0}, {1.0, OTHER_NAN}),
    ({1}, {1.0}),
    (DAYS, DAYS.copy()),
    ({frozenset((1,)): 2}, {frozenset((1,)): 2}),
    (collections.deque((1,), 2), collections.deque((1,), 2)),
    (R.Place("a", "b"), R.Place("a", "b")),
    (R.Unequal(1), R.Unequal(1)),
    ([R.Liar("a")], [R.Liar("a")]),
    (R.Pair(1, math.nan), R.Pair(1, math.nan)),
    (R.Row(1, 2.0), R.Row(1, 2.0)),
    (R.Note(text="a"), R.Note(text="a")),
    ({R.Leaf(1, 2.0), R.Leaf(2, 1.0)}, {R.Leaf(2, 1.0), R.Leaf(1, 2.0)}),
    ({R.Leaf(1, 2)}, {R.Leaf(1, 2.0)}),
    (R.Chosen(3), R.Chosen.LEFT | R.Chosen.RIGHT),
    (Vague.ONE, Vague.ONE),
    (Loose(a=1), Loose(a=1)),
    (Slots(1), Slots(1)),
    (fractions.Fraction(1, 3), fractions.Fraction(1, 3)),
    (pathlib.PurePath("a/b"), pathlib.PurePath("a/b")),
    (Generic1(R.Unequal(1)), Generic1(R.Unequal(1))),
    (range(3), range(3)),
    (int, int),
    # an int decoded as a float: the one exception
    (1, 1.0),
    ([1, 2.5], [1.0, 2.5]),
    (R.Leaf(1, 2), R.Leaf(1, 2.0)),
    (R.Boxed(1), R.Boxed(1.0)),
    (2**60, float(2**60)),
]

OTHER: Final[list[tuple[Any, Any, str]]] = [
    (1, 2, "$: the int would come back with another value"),
    (1, True, "$: the int would come back as bool"),
    (True, 1, "$: the bool would come back as int"),
    (1.0, 1, "$: the float would come back as int"),
    (2**53 + 1, 2.0**53, "$: the int would come back as float"),
    (10**400, math.inf, "$: the int would come back as float"),
    (True, 1.0, "$: the bool would come back as float"),
    (0.0, -0.0, "$: the float would come back with another value"),
    (0, -0.0, ""),
    ("a", "b", "$: the str would come back with another value"),
    ("a", b"a", "$: the str would come back as bytes"),
    (complex(0.0, 0.0), complex(0.0, -0.0), "$: the complex would come back with another value"),
    (math.nan, None, "$: the float would come back as NoneType"),
    (decimal.Decimal("1.5"), decimal.Decimal("1.50"), "$: the Decimal would come back with another value"),
    (decimal.Decimal("0"), decimal.Decimal("-0"), "$: the Decimal would come back with another value"),
    (decimal.Decimal("sNaN"), decimal.Decimal("sNaN"), "$: a signaling NaN cannot be stored"),
    (MOMENT, MOMENT.replace(tzinfo=UTC), "$: the datetime would come back with another value"),
    (
        MOMENT.replace(tzinfo=CET),
        MOMENT.replace(tzinfo=CET).astimezone(UTC),
        "$: the datetime would come back with another value",
    ),
    (MOMENT.replace(fold=1), MOMENT, "$: fold=1 cannot be stored; use .astimezone(timezone.utc)"),
    (
        MOMENT.replace(tzinfo=zoneinfo.ZoneInfo("UTC")),
        MOMENT.replace(tzinfo=UTC),
        "$: expected a datetime.timezone as tzinfo, got ZoneInfo; use .astimezone(timezone.utc)",
    ),
    (datetime.time(1), datetime.time(1, tzinfo=UTC), "$: the time would come back with another value"),
    (MOMENT, MOMENT.date(), "$: the datetime would come back as date"),
    ([1], (1,), "$: the list would come back as tuple"),
    ([1], [1, 2], "$: the list would come back with another number of parts"),
    ([1, "a"], [1, "b"], "$[1]: the str would come back with another value"),
    ({1}, {2}, "$: it would come back with other keys or elements"),
    ({1}, {True}, "$: it would come back with other keys or elements"),
    ({R.Leaf(1, 2.0)}, {R.Leaf(1, 3.0)}, "$: it would come back with other keys or elements"),
    ({"a": 1}, {"a": 2}, "$.values()[0]: the int would come back with another value"),
    ({1: "a"}, {True: "a"}, "$: it would come back with other keys or elements"),
    ({"a": 1, "b": 2}, {"a": 1, "c": 2}, "$: it would come back with other keys or elements"),
    (DAYS, dict(DAYS), "$: the OrderedDict would come back as dict"),
    (DAYS, collections.OrderedDict((("b", 2), ("a", 1))), "$.keys()[0]: the str would come back with another value"),
    (collections.deque((1,), 2), collections.deque((1,)), "$.maxlen: the int would come back as NoneType"),
    (R.Place("a"), R.Place("a", "b"), "$.zip: the str would come back with another value"),
    (R.Unequal(1), R.Unequal(2), "$.size: the int would come back with another value"),
    ([R.Liar("a")], [changed(R.Liar("a"), label="b")], "$[0].label: the str would come back with another value"),
    (R.Liar("a"), R.Place("a"), "$: the Liar would come back as Place"),
    (R.Row(1, 2.0), (1, 2.0), "$: the Row would come back as tuple"),
    (R.Row(1, 2.0), R.Row(1, 3.0), "$.ratio: the float would come back with another value"),
    (R.Chosen.LEFT, R.Chosen.RIGHT, "$.value: the int would come back with another value"),
    (Vague.ONE, Vague.TWO, "$.value: the int would come back with another value"),
    (Loose(a=1), Loose(a=2), ""),
    (Loose(), Loose(a=1), ""),
    (Slots(1), Slots(2), ""),
    (Generic1(R.Unequal(1)), Generic1(R.Unequal(2)), "$.held.size: the int would come back with another value"),
    (Counted(1), changed(Counted(1), size=2), "$.size: the int would come back with another value"),
    # an int where the type says no float
    (R.Leaf(1, 2.0), R.Leaf(1.0, 2.0), "$.size: the int would come back as float"),
    (R.Pair(1), R.Pair(1.0), "$.first: the int would come back as float"),
    (Generic1(1, 2), changed(Generic1(1, 2), plain=2.0), "$.plain: the int would come back as float"),
]


@pytest.mark.parametrize(("value", "again"), SAME, ids=stable(ascii))
def test_values_that_are_the_same_have_no_difference(value: Any, again: Any) -> None:
    assert difference(value, again) is None
    assert difference([value, {"a": (value,)}], [again, {"a": (again,)}]) is None


@pytest.mark.parametrize(("value", "again", "said"), OTHER, ids=stable(ascii))
def test_a_difference_is_named_with_its_path(value: Any, again: Any, said: str) -> None:
    found = difference(value, again)
    assert found is not None
    assert said in ("", found)
    within = difference([{"a": (value,)}], [{"a": (again,)}])
    assert within is not None
    assert within.startswith("$[0].values()[0][0]")


def test_the_contents_of_a_dict_with_overridden_methods_are_compared() -> None:
    same, other = Shadow(), Shadow()
    same["a"], other["a"] = 1, 2
    assert difference(same, same) is None
    assert difference(same, other) == "$[0][1]: the int would come back with another value"


def test_the_contents_of_a_record_with_a_builtin_base_count() -> None:
    one, other = Counted(1), Counted(1)
    one["a"], other["a"] = 1, 2
    assert difference(one, Counted(1)) is not None
    assert difference(one, other) == "$.contents[1]: the int would come back with another value"


def test_two_unset_fields_are_the_same() -> None:
    @dataclasses.dataclass
    class Late:
        size: int = dataclasses.field(init=False)

    assert difference(Late(), Late()) is None
    assert difference(changed(Late(), size=1), Late()) == "$.size: the int would come back as _Unset"


@pytest.mark.alone
def test_large_sets_of_objects_without_equality_are_compared_quickly() -> None:
    class Bare(msgspec.Struct, eq=False, frozen=True):
        size: int

    one, other = ({Bare(size) for size in sizes} for sizes in (range(20_000), reversed(range(20_000))))
    assert difference(one, other) is None
