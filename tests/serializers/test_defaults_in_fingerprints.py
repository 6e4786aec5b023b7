"""A stored value keeps its meaning when defaults change: if the bytes may lack a field, its default counts."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import itertools
import types
import zoneinfo
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, NamedTuple, NotRequired

import annotated_types
import attrs
import msgspec
import pytest
from msgspec import UNSET, Meta, UnsetType
from typing_extensions import TypedDict

from metacache import Client, InvalidTypeError, load_serializer
from metacache.serializers import fingerprint
from metacache.serializers.shapes import graph_of
from metacache.testing import FakeServer, FakeTransport

FORMATS: Final = ("msgspec", "msgspec-json")


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Money(msgspec.Struct, frozen=True):
    amount: int
    currency: str = "EUR"


class Point(NamedTuple):
    x: int


@dataclasses.dataclass(frozen=True)
class Place:
    name: str


# Any, here and below: classes made at run time, and defaults of any class.
def struct(default: Any, type_: Any = Any, **config: Any) -> Any:
    return msgspec.defstruct("Made", [("a", type_, default)], **config)


def of_factory(make: Callable[[], object]) -> Any:
    return msgspec.field(default_factory=make)


def read_by(writer: Any, reader: Any, value: object, serializer: str) -> Any:
    """Store *value* with a client of *writer*, and return what a client of *reader* gets."""
    server = FakeServer()
    assert Client(FakeTransport(server), load_serializer(serializer, writer)).set("k", value)
    return Client(FakeTransport(server), load_serializer(serializer, reader)).get("k")


DEFAULTS: Final[tuple[Any, ...]] = (
    (0, 1, True, False, 0.0, -0.0, float("nan"), float("inf"), None, "", "a", "a,b", b"", b"a", UNSET)
    + (Color.RED, Color.BLUE, "red", (), (1,), ("1",), ((1,), 2), frozenset[int](), frozenset((1, 2)))
    + (decimal.Decimal("1.0"), decimal.Decimal("1.00"), datetime.date(2020, 1, 1), datetime.timedelta(1))
    + (datetime.datetime(2020, 1, 1), datetime.datetime(2020, 1, 1, fold=1), datetime.time(1))
    + (datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),)
    + (datetime.datetime(2020, 1, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),)
    + (datetime.datetime(2020, 1, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Paris")),)
    + (Money(1), Money(2), Money(1, "USD"), Point(1), Point(2), Place("a"), Place("b"))
    + (of_factory(list), of_factory(dict), of_factory(set), of_factory(bytearray), of_factory(lambda: [1]))
    + (msgspec.NODEFAULT,)
)  # fmt: skip


def test_different_defaults_have_different_fingerprints() -> None:
    made = [fingerprint(struct(default, omit_defaults=True)) for default in DEFAULTS]
    assert len(set(made)) == len(DEFAULTS) >= 40
    assert made == [fingerprint(struct(default, omit_defaults=True)) for default in DEFAULTS]


def test_defaults_do_not_count_if_every_field_is_written() -> None:
    usual = [default for default in DEFAULTS if default is not UNSET]
    assert len({fingerprint(struct(default)) for default in usual}) == 1
    assert len({fingerprint(struct(default, omit_defaults=True, array_like=True)) for default in usual}) == 1


def test_a_default_that_counts_must_have_a_text() -> None:
    class Opaque:
        pass

    assert fingerprint(struct(Opaque())) != 0
    with pytest.raises(InvalidTypeError, match=r"a value of class .*Opaque, which has no text"):
        fingerprint(struct(Opaque(), omit_defaults=True))


@pytest.mark.parametrize("serializer", FORMATS)
@pytest.mark.parametrize("wrapped", [False, True], ids=["itself", "in a list"])
def test_an_omitted_value_does_not_become_the_new_default(serializer: str, *, wrapped: bool) -> None:
    old, new = (struct(default, int, omit_defaults=True) for default in (0, 5))
    value = old(0)
    if wrapped:
        old, new, value = types.GenericAlias(list, old), types.GenericAlias(list, new), [value]
    assert read_by(old, old, value, serializer) == value
    assert read_by(old, new, value, serializer) is None


@pytest.mark.parametrize("serializer", FORMATS)
@pytest.mark.parametrize("level", ["base", "derived", "nested"])
def test_omit_defaults_is_inherited_and_counts_at_every_depth(serializer: str, level: str) -> None:
    def made(default: int) -> Any:
        base = msgspec.defstruct("Base", [("a", int, default)], omit_defaults=True)
        if level == "base":
            return base
        if level == "derived":
            return msgspec.defstruct("Derived", [("b", int, 7)], bases=(base,))
        return dataclasses.make_dataclass("Holder", [("held", types.GenericAlias(dict, (str, base)))])

    old, new = made(0), made(5)
    value = old({"k": old.__annotations__["held"].__args__[1](0)}) if level == "nested" else old(0)
    assert read_by(old, old, value, serializer) == value
    assert read_by(old, new, value, serializer) is None


def unset_struct(default: Any) -> Any:
    return struct(default, int | UnsetType)


def unset_dataclass(default: Any) -> Any:
    return dataclasses.make_dataclass("Made", [("a", int | UnsetType, default)])


def unset_attrs(default: Any) -> Any:
    @attrs.define
    class Made:
        a: int | UnsetType = default

    return Made


@pytest.mark.parametrize("serializer", FORMATS)
@pytest.mark.parametrize("form", [unset_struct, unset_dataclass, unset_attrs])
def test_an_unset_field_does_not_become_the_new_default(serializer: str, form: Callable[[Any], Any]) -> None:
    old, new = form(UNSET), form(5)
    assert read_by(old, old, old(), serializer) == old()
    assert read_by(old, new, old(), serializer) is None


def computed_dataclass(default: Any) -> Any:
    return dataclasses.make_dataclass("Made", [("a", int), ("b", int, dataclasses.field(default=default, init=False))])


def computed_attrs(default: Any) -> Any:
    fields = {"a": attrs.field(type=int), "b": attrs.field(default=default, init=False, type=int)}
    return attrs.make_class("Made", fields)


@pytest.mark.parametrize("form", [computed_dataclass, computed_attrs])
def test_a_field_with_init_false_does_not_become_the_new_default(form: Callable[[Any], Any]) -> None:
    old, new = form(0), form(5)
    assert read_by(old, old, old(1), "orjson") == old(1)
    assert read_by(old, new, old(1), "orjson") is None


class Short(TypedDict):
    a: int
    b: NotRequired[int]


class Total(TypedDict):
    a: int
    b: int


def test_a_key_that_is_not_required_counts() -> None:
    for serializer in ("json", "orjson", *FORMATS):
        assert read_by(Short, Total, {"a": 1}, serializer) is None


# --- the other options of a Struct ------------------------------------------------------------------------------------

SAME: Final[Mapping[str, Mapping[str, Any]]] = {
    "plain": {},
    "frozen": {"frozen": True},
    "without a collector": {"gc": False},
    "keywords": {"kw_only": True},
    "ordered": {"order": True},
    "compared": {"eq": True},
    "hashed": {"frozen": True, "cache_hash": True},
    "weak": {"weakref": True},
    "with a dict": {"dict": True},
    "strict": {"forbid_unknown_fields": True},  # the plugin refuses unknown fields anyway
}
DIFFERENT: Final[Mapping[str, Mapping[str, Any]]] = {
    "plain": {},
    "renamed": {"rename": "upper"},
    "renamed otherwise": {"rename": "camel"},
    "renamed one": {"rename": {"first_name": "x"}},
    "tagged": {"tag": True},
    "tagged otherwise": {"tag": "made"},
    "tagged by a number": {"tag": 1},
    "tagged in another field": {"tag_field": "kind", "tag": "made"},
    "array": {"array_like": True},
    "tagged array": {"array_like": True, "tag": True},
    "omitting": {"omit_defaults": True},
}


def person(**config: Any) -> Any:
    return msgspec.defstruct("Person", [("first_name", str, "x"), ("age", int, 0)], **config)


def test_options_that_do_not_change_the_bytes_do_not_count() -> None:
    made = {name: person(**config) for name, config in SAME.items()}
    assert len(set(map(fingerprint, made.values()))) == 1
    for old, new in itertools.permutations(made.values(), 2):
        found = read_by(old, new, old(first_name="Ada", age=36), "msgspec")
        assert (type(found), found.first_name, found.age) == (new, "Ada", 36)


@pytest.mark.parametrize("serializer", FORMATS)
def test_options_that_change_the_bytes_count(serializer: str) -> None:
    made = {name: person(**config) for name, config in DIFFERENT.items()}
    assert len(set(map(fingerprint, made.values()))) == len(DIFFERENT)
    for old, new in itertools.permutations(made.values(), 2):
        assert read_by(old, new, old(first_name="Ada", age=36), serializer) is None


def test_the_name_in_the_bytes_counts_and_the_attribute_name_does_not() -> None:
    old = msgspec.defstruct("Made", [("a", int, msgspec.field(name="x"))])
    new = msgspec.defstruct("Made", [("b", int, msgspec.field(name="x"))])
    assert fingerprint(old) == fingerprint(new)
    assert read_by(old, new, old(1), "msgspec").b == 1


def test_constraints_count_and_documentation_does_not() -> None:
    limits: list[dict[str, Any]] = [
        *({name: value} for name in ("gt", "ge", "lt", "le", "multiple_of") for value in (1, 2)),
        {"gt": 1, "lt": 2},
    ]
    made = [fingerprint(Annotated[int, Meta(**limit)]) for limit in limits]
    made += [fingerprint(Annotated[str, Meta(min_length=1)]), fingerprint(Annotated[str, Meta(pattern="^a$")])]
    made += [fingerprint(Annotated[datetime.datetime, Meta(tz=tz)]) for tz in (True, False)]
    assert len(set(made)) == len(made)
    documented = Meta(title="t", description="d", examples=[1], extra_json_schema={"a": 1}, extra={"b": 2})
    assert fingerprint(Annotated[int, documented]) == fingerprint(int)
    assert fingerprint(Annotated[int, Meta(gt=1)]) == fingerprint(Annotated[int, Meta(gt=1, title="t")])


def test_equal_limits_have_one_fingerprint_because_typing_caches_one_type() -> None:
    texts = {fingerprint(Annotated[int, annotated_types.Gt(one)]) for one in (1, 1.0, True, decimal.Decimal("1.0"))}
    assert len(texts) == 1
    groups = [
        Annotated[int, annotated_types.Interval(gt=1, le=5)],
        Annotated[int, annotated_types.Le(5), annotated_types.Gt(1)],
        Annotated[int, Meta(gt=1, le=5)],
    ]
    assert len(set(map(fingerprint, groups))) == 1
    sizes = [
        Annotated[list[int], annotated_types.Len(1, 5)],
        Annotated[list[int], annotated_types.MinLen(1), annotated_types.MaxLen(5)],
        Annotated[list[int], Meta(min_length=1, max_length=5)],
    ]
    assert len(set(map(fingerprint, sizes))) == 1


TEXTS: Final[Mapping[str, str]] = {
    "plain": "#0|struct(first_name,age;str,int)",
    "renamed": "#0|struct(FIRST_NAME,AGE;str,int)",
    "tagged": "#0|struct(?type=str:Person,first_name,age;str,int)",
    "tagged by a number": "#0|struct(?type=int:1,first_name,age;str,int)",
    "array": "#0|structarray(first_name,age;str,int)",
    "omitting": "#0|struct(first_name=str:x,age=int:0;str,int)",
}


def test_texts_of_structs_are_stable_in_every_release_and_every_version_of_msgspec() -> None:
    assert {name: graph_of(person(**DIFFERENT[name])).text() for name in TEXTS} == TEXTS
    assert graph_of(unset_struct(UNSET)).text() == "#0|struct(a=unset;union(;int,msgspec.UnsetType))"
    assert graph_of(struct(of_factory(list), omit_defaults=True)).text() == "#0|struct(a=builtins.list();any)"
