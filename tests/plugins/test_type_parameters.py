"""Generic classes, aliases and recursion: each type parameter is resolved in its own scope."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pytest

from metacache import InvalidTypeError, SerializationError, Serializer, load_serializer
from metacache.serializers import difference
from tests.plugins import generics

# Any: the tests use wrong values of these classes, and type expressions have no type.
G: Final[Any] = generics
ALL: Final = ("msgspec", "msgspec-json", "orjson", "attrs")
CONVERTED: Final = ("orjson", "attrs")
JSON: Final = ("json", "orjson")

# The type, values that are stored, values that are refused with the path, and the serializers that must serve the type.
SCOPES: Final[list[tuple[Any, Sequence[Any], dict[str, Any], Sequence[str]]]] = [
    (
        G.Box[list[G.Box[int]]],
        [G.Box([G.Box(1)]), G.Box([])],
        {"held[0]": G.Box([1, "x"]), "held[0].held": G.Box([G.Box("x")])},
        ["orjson", "msgspec"],
    ),
    (
        G.Case[list[G.Case[int]]],
        [G.Case([G.Case(1, [2])], [[G.Case(3)]])],
        {"held[0]": G.Case([1]), "more[0][0].held": G.Case([], [[G.Case("x")]])},
        ALL,
    ),
    (
        G.Box[G.Case[str]],
        [G.Box(G.Case("a", ["b"]))],
        {"held.held": G.Box(G.Case(1)), "held.more[0]": G.Box(G.Case("a", [1]))},
        ALL,
    ),
    (G.Case[G.Box[int]], [G.Case(G.Box(1))], {"held.held": G.Case(G.Box("x")), "held": G.Case(1)}, ALL),
    (
        G.Cell[list[G.Cell[int]]],
        [G.Cell([G.Cell(1)])],
        {"held[0].held": G.Cell([G.Cell("x")])},
        ["msgspec", "msgspec-json"],
    ),
    (
        G.Both[G.Box[int], G.Box[str]],
        [G.Both(G.Box(1), G.Box("a"))],
        {"other.held": G.Both(G.Box(1), G.Box(1)), "held.held": G.Both(G.Box("a"), G.Box("a"))},
        ["orjson", "msgspec"],
    ),
    (
        tuple[G.Box[int], G.Box[str]],
        [(G.Box(1), G.Box("a"))],
        {"[0].held": (G.Box("a"), G.Box("a")), "[1].held": (G.Box(1), G.Box(1))},
        ["orjson", "msgspec"],
    ),
    (G.Box[int] | G.Box[str], [G.Box(1), G.Box("a")], {"": G.Box(1.5)}, ["orjson"]),
    (G.IntBox, [G.IntBox(1)], {"held": G.IntBox("a"), "": G.Box(1)}, ["orjson", "msgspec"]),
    (
        G.Labelled,
        [G.Labelled(1, [2], "a")],
        {"held": G.Labelled("a"), "more[0]": G.Labelled(1, ["a"]), "label": G.Labelled(1, [], 1)},
        ALL,
    ),
    (G.Both[int, str], [G.Both(1, "a")], {"held": G.Both("a", "a"), "other": G.Both(1, 1)}, ["orjson", "msgspec"]),
    (G.Deep, [G.Deep("a", [1], 2.0)], {"held": G.Deep(1, [1]), "other[0]": G.Deep("a", ["a"])}, ["orjson", "msgspec"]),
    (
        G.Tree[int],
        [G.Tree(1, [G.Tree(2, [G.Tree(3)])])],
        {"children[0].children[0].held": G.Tree(1, [G.Tree(2, [G.Tree("a")])])},
        ["orjson", "msgspec"],
    ),
    (
        G.Swapped[int, str],
        [G.Swapped(1, "a", G.Swapped("b", 2, G.Swapped(3, "c")))],
        {"inner.one": G.Swapped(1, "a", G.Swapped(1, "a"))},
        ["orjson", "msgspec"],
    ),
    (G.Me, [G.Me("a", G.Me("b"))], {"parent.name": G.Me("a", G.Me(1))}, ["orjson"]),
    (G.Kid, [G.Kid("a", G.Kid("b"))], {"parent": G.Kid("a", G.Me("b"))}, ["orjson"]),
    (G.Row[int], [G.Row(1, [2])], {"rest[0]": G.Row(1, ["a"]), "held": G.Row("a", [])}, ["orjson", "msgspec"]),
    (G.Note[int], [{"held": 1, "inner": {"held": 2}}], {"inner.held": {"held": 1, "inner": {"held": "a"}}}, JSON),
    (G.IntNote, [{"held": 1, "label": "a", "inner": {"held": 2}}], {"held": {"held": "a", "label": "a"}}, JSON),
    (G.Bounded, [G.Bounded(1)], {"held": G.Bounded("a")}, ["orjson", "msgspec"]),
    (G.Bounded[bool], [G.Bounded(held=True)], {"held": G.Bounded(1)}, ["orjson", "msgspec"]),
    (G.Chosen, [G.Chosen(1), G.Chosen("a")], {"held": G.Chosen(1.5)}, ["orjson"]),
    (G.Chosen[str], [G.Chosen("a")], {"held": G.Chosen(1)}, ["orjson", "msgspec"]),
    (G.Standing[str], [G.Standing("a")], {"held": G.Standing(1)}, ["orjson", "msgspec"]),
    (G.Json, [{"a": [1, None, {"b": []}]}], {"values()[0][0]": {"a": [1.5]}, "": 1.5}, JSON),
    (G.Ping, [[{"a": [{}]}]], {"[0].values()[0]": [{"a": 1}], "[0]": [1]}, JSON),
    (G.Listed[int], [[1]], {"[0]": ["a"]}, JSON),
    (G.Nested[int], [1, [1, [2]]], {"[1][0]": [1, ["a"]]}, JSON),
    (G.InTuple, [(1, (2, None))], {"[1][0]": (1, ("a", None))}, ["orjson"]),
    (G.InRow, [1, G.Row(1, [G.Row(2, [])])], {"rest[0].held": G.Row(1, [G.Row("a", [])])}, ["orjson"]),
    (G.Boxes, [None, G.Box(G.Box(None))], {"held.held": G.Box(G.Box(1))}, ["orjson"]),
    (G.Box[G.Json], [G.Box({"a": [1]})], {"held.values()[0][0]": G.Box({"a": [1.5]})}, ["orjson"]),
    (
        dict[str, G.Box[G.Json] | G.Case[G.Json]],
        [{"a": G.Box(1), "b": G.Case([None])}],
        {"values()[0].held": {"a": G.Box(1.5)}},
        CONVERTED,
    ),
]

CASES: Final = [
    pytest.param(name, type_, kept, refused, id=f"{name} {type_}")
    for type_, kept, refused, names in SCOPES
    for name in names
]


@pytest.mark.parametrize(("name", "type_", "kept", "refused"), CASES)
def test_right_values_are_stored_and_wrong_ones_refused_with_the_path(
    name: str, type_: Any, kept: Sequence[Any], refused: dict[str, Any]
) -> None:
    serializer: Serializer[Any] = load_serializer(name, type_)
    for value in kept:
        assert difference(value, serializer.loads(serializer.dumps(value))) is None
    for where, value in refused.items():
        with pytest.raises(SerializationError) as raised:
            serializer.dumps(value)
        assert str(raised.value).startswith((f"$.{where}: ", f"${where}: "))


def test_a_type_parameter_without_an_argument_has_its_default() -> None:
    serializer: Serializer[Any] = load_serializer("orjson", G.Standing)
    assert serializer.loads(serializer.dumps(G.Standing(1))) == G.Standing(1)
    with pytest.raises(SerializationError, match=r"^\$\.held: expected int, got str$"):
        serializer.dumps(G.Standing("a"))


@pytest.mark.parametrize(
    ("type_", "reason"),
    [
        (G.Box, "Box.held: the type variable T has no type"),
        (list[G.Box], "Box.held: the type variable T has no type"),
        (G.Growing[int], "nested too deep"),
        (G.Itself, "stands for itself"),
        (G.Round, "stands for itself"),
        (list[G.About], "stands for itself"),
    ],
    ids=str,
)
def test_a_type_that_cannot_be_resolved_is_refused_with_the_reason(type_: Any, reason: str) -> None:
    with pytest.raises(InvalidTypeError, match=reason):
        load_serializer("orjson", type_)


def test_deep_values_of_a_recursive_type_are_stored_up_to_the_limit_and_refused_beyond() -> None:
    for name in JSON:
        serializer: Serializer[Any] = load_serializer(name, G.Json)
        stored = 0
        for levels in (1, 10, 100, 200, 250, 10_000):
            value: Any = []
            for _ in range(levels):
                value = [value]
            try:
                data = serializer.dumps(value)
            except SerializationError as refused:
                assert str(refused) == "$: nested too deeply"  # noqa: PT017 - both outcomes are right
                continue
            assert serializer.loads(data) == value
            stored = levels
        assert 100 <= stored < 10_000
