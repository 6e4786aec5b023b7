"""For generated types and values: a value that `dumps` accepts comes back the same; any other error names a path."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import math
import re
import types
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import attrs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metacache import InvalidTypeError, SerializationError, Serializer, load_serializer
from metacache.serializers import difference
from tests.serializers.records import SERIALIZERS, Boxed, Chosen, Leaf, Node, Perm, Place, Row

# Any: a type expression.
Case: TypeAlias = tuple[Any, st.SearchStrategy[Any]]

ZONES: Final = st.sampled_from(
    [None, datetime.UTC, datetime.timezone(datetime.timedelta(hours=2)), datetime.timezone.max]
    + [datetime.timezone(datetime.timedelta(seconds=30)), datetime.timezone(datetime.timedelta(hours=1), "CET")]
    + [zoneinfo.ZoneInfo("Europe/Berlin"), zoneinfo.ZoneInfo("UTC")]
)  # fmt: skip
FOLDS: Final = st.integers(0, 1)


def zoned(moment: Any, zone: datetime.tzinfo | None, fold: int) -> Any:  # Any: a datetime or a time
    return moment.replace(tzinfo=zone, fold=fold)


# For each type all values of its class, also those that some format cannot hold.
SCALARS: Final[list[Case]] = [
    (type(None), st.none()),
    (bool, st.booleans()),
    (int, st.integers()),
    (float, st.floats() | st.integers()),
    (str, st.text(max_size=4)),
    (bytes, st.binary(max_size=4)),
    (datetime.date, st.dates()),
    (datetime.datetime, st.builds(zoned, st.datetimes(), ZONES, FOLDS)),
    (datetime.time, st.builds(zoned, st.times(), ZONES, FOLDS)),
    (datetime.timedelta, st.timedeltas()),
    (decimal.Decimal, st.decimals() | st.sampled_from([decimal.Decimal("sNaN"), decimal.Decimal("-NaN7")])),
    (uuid.UUID, st.uuids()),
    (Perm, st.builds(Perm, st.integers(0, 3))),
    (Chosen, st.builds(Chosen, st.integers(0, 3))),
    (Place, st.builds(Place, st.text(max_size=2), st.text(max_size=2))),
    (Leaf, st.builds(Leaf, st.integers(), st.floats() | st.integers())),
    (Row, st.builds(Row, st.integers(), st.floats() | st.integers())),
]  # fmt: skip
# A signaling NaN has no hash.
HASHABLE: Final = [case for case in SCALARS if case[0] not in (Place, decimal.Decimal)]
HASHABLE.append((decimal.Decimal, st.decimals(allow_nan=False)))

_count = 0


def numbered() -> str:
    """Return a class name that is not used yet."""
    global _count
    _count += 1
    return f"Made{_count}"


def importable(class_: type) -> type:
    """Make *class_* importable by its name, so that it can have a fingerprint."""
    class_.__module__, class_.__qualname__ = "somewhere", class_.__name__
    return class_


def dataclass(names: list[str], parts: list[Any]) -> type:
    return importable(dataclasses.make_dataclass(numbered(), list(zip(names, parts, strict=True))))


def attrs_class(names: list[str], parts: list[Any]) -> type:
    fields: dict[str, Any] = {name: attrs.field(type=part) for name, part in zip(names, parts, strict=True)}
    return importable(attrs.make_class(numbered(), fields))


def struct(names: list[str], parts: list[Any]) -> type:
    return importable(msgspec.defstruct(numbered(), list(zip(names, parts, strict=True))))


MAKERS: Final[list[Callable[[list[str], list[Any]], type]]] = [dataclass, attrs_class, struct]


@st.composite
def records(draw: st.DrawFn, inner: st.SearchStrategy[Case]) -> Case:
    cases = draw(st.lists(inner, min_size=1, max_size=3))
    names = [f"field{index}" for index in range(len(cases))]
    class_ = draw(st.sampled_from(MAKERS))(names, [type_ for type_, _ in cases])
    return class_, st.builds(class_, *(values for _, values in cases))


def of(class_: Any, *arguments: Any) -> Any:  # Any: type expressions
    return class_[arguments[0] if len(arguments) == 1 else arguments]


def boxed(case: Case) -> Case:
    type_, values = case
    return of(Boxed, type_), st.builds(Boxed, values)


def tree(case: Case) -> Case:
    type_, values = case
    leaf = st.builds(Node, values)
    return of(Node, type_), st.builds(Node, values, st.lists(leaf, max_size=2))


def rows(cases: list[Case]) -> Case:
    return types.GenericAlias(tuple, tuple(type_ for type_, _ in cases)), st.tuples(*(values for _, values in cases))


def either(cases: tuple[Case, Case]) -> Case:
    (one, some), (other, others) = cases
    return one | other, some | others


def mapping(cases: tuple[Case, Case]) -> Case:
    (key, keys), (part, values) = cases
    return of(dict, key, part), unique(st.tuples(keys, values)).map(dict)


def unique(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    """Return lists of values with different reprs, because the hash of a NaN differs from run to run."""
    return st.lists(values, unique_by=repr, max_size=3)


def containers(inner: st.SearchStrategy[Case]) -> st.SearchStrategy[Case]:
    hashable = st.sampled_from(HASHABLE)
    return st.one_of(
        inner.map(lambda case: (of(list, case[0]), st.lists(case[1], max_size=2))),
        hashable.map(lambda case: (of(set, case[0]), unique(case[1]).map(set))),
        hashable.map(lambda case: (of(frozenset, case[0]), unique(case[1]).map(frozenset))),
        st.tuples(hashable, inner).map(mapping),
        st.lists(inner, min_size=1, max_size=3).map(rows),
        st.tuples(inner, inner).map(either),
        inner.map(boxed),
        inner.map(tree),
        records(inner),
    )


CASES: Final = st.recursive(st.sampled_from(SCALARS), containers, max_leaves=6)


@st.composite
def types_and_values(draw: st.DrawFn) -> tuple[Any, Any]:
    """Return a type, and a value of this type or of another type."""
    type_, values = draw(CASES)
    _, others = draw(CASES)
    return type_, draw(st.one_of(values, values, others))


def check(serializer: Serializer[Any], value: Any) -> None:
    refusal = ""
    try:
        data = serializer.dumps(value)
    except SerializationError as refused:
        refusal = str(refused)
    else:
        assert difference(value, serializer.loads(data)) is None
    assert refusal[:1] in ("", "$")


@pytest.mark.parametrize("name", [*SERIALIZERS, "pydantic"])
@settings(max_examples=300, deadline=None)
@given(case=types_and_values())
def test_a_value_comes_back_the_same_or_the_error_names_its_part(name: str, case: tuple[Any, Any]) -> None:
    type_, value = case
    try:
        serializer = load_serializer(name, type_)
    except InvalidTypeError:
        return
    check(serializer, value)


PLAIN: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.binary(max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2) | st.integers(), inner, max_size=3)
    | st.tuples(inner) | st.builds(Place, inner, inner),
    max_leaves=8,
)  # fmt: skip


@pytest.mark.parametrize("name", [*SERIALIZERS, "pydantic"])
@settings(deadline=None)
@given(value=PLAIN)
def test_a_value_of_type_any_comes_back_the_same_or_the_error_names_its_part(name: str, value: Any) -> None:
    type_: Any = Any if name != "attrs" else Boxed[Leaf | Any]
    if name == "attrs":
        value = Boxed(value)
    serializer = load_serializer(name, type_)
    check(serializer, value)


# Few values, so that two values are often the same.
FEW: Final = st.recursive(
    st.sampled_from([None, True, False, 1, 0, "a", b"a", 0.5, math.nan]),
    lambda inner: st.lists(inner, max_size=2) | st.tuples(inner) | st.dictionaries(st.sampled_from("ab"), inner)
    | st.builds(Place, inner, inner),
    max_leaves=3,
)  # fmt: skip


@settings(max_examples=2000, deadline=None)
@given(value=FEW, other=FEW)
def test_two_values_are_the_same_if_their_canonical_reprs_are_equal(value: Any, other: Any) -> None:
    assert difference(value, value) is None
    assert (difference(value, other) is None) == (canonical_repr(value) == canonical_repr(other))


def canonical_repr(value: Any) -> str:
    """Return a text that is equal for values that are the same. Independent of the code under test."""
    text, count = repr(value), 1
    while count:  # from the innermost dict to the outermost
        text, count = re.subn(r"\{[^{}]*\}", lambda found: f"<{sorted(found[0][1:-1].split(', '))}>", text)
    return text


@given(number=st.integers(), real=st.floats(allow_nan=False))
def test_an_int_is_the_same_as_the_equal_float_decoded_for_it(number: int, real: float) -> None:
    assert (difference(number, real) is None) == (not math.isinf(real) and number == real)
    assert difference(real, number) is not None
