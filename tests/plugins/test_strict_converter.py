"""The strict converter of the attrs and orjson plugins: the JSON of each kind of type, and refused values."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import json
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC
from typing import Annotated, Any, Final, Generic, Literal, NamedTuple, NewType, NotRequired, TypedDict, TypeVar

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from metacache_attrs.converter import StrictConverter

from metacache import InvalidTypeError, load_serializer

T = TypeVar("T")


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Color(enum.StrEnum):
    RED = "red"


class Mixed(enum.Enum):
    NOTHING = None
    ONE = 1
    TEXT = "one"


class Odd(enum.Enum):
    PAIR = (1, 2)


class Point(NamedTuple):
    x: int
    y: float = 0.0


class Note(TypedDict):
    text: str
    at: NotRequired[datetime.datetime]


@attrs.frozen
class Box(Generic[T]):
    held: T


@attrs.frozen
class Cat:
    name: str


@attrs.frozen
class Dog:
    name: str


@attrs.frozen
class Bird:
    wings: int = 2


@attrs.define
class Tree:
    name: str
    parent: Tree | None = None
    children: list[Tree] = attrs.field(factory=list["Tree"])


@attrs.define
class Fields:
    """A class with field names that are special for attrs or for the converter."""

    _private: int
    converter: str
    cl: int = 0
    keyword: int = attrs.field(default=0, kw_only=True)
    length: int = attrs.field(init=False, default=0)
    positive: int = attrs.field(default=1, validator=attrs.validators.gt(0))


@dataclasses.dataclass(frozen=True)
class Data:
    a: int
    b: Annotated[list[str], "documentation"] = dataclasses.field(default_factory=list)


class Text(str):
    __slots__ = ()


class Number(int):
    pass


UserId = NewType("UserId", int)
AN_ID: Final = uuid.UUID(int=1)
LEAF: Final = Tree("leaf")


# Any: type expressions and JSON values of every kind.
KEPT: Final[list[tuple[Any, Any, Any]]] = [
    (None, None, None),
    (bool, True, True),
    (int, 2**100, 2**100),
    (float, 1.5, 1.5),
    (str, "Zoë", "Zoë"),
    (bytes, b"\xff\x00", "/wA="),
    (datetime.datetime, datetime.datetime(2026, 1, 2, 3, 4, 5, 6), "2026-01-02T03:04:05.000006"),
    (datetime.datetime, datetime.datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
    (datetime.date, datetime.date(2026, 1, 2), "2026-01-02"),
    (datetime.time, datetime.time(1, 2, 3), "01:02:03"),
    (datetime.time, datetime.time(1, tzinfo=UTC), "01:00:00+00:00"),
    (datetime.timedelta, datetime.timedelta(days=-1, microseconds=1), -86_399_999_999),
    (uuid.UUID, AN_ID, "00000000-0000-0000-0000-000000000001"),
    (decimal.Decimal, decimal.Decimal("1.50"), "1.50"),
    (decimal.Decimal, decimal.Decimal("Infinity"), "Infinity"),
    (Level, Level.HIGH, 2),
    (Color, Color.RED, "red"),
    (Mixed, Mixed.NOTHING, None),
    (Literal["a", 1, True], 1, 1),
    (Literal["a", 1, True], True, True),
    (Literal[Level.LOW], Level.LOW, 1),
    (list[int], [1, 2], [1, 2]),
    (list, [1, "a", {"b": None}], [1, "a", {"b": None}]),
    (Sequence[int], [1], [1]),
    (tuple[int, str], (1, "a"), [1, "a"]),
    (tuple[int, ...], (1, 2, 3), [1, 2, 3]),
    (tuple[()], (), []),
    (set[int], {1}, [1]),
    (frozenset[str], frozenset("a"), ["a"]),
    (AbstractSet[int], {1}, [1]),
    (collections.deque[int], collections.deque([1, 2]), [1, 2]),
    (Point, Point(1, 2.0), [1, 2.0]),
    (dict[str, int], {"a": 1}, {"a": 1}),
    (dict, {"a": [1]}, {"a": [1]}),
    (dict[uuid.UUID, int], {AN_ID: 1}, {str(AN_ID): 1}),
    (dict[int, str], {1: "a"}, [[1, "a"]]),
    (dict[Level, int], {Level.LOW: 1}, [[1, 1]]),
    (dict[tuple[int, int], int], {(1, 2): 3}, [[[1, 2], 3]]),
    (Mapping[str, int], {"a": 1}, {"a": 1}),
    (collections.OrderedDict[str, int], collections.OrderedDict(a=1), {"a": 1}),
    (int | None, None, None),
    (int | float | str, 1, 1),
    (float | int | str, 1, 1),
    (float | int | str, 1.0, 1.0),
    (float | None, 1.0, 1.0),
    (datetime.datetime | None, datetime.datetime(2026, 1, 2), "2026-01-02T00:00:00"),
    (str | bytes, b"a", {"type": "bytes", "value": "YQ=="}),
    (str | bytes, "a", {"type": "str", "value": "a"}),
    (list[int] | list[str], ["a"], {"type": "list[str]", "value": ["a"]}),
    (tuple[int, ...] | set[int], {1}, {"type": "set[int]", "value": [1]}),
    (Cat | Dog, Dog("Rex"), {"type": "Dog", "value": {"name": "Rex"}}),
    (Cat | Dog | None, None, {"type": "None", "value": None}),
    (Box[int] | Box[str], Box("a"), {"type": "Box[str]", "value": {"held": "a"}}),
    (Cat, Cat("Tom"), {"name": "Tom"}),
    (Box[list[int]], Box([1]), {"held": [1]}),
    (Tree, Tree("a", None, [LEAF]), {"name": "a", "parent": None, "children": [
        {"name": "leaf", "parent": None, "children": []}]}),
    (Fields, Fields(1, "c", 2, keyword=3), {"_private": 1, "converter": "c", "cl": 2, "keyword": 3, "positive": 1}),
    (Data, Data(1, ["b"]), {"a": 1, "b": ["b"]}),
    (Note, {"text": "a"}, {"text": "a"}),
    (Note, {"text": "a", "at": datetime.datetime(2026, 1, 2)}, {"text": "a", "at": "2026-01-02T00:00:00"}),
    (UserId, 7, 7),
    (Annotated[int, "documentation"], 7, 7),
    (Any, {"a": [1, 1.5, None, True, "b"]}, {"a": [1, 1.5, None, True, "b"]}),
]  # fmt: skip


@pytest.mark.parametrize(("type_", "value", "data"), KEPT, ids=repr)
def test_a_value_has_one_json_form_and_comes_back_from_it(type_: Any, value: Any, data: Any) -> None:
    codec = StrictConverter().codec(type_)
    written = codec.write(value)
    assert (repr(written), type(written)) == (repr(data), type(data))  # 1 is not 1.0, nor True
    again = codec.read(data)
    assert again == value
    assert type(again) is type(value)


NOT_READ: Final[list[tuple[Any, Any]]] = [
    (None, 0),
    (bool, 1),
    (int, True),
    (int, 1.0),
    (int, "1"),
    (float, 1),
    (float, True),
    (float, math.nan),
    (float, math.inf),
    (str, 1),
    (str, None),
    (bytes, "a"),
    (bytes, "YQ"),
    (bytes, "YR=="),
    (bytes, "YQ==\n"),
    (datetime.datetime, "2026-01-02"),
    (datetime.datetime, "2026-01-02 00:00:00"),
    (datetime.datetime, "2026-01-02T00:00:00Z"),
    (datetime.datetime, "2026-01-02T00:00:00+00:00:01"),
    (datetime.datetime, "2026-01-02T00:00:00-01:00:30"),
    (datetime.datetime, "2026-01-02T00:00:00.500000+01:30:00.250000"),
    (datetime.datetime, 1767312000),
    (datetime.date, "2026-W01-1"),
    (datetime.date, "20260102"),
    (datetime.date, "2026-01-02T00:00:00"),
    (datetime.time, "01"),
    (datetime.time, "01:00:00+00:00:01"),
    (datetime.timedelta, 1.0),
    (datetime.timedelta, True),
    (datetime.timedelta, "1"),
    (datetime.timedelta, 10**30),
    (uuid.UUID, "{00000000-0000-0000-0000-000000000001}"),
    (uuid.UUID, "00000000000000000000000000000001"),
    (decimal.Decimal, 1),
    (decimal.Decimal, 1.5),
    (decimal.Decimal, " 1 "),
    (decimal.Decimal, "1_0"),
    (decimal.Decimal, "one"),
    (Level, 3),
    (Level, "LOW"),
    (Level, True),
    (Level, 1.0),
    (Mixed, []),
    (Literal[1], True),
    (Literal["a"], "b"),
    (list[int], "12"),
    (list[str], "abc"),
    (list[int], {"0": 1}),
    (list[int], [1, "2"]),
    (tuple[int, str], [1]),
    (tuple[int, str], [1, "a", 2]),
    (tuple[int, ...], "12"),
    (set[int], [1, 1]),
    (set[int], {}),
    (Point, [1]),
    (Point, {"x": 1, "y": 2.0}),
    (dict[str, int], [["a", 1]]),
    (dict[str, int], {"a": "1"}),
    (dict[int, str], {"1": "a"}),
    (dict[int, str], [[1, "a"], [1, "b"]]),
    (dict[int, str], [[1, "a", 2]]),
    (dict[int, str], ["1a"]),
    (int | None, "1"),
    (int | str, 1.0),
    (float | None, 1),
    (Cat | Dog, {"name": "Rex"}),
    (Cat | Dog, {"type": "Cow", "value": {"name": "Rex"}}),
    (Cat | Dog, {"type": [], "value": {"name": "Rex"}}),
    (Cat | Dog, {"type": "Dog", "value": {"name": 1}}),
    (Cat | Dog, {"type": "Dog", "value": {"name": "Rex"}, "more": 1}),
    (Cat | Dog, {"type": "Dog"}),
    (Cat, {}),
    (Cat, {"name": "Tom", "more": 1}),
    (Cat, {"Name": "Tom"}),
    (Cat, ["Tom"]),
    (Cat, [["name", "Tom"]]),
    (Cat, "name"),
    (Cat, None),
    (Bird, []),
    (Bird, ""),
    (Bird, None),
    (Bird, {"wings": None}),
    (Box[int], {"held": "a"}),
    (Tree, {"name": "a", "parent": {"name": 1}}),
    (Fields, {"_private": 1, "converter": "c", "positive": 0}),
    (Fields, {"_private": 1, "converter": "c", "length": 0}),
    (Data, {"a": 1, "b": "abc"}),
    (Note, {}),
    (Note, {"text": "a", "at": None}),
    (Note, {"text": "a", "more": 1}),
    (Note, [["text", "a"]]),
    (Any, math.nan),
]


def is_refused(convert: Callable[[Any], object], given: Any) -> bool:
    """Return whether the serializer raises; any exception counts."""
    try:
        convert(given)
    except Exception:
        return True
    return False


@pytest.mark.parametrize(("type_", "data"), NOT_READ, ids=repr)
def test_json_of_another_shape_is_refused(type_: Any, data: Any) -> None:
    assert is_refused(StrictConverter().codec(type_).read, data)


NOT_WRITTEN: Final[list[tuple[Any, Any]]] = [
    (bool, 1),
    (int, True),
    (int, 1.0),
    (int, Number(1)),
    (float, True),
    (float, "1.0"),
    (float, math.nan),
    (float, -math.inf),
    (float, 2**53 + 1),
    (float, 10**400),
    (str, b"a"),
    (str, Text("a")),
    (bytes, bytearray(b"a")),
    (datetime.datetime, datetime.date(2026, 1, 2)),
    (datetime.date, datetime.datetime(2026, 1, 2)),
    (Level, 1),
    (Level, True),
    (Color, "red"),
    (Literal[1], True),
    (Literal["a"], "b"),
    (list[int], (1,)),
    (list[int], [1, "a"]),
    (Sequence[int], (1,)),
    (tuple[int, str], (1,)),
    (tuple[int, str], Point(1, 2.0)),
    (set[int], frozenset((1,))),
    (dict[str, int], {1: 1}),
    (dict[str, int], collections.OrderedDict(a=1)),
    (Cat, Dog("Rex")),
    (Cat, {"name": "Tom"}),
    (Cat, Cat(1)),  # type: ignore[arg-type]  # the fault under test  # pyright: ignore[reportArgumentType] - as said
    (Cat | Dog, Bird()),
    (Note, {"text": "a", "more": 1}),
    (Note, {}),
    (Any, (1,)),
    (Any, {1: 2}),
    (Any, b"a"),
]


@pytest.mark.parametrize(("type_", "value"), NOT_WRITTEN, ids=repr)
def test_a_value_that_would_not_come_back_is_refused(type_: Any, value: Any) -> None:
    assert is_refused(StrictConverter().codec(type_).write, value)


def test_a_missing_key_with_a_default_gets_the_default() -> None:
    assert StrictConverter().codec(Bird).read({}) == Bird(2)


@pytest.mark.parametrize("type_", [float, float | None, list[float]])
def test_an_int_in_a_float_field_is_written_as_the_equal_float(type_: Any) -> None:
    codec = StrictConverter().codec(type_)
    number: Any = [5] if type_ == list[float] else 5
    assert repr(codec.write(number)) in ("5.0", "[5.0]")
    assert codec.read(codec.write(number)) == number


@dataclasses.dataclass
class Seeded:
    seed: dataclasses.InitVar[int]
    a: int = 0


@attrs.define
class Untyped:
    a = attrs.field()  # type: ignore[var-annotated]  # that is under test  # pyright: ignore[reportGeneralTypeIssues] - as said


class Opaque:
    pass


@pytest.mark.parametrize(
    "type_",
    [Opaque, list[Opaque], dict[str, Opaque], Box[Opaque], Box, Odd, Seeded, Untyped, complex, object, Text, Number]
    + [Literal[b"a"], Literal[Level.LOW, 1], T, Ellipsis, 7, "int", int | Opaque, type, Cat | Box[complex]],
    ids=repr,
)
def test_a_type_that_json_cannot_hold_is_not_served(type_: Any) -> None:
    for name in ("orjson", "attrs"):
        with pytest.raises(InvalidTypeError, match=f"'{name}' does not serve"):
            load_serializer(name, type_)


@pytest.mark.parametrize(
    ("type_", "is_served"),
    [(Cat, True), (list[Cat], True), (dict[str, Cat | None], True), (Cat | Dog, True), (Box[int], True)]
    + [(int, False), (str, False), (list[int], False), (Data, False), (Note, False), (None, False)],
    ids=repr,
)
def test_the_attrs_plugin_serves_types_that_contain_an_attrs_class(type_: Any, is_served: bool) -> None:
    if is_served:
        assert load_serializer("attrs", type_).wire_id == 144
    else:
        with pytest.raises(InvalidTypeError, match="'attrs' does not serve"):
            load_serializer("attrs", type_)
    assert load_serializer("orjson", type_).wire_id == 112


JSON_VALUES: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abnmet", max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


# Without the cases that omit something: a default, the order of a set.
CODECS: Final = [StrictConverter().codec(type_) for type_, _, _ in KEPT if type_ not in (Tree, Fields, Data)]


@given(JSON_VALUES)
def test_a_decoded_value_is_encoded_as_the_same_json(data: Any) -> None:
    for codec in CODECS:
        if not is_refused(codec.read, data):
            value = codec.read(data)
            assert isinstance(value, set | frozenset) or canonical(codec.write(value)) == canonical(data)


def canonical(data: Any) -> str:
    return json.dumps(data, sort_keys=True)


def test_the_json_serializer_refuses_other_encodings_and_numbers_too_large_for_a_float() -> None:
    serializer = load_serializer("attrs", Box[float])
    for data in (b'{"held":1e999}', b'{"held":NaN}', b'{"held":Infinity}', b'\xef\xbb\xbf{"held":1.0}'):
        with pytest.raises((ValueError, TypeError)):
            serializer.loads(data)
    with pytest.raises(ValueError, match="codec"):
        serializer.loads('{"held":1.0}'.encode("utf-16"))
