"""Values come back equal and of the same class. Values of another type are refused before anything is stored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, NotRequired, TypedDict, TypeVar

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metacache import Client, SerializationError, Serializer, load_serializer
from metacache.serializers.builtin import BytesSerializer, IntSerializer, StrSerializer
from metacache.testing import FakeTransport
from tests.ids import stable
from tests.serializers.orders import CASES, ORDER, Case

T = TypeVar("T")

# MessagePack and orjson have ints of 64 bits.
INTS: Final = st.integers(-(2**63), 2**63 - 1)
FLOATS: Final = st.floats(allow_nan=False, allow_infinity=False)
TEXTS: Final = st.text(st.characters(codec="utf-8"))
ORDERS: Final = st.fixed_dictionaries(
    {
        "number": INTS,
        "total": FLOATS,
        "customer": TEXTS,
        "paid": st.booleans(),
        "note": st.none() | TEXTS,
        "tags": st.lists(TEXTS, max_size=3),
        "counts": st.dictionaries(TEXTS, INTS, max_size=3),
        "lines": st.lists(st.fixed_dictionaries({"sku": TEXTS, "quantity": INTS}), max_size=3),
    }
)


def comes_back(serializer: Serializer[T], value: T) -> None:
    again = serializer.loads(serializer.dumps(value))
    assert again == value
    assert type(again) is type(value)


class Note(TypedDict):
    text: str
    by: NotRequired[str]


def test_a_key_that_is_not_required_may_be_missing() -> None:
    for name in ("json", "orjson"):
        comes_back(load_serializer(name, Note), Note(text="a"))
        comes_back(load_serializer(name, Note), Note(text="a", by="b"))


@given(st.binary())
def test_any_bytes_come_back(value: bytes) -> None:
    comes_back(BytesSerializer(), value)


@given(TEXTS)
def test_any_text_comes_back(value: str) -> None:
    comes_back(StrSerializer(), value)


@given(st.integers())
def test_any_int_comes_back(value: int) -> None:
    comes_back(IntSerializer(), value)


@given(st.integers(0, 2**64 - 1), st.integers(0, 3))
def test_a_number_that_a_decrement_padded_is_read(value: int, spaces: int) -> None:
    assert IntSerializer().loads(b"%d%b" % (value, b" " * spaces)) == value


@given(ORDERS)
def test_any_order_comes_back_from_every_serializer(order: Mapping[str, object]) -> None:
    for case in CASES.values():
        is_model = issubclass(case.type_, pydantic.BaseModel)
        comes_back(
            case.serializer, case.type_.model_validate(order) if is_model else msgspec.convert(order, case.type_)
        )


class Text(str):
    __slots__ = ()


class Number(int):
    pass


@pytest.mark.parametrize(
    ("serializer", "value"),
    [
        *((BytesSerializer(), value) for value in (None, "a", 1, True, [97], bytearray(b"a"), memoryview(b"a"))),
        *((StrSerializer(), value) for value in (None, b"a", 1, True, ["a"], Text("a"), "\ud800")),
        *((IntSerializer(), value) for value in (None, b"1", "1", 1.0, True, [1], Number(1))),
        (load_serializer("json", float), math.nan),
        (load_serializer("json", float), math.inf),
        (load_serializer("json", list[int]), (1,)),
        (load_serializer("json", dict[str, int]), {1: 1}),
    ],
)
# Any: a serializer of any type, and a value of another.
def test_a_value_of_another_type_is_refused_and_nothing_is_sent(serializer: Serializer[Any], value: object) -> None:
    transport = FakeTransport()
    client = Client(transport, serializer)
    with pytest.raises(SerializationError) as refused:
        client.set("k", value)
    assert transport.operations == []
    assert str(refused.value).startswith("set 'k': ")


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize(
    "value", [None, 1, True, "order", b"order", [], {}, ORDER["lines"], object()], ids=stable(repr)
)
def test_a_value_that_is_not_an_order_is_refused(case: Case[Any], value: object) -> None:
    with pytest.raises(SerializationError):
        Client(FakeTransport(), case.serializer).set("k", value)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize(
    ("field", "value"),
    [("number", "7"), ("number", 7.0), ("number", True), ("total", True), ("customer", None), ("paid", 1)]
    + [("note", 0), ("tags", "abc"), ("tags", ["a", 1]), ("counts", {"a": 1.5}), ("lines", [None]), ("lines", None)],
)
def test_an_order_with_a_field_of_another_type_is_refused(case: Case[Any], field: str, value: object) -> None:
    is_dict = isinstance(case.value, dict)
    parts = {name: case.value[name] if is_dict else getattr(case.value, name) for name in ORDER}
    # The constructor of a model would refuse the value itself. Any: a value of a wrong type.
    wrong: dict[str, Any] = {**parts, field: value}
    make = case.type_.model_construct if issubclass(case.type_, pydantic.BaseModel) else case.type_
    order = make(**wrong)
    with pytest.raises(SerializationError):
        Client(FakeTransport(), case.serializer).set("k", order)
