"""The texts of two random types are equal if and only if the types are equal. Simple models decide equality."""

from __future__ import annotations

import dataclasses
import datetime
import types
import typing
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal

import annotated_types
from hypothesis import example, given
from hypothesis import strategies as st
from typing_extensions import Doc, TypeAliasType

from metacache.serializers.shapes import graph_of
from tests.serializers.golden_types import Box, Color

# Any: type expressions, each with a model of it that is equal for equal types.
Case = tuple[Any, Any]
alias: Any = TypeAliasType  # type checkers accept only aliases that are assigned to a name


def of_list(part: Case) -> Case:
    return types.GenericAlias(list, part[0]), ("list", part[1])


def of_alias(part: Case) -> Case:
    return alias("Alias", part[0]), part[1]


def of_annotated(part: Case) -> Case:
    return Annotated[part[0], Doc("x"), {"unhashable": 1}], part[1]


def of_constrained(part: Case) -> Case:
    limited = ("gt", part[1])
    return Annotated[types.GenericAlias(tuple, part[0]), annotated_types.Gt(1)], limited


def of_box(part: Case) -> Case:
    return types.GenericAlias(Box, part[0]), ("box", part[1])


def of_pair(parts: tuple[Case, Case]) -> Case:
    return types.GenericAlias(tuple, tuple(part[0] for part in parts)), ("tuple", *(part[1] for part in parts))


def of_record(parts: tuple[Case, Case]) -> Case:
    made = dataclasses.make_dataclass("Made", [("a", parts[0][0]), ("b", parts[1][0])])
    return made, ("record", *(part[1] for part in parts))


def of_union(parts: tuple[Case, Case]) -> Case:
    members: set[object] = set()
    for _, model in parts:
        members |= model[1] if model[0] == "union" else {model}
    model = ("union", frozenset(members)) if len(members) > 1 else next(iter(members))
    return union(part[0] for part in parts), model


def union(members: Iterable[Any]) -> Any:
    return typing.Union[tuple(members)]  # noqa: UP007 - the members are known at run time only


SCALARS: Final = [int, str, None, bytes, datetime.date, Color, Literal["red"], Literal[Color.RED]]
CASES: Final = st.recursive(
    st.sampled_from([(type_, ("scalar", index)) for index, type_ in enumerate(SCALARS)]),
    lambda part: st.one_of(
        part.map(of_list),
        part.map(of_alias),
        part.map(of_constrained),
        part.map(of_box),
        st.tuples(part, part).map(of_pair),
        st.tuples(part, part).map(of_union),
        st.tuples(part, part).map(of_record),
    ),
    max_leaves=4,
)


@given(CASES, CASES)
@example((Literal["red"], "the str"), (Literal[Color.RED], "the member"))
@example((Box[list[Box[int]]], "of int"), (Box[list[Box[str]]], "of str"))
@example((tuple[()], "empty"), (tuple, "of anything"))
def test_texts_are_equal_exactly_if_types_are_equal(one: Case, other: Case) -> None:
    assert (graph_of(one[0]).text() == graph_of(other[0]).text()) == (one[1] == other[1])


@given(st.lists(CASES, min_size=2, max_size=4), st.randoms())
def test_the_order_and_the_spelling_of_a_union_do_not_count(members: list[Case], random: Any) -> None:
    types_ = [member for member, _ in members]
    one = graph_of(union(types_)).text()
    random.shuffle(types_)
    other = graph_of(union(alias("Alias", type_) for type_ in types_)).text()
    assert one == other


@given(CASES)
def test_documentation_does_not_count(case: Case) -> None:
    assert graph_of(of_annotated(case)[0]).text() == graph_of(case[0]).text()
    assert graph_of(of_box(of_annotated(case))[0]).text() == graph_of(of_box(case)[0]).text()
