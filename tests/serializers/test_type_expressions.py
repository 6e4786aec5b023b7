"""Every type expression has a fingerprint or is refused with a reason. The same holds for every serializer."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import functools
import logging
import sys
import types
import typing
from collections.abc import Callable, Iterator
from typing import Annotated, Any, ClassVar, Concatenate, Final, Generic, Literal, ParamSpec, Self, TypeGuard, TypeVar

import annotated_types
import attrs
import msgspec
import pytest
from typing_extensions import Doc, TypeAliasType, TypedDict, override

from metacache import InvalidTypeError, SerializationError, connect, connect_async, load_serializer
from metacache.serializers import fingerprint
from metacache.serializers.names import type_name
from metacache.serializers.shapes import graph_of
from tests.serializers.golden_types import TYPES, Box, Json, Shop

T = TypeVar("T")
P = ParamSpec("P")

SERIALIZERS: Final = ("json", "msgspec", "msgspec-json", "orjson", "attrs")


class Plain(msgspec.Struct):
    name: str


class Optionally(msgspec.Struct):
    name: str | msgspec.UnsetType = msgspec.UNSET


class Held(msgspec.Struct, Generic[T]):
    held: T | list[Held[T]]


class Note(TypedDict):
    text: str
    kind: Literal["a", "b"]


class Unit(enum.Enum):
    """A plain class, whose values have no text."""

    NOTHING = object()


@attrs.define
class Untyped:
    a = attrs.field(default=1)  # type: ignore[var-annotated]  # that is under test  # pyright: ignore[reportGeneralTypeIssues] - as said


@attrs.define(auto_attribs=False)
class OldAttrs:
    a = attrs.field(type=int)  # pyright: ignore[reportGeneralTypeIssues] - as above
    b: Any = attrs.field()


class Evil:
    """An object whose methods all fail."""

    __hash__: Any = None

    @override
    def __repr__(self) -> str:
        raise AssertionError("an unknown object was shown")

    @override
    def __eq__(self, other: object) -> bool:
        raise AssertionError("an unknown object was compared")


class Meta(type):
    @override
    def __eq__(cls, other: object) -> bool:
        raise AssertionError("a class was compared")

    @override
    def __hash__(cls) -> int:
        return hash(int)


class Incomparable(metaclass=Meta):
    pass


class Group(annotated_types.GroupedMetadata):
    def __init__(self, *parts: object) -> None:
        self._parts = parts

    @override
    def __iter__(self) -> Iterator[object]:
        return iter(self._parts)


class Endless(annotated_types.GroupedMetadata):
    @override
    def __iter__(self) -> Iterator[object]:
        return iter((self,))


class Raising(annotated_types.GroupedMetadata):
    @override
    def __iter__(self) -> Iterator[object]:
        raise ValueError("no")


# Any: the tests use expressions that type checkers refuse.
limit: Any = annotated_types.Gt
zone: Any = annotated_types.Timezone
alias: Any = TypeAliasType
unbound: Any = T
function: Any = connect

Loop: Any = alias("Loop", "Loop")
Own: Any = alias("Own", "Own | int")
Ring: Any = alias("Ring", "Annotated[Gnir, 1] | int")
Gnir: Any = alias("Gnir", "Ring | str")
Lost: Any = alias("Lost", "list[Missing]")

MORE: Final[dict[str, object]] = {
    "struct": Plain,
    "struct with an optional field": Optionally,
    "recursive generic struct": Held[int],
    "unset": msgspec.UnsetType,
    "int or unset": int | msgspec.UnsetType,
    "raw": msgspec.Raw,
    "extension": msgspec.msgpack.Ext,
    "msgspec's constraints": Annotated[str, msgspec.Meta(min_length=1, pattern="^a,b;(c)$", title="t")],
    "note": Note,
    "fields without annotations": OldAttrs,
    "unhashable metadata": Annotated[int, {"unit": "c"}],
    "unhashable metadata inside": dict[str, list[Annotated[int, {"unit": "c"}]]],
    "unhashable metadata in a parameter": Box[Annotated[int, {"unit": "c"}]],
    "hostile metadata": Annotated[int, Evil()],
    "grouped metadata": Annotated[int, Group(annotated_types.Gt(0), Doc("x"), Group(annotated_types.Lt(9)))],
}

NO_TYPES: Final[dict[str, object]] = {
    "a number": 7,
    "a text": "int",
    "a list": [],
    "a list of types": [int],
    "an ellipsis": ...,
    "an instance": Plain("secret"),
    "a hostile object": Evil(),
    "a function": connect,
    "a module": typing,
    "an init variable": dataclasses.InitVar[int],
}

# Refused expressions, and a part of the reason.
REFUSED: Final[dict[str, tuple[object, str]]] = {
    "optional of nothing": (typing.Optional, "values cannot have it as their type"),
    "union of nothing": (typing.Union, "values cannot have it as their type"),
    "literal of nothing": (Literal, "values cannot have it as their type"),
    "final of nothing": (Final, "values cannot have it as their type"),
    "class variable": (ClassVar[int], "ClassVar, which is not a type of values"),
    "type guard": (TypeGuard[int], "TypeGuard, which is not a type of values"),
    "concatenation": (Concatenate[int, ...], "Concatenate, which is not a type of values"),
    "self": (Self, "values cannot have it as their type"),
    "type variable": (T, "the type variable T, which is not bound here"),
    "list of a type variable": (list[unbound], "the type variable T"),
    "parameters": (P, "the type variable P"),
    "generic itself": (Generic, "class typing.Generic of the standard library"),
    "unknown of the standard library": (logging.Logger, "of the standard library, which metacache does not support"),
    "enum of objects": (Unit, "a value of class object, which has no text"),
    "an alias of itself": (Loop, "an alias that stands for itself"),
    "alias of what is not there": (Lost, "the alias Lost, which cannot be evaluated"),
    "hostile class": (Incomparable, "a class that cannot be inspected (AssertionError: a class was compared)"),
    "list of a hostile class": (list[Incomparable], "a class that cannot be inspected"),
    "text in a list": (list["int"], "a type in quotes"),
    "text in an optional": (typing.Optional["Loop"], "a type in quotes"),
    "context manager": (typing.ContextManager[int], "of the standard library, which metacache does not support"),
    "hostile constraint": (Annotated[int, limit(Evil())], "a value of class Evil, which has no text"),
    "zone without a name": (Annotated[datetime.datetime, zone(Shop())], "a time zone of class Shop"),
    "raising metadata": (Annotated[int, Raising()], "metadata of class Raising that cannot be read (ValueError: no)"),
    "metadata of itself": (Annotated[int, Endless()], "nested too deep"),
}  # fmt: skip


def local_types() -> dict[str, object]:
    class Local:
        pass

    @attrs.define
    class Holder:
        held: Local

    Holder.__annotations__["held"] = Local
    return {"local class": Local, "list of a local class": list[Local], "generic of a local class": Box[Local]}


def test_every_expression_of_the_table_has_a_fingerprint_and_equal_ones_are_equal() -> None:
    assert len(TYPES | MORE) >= 150
    for name, type_ in (TYPES | MORE).items():
        assert 1 <= fingerprint(type_) <= 0xFFFF, name
        assert fingerprint(type_) == fingerprint(type_), name


@pytest.mark.parametrize(("type_", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_type_without_a_shape_is_refused_with_the_reason(type_: object, reason: str) -> None:
    with pytest.raises(InvalidTypeError, match="has no fingerprint: ") as refused:
        fingerprint(type_)
    assert reason in str(refused.value)


@pytest.mark.parametrize("given", NO_TYPES.values(), ids=NO_TYPES)
def test_an_object_that_is_not_a_type_is_refused_without_quoting_it(given: Any) -> None:
    shown = f"an object of class {type(given).__name__}"
    hint = "give a class or an expression such as list[int]"
    for make in (fingerprint, functools.partial(connect, "memcached://127.0.0.1:1")):
        with pytest.raises(InvalidTypeError) as refused:
            make(given)
        assert str(refused.value) == f"{shown} is not a type; {hint}"
    for serializer in SERIALIZERS:
        with pytest.raises(InvalidTypeError) as refused:
            load_serializer(serializer, given)
        assert str(refused.value) == f"serializer '{serializer}' does not serve {shown}: it is not a type; {hint}"


@pytest.mark.parametrize("alias", [Own, Ring, Gnir, list[Own]])
def test_an_alias_that_stands_for_itself_is_refused(alias: object) -> None:
    with pytest.raises(InvalidTypeError, match="it contains an alias that stands for itself"):
        fingerprint(alias)


@pytest.mark.parametrize("type_", local_types().values(), ids=local_types())
def test_a_class_that_is_local_to_a_function_is_refused(type_: object) -> None:
    with pytest.raises(InvalidTypeError, match=r"class local_types\.<locals>\.Local, which is local to a function"):
        fingerprint(type_)


def test_a_class_of_main_is_refused_but_its_records_are_not() -> None:
    names: dict[str, Any] = {"__name__": "__main__", "dataclass": dataclasses.dataclass}
    exec("class Shop: pass\n@dataclass\nclass Data:\n    a: int", names)
    with pytest.raises(InvalidTypeError, match="class Shop of __main__"):
        fingerprint(names["Shop"])
    assert fingerprint(names["Data"]) != 0


def test_a_class_that_its_name_does_not_lead_to_is_refused() -> None:
    made = type("Shop", (), {"__module__": Shop.__module__})
    with pytest.raises(InvalidTypeError, match="but that name refers to another object"):
        fingerprint(made)
    assert fingerprint(Shop) != 0


def test_a_class_without_a_shape_counts_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    other = type("Other", (), {"__module__": Shop.__module__})
    monkeypatch.setattr(sys.modules[Shop.__module__], "Other", other, raising=False)
    assert fingerprint(Shop) != fingerprint(other)
    assert graph_of(other).text() == "class(tests.serializers.golden_types.Other;)"


# --- for each serializer ---------------------------------------------------------------------------------------------

ALL: Final = TYPES | MORE | {name: type_ for name, (type_, _) in REFUSED.items()} | local_types()


@functools.cache
def outcomes(serializer: str) -> dict[str, int | str]:
    """Return, for each type, the fingerprint of its serializer, or the reason why *serializer* does not serve it."""
    found: dict[str, int | str] = {}
    for name, type_ in ALL.items():
        known: Any = type_  # Any: a type expression, or an object that is not one
        try:
            found[name] = load_serializer(serializer, known).fingerprint
        except InvalidTypeError as refused:
            found[name] = str(refused)
    return found


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_a_serializer_serves_a_type_with_a_fingerprint_or_refuses_it(serializer: str) -> None:
    served = {name: found for name, found in outcomes(serializer).items() if isinstance(found, int)}
    refused = {name: found for name, found in outcomes(serializer).items() if isinstance(found, str)}
    assert served == {name: fingerprint(ALL[name]) for name in served}
    assert all(message.startswith(f"serializer '{serializer}' does not serve ") for message in refused.values())
    assert min(len(served), len(refused)) >= 10
    assert not served.keys() & REFUSED.keys()


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_types_that_differ_do_not_share_their_text(serializer: str) -> None:
    """Equal types in two spellings share a text; `test_fingerprint` lists those of the table."""
    served = {name: found for name, found in outcomes(serializer).items() if isinstance(found, int)}
    texts = {graph_of(ALL[name]).text() for name in served}
    assert len(texts) == len(set(served.values()))


@pytest.mark.parametrize("make", [connect, connect_async])
@pytest.mark.parametrize("type_", [T, Unit, Annotated[int, Raising()], list[function], Lost], ids=type_name)
def test_connect_reports_the_same_reason(make: Callable[..., object], type_: object) -> None:
    for options in ({}, {"serializer": "msgspec"}, {"serializer": "orjson"}):
        with pytest.raises(InvalidTypeError, match=r"need a serializer: |does not serve "):
            make("memcached://127.0.0.1:1", type_, **options)


# --- scopes of type variables ----------------------------------------------------------------------------------------


@dataclasses.dataclass
class Outer(Generic[T]):
    inner: Box[list[T]]


@dataclasses.dataclass
class Middle(Outer[dict[str, T]], Generic[T]):
    own: T


@dataclasses.dataclass
class Last(Middle[int]):
    pass


class Keyed(TypedDict, Generic[T]):
    key: T


class KeyedToo(Keyed[int]):
    other: str


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Outer[int], Outer[str]),
        (Middle[int], Middle[str]),
        (Box[list[Box[int]]], Box[list[Box[str]]]),
        (Box[Box[Box[int]]], Box[Box[Box[str]]]),
        (Box[Outer[int]], Box[Outer[str]]),
        (Held[int], Held[str]),
        (Keyed[int], Keyed[str]),
        (Box[int], Box),
    ],
    ids=repr,
)
def test_type_arguments_reach_the_fields_of_generic_classes(one: object, other: object) -> None:
    assert graph_of(one).text() != graph_of(other).text()


def test_a_type_variable_is_resolved_in_its_own_class() -> None:
    shared = "#0|record(inner,own;#1,int)|record(held;list(;dict(;str,int)))"
    assert graph_of(Middle[int]).text() == shared
    assert graph_of(Last).text() == shared
    assert graph_of(KeyedToo).text() == "#0|typeddict(key,other;int,str)"
    assert graph_of(Box[list[Box[int]]]).text() == "#0|record(held;list(;#1))|record(held;int)"


def test_a_recursive_alias_is_checked_at_every_depth() -> None:
    json: Any = load_serializer("json", Json)
    value = {"a": [1, {"b": None, "c": [[0], {"d": [True, "x", 1.5]}]}]}
    assert json.loads(json.dumps(value)) == value
    with pytest.raises(SerializationError):
        json.dumps({"a": [{"b": [b"no JSON"]}]})


# --- large and recursive types ---------------------------------------------------------------------------------------


def mutual(count: int, *, reverse: bool = False) -> type:
    """Return the first of *count* classes. Each of them refers to all of them."""
    namespace: dict[str, Any] = {"dataclass": dataclasses.dataclass, "__name__": "mutual"}
    order = reversed(range(count)) if reverse else range(count)
    union = " | ".join(f"C{index}" for index in order)
    sources = [
        f"@dataclass\nclass C{index}:\n    f{index}: '{union}'\n    more: 'list[{union}]'" for index in range(count)
    ]
    module = sys.modules["mutual"] = types.ModuleType("mutual")
    exec("\n".join(sources), namespace)
    vars(module).update(namespace)
    first: type = namespace["C0"]
    return first


def test_mutually_recursive_classes_make_one_small_graph() -> None:
    texts = {graph_of(mutual(20, reverse=reverse)).text() for reverse in (False, True)}
    assert len(texts) == 1
    assert len(texts.pop()) < 20_000
    assert fingerprint(mutual(20)) != fingerprint(mutual(19))


def test_a_long_chain_of_classes_is_served() -> None:
    made: Any = int
    for index in range(300):
        made = dataclasses.make_dataclass(f"C{index}", [("inner", made)])
    assert fingerprint(made) != 0


@dataclasses.dataclass
class Growing(Generic[T]):
    inner: Growing[list[T]] | None


def test_a_type_that_never_ends_is_refused() -> None:
    with pytest.raises(InvalidTypeError, match=r"it contains a type that is nested too deep|more than 100,000 parts"):
        fingerprint(Growing[int])


def test_an_unrolled_recursion_is_the_same_shape() -> None:
    assert graph_of(Chain).text() == graph_of(Unrolled).text()


@dataclasses.dataclass
class Chain:
    next: Chain | None


@dataclasses.dataclass
class Unrolled:
    next: UnrolledToo | None


@dataclasses.dataclass
class UnrolledToo:
    next: Unrolled | None
