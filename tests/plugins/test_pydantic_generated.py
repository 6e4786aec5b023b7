"""For generated models and values: what the pydantic serializer writes comes back the same, and damage is no value."""

from __future__ import annotations

import datetime
import decimal
import types
import uuid
from typing import Any, Final, TypeAlias

import pydantic
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from metacache import InvalidTypeError, SerializationError, Serializer, load_serializer
from metacache.serializers import difference
from tests.plugins.models import Address, Event, Log, User
from tests.serializers.test_generated_values import FOLDS, ZONES, importable, numbered, unique, zoned

# Any: a type expression.
Case: TypeAlias = tuple[Any, st.SearchStrategy[Any]]

ADDRESSES: Final = st.builds(Address, street=st.text(max_size=2)) | st.builds(
    Address, street=st.text(max_size=2), zip=st.text(max_size=2)
)

# For each type all values of its class, also those that the format cannot hold.
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
    (decimal.Decimal, st.decimals()),
    (uuid.UUID, st.uuids()),
    (Address, ADDRESSES),
    (Event, st.builds(Event) | st.builds(Event, name=st.text(max_size=2))),
    (Any, st.none() | st.integers() | st.tuples(st.integers()) | st.dictionaries(st.text(max_size=1), st.floats())),
]  # fmt: skip
HASHABLE: Final = [case for case in SCALARS if case[0] not in (Address, Event, Any, decimal.Decimal)]


@st.composite
def models(draw: st.DrawFn, inner: st.SearchStrategy[Case]) -> Case:
    """Return a new model, and values of it with some fields unset."""
    cases = draw(st.lists(inner, min_size=1, max_size=3))
    fields: dict[str, Any] = {}
    for index, (type_, values) in enumerate(cases):
        kind = draw(st.sampled_from(["required", "default", "factory"]))
        default = {"required": ..., "default": draw(values)}.get(kind, pydantic.Field(default_factory=uuid.uuid4))
        fields[f"field{index}"] = (type_, default)
    class_: Any = importable(pydantic.create_model(numbered(), **fields))

    def make(given: dict[str, Any]) -> Any:
        return class_.model_construct(_fields_set=set(given), **given)

    values_of = {name: values for name, (_, values) in zip(fields, cases, strict=True)}
    return class_, st.fixed_dictionaries({}, optional=values_of).map(make)


def containers(inner: st.SearchStrategy[Case]) -> st.SearchStrategy[Case]:
    return st.one_of(
        models(inner),
        inner.map(lambda case: (types.GenericAlias(list, (case[0],)), st.lists(case[1], max_size=3))),
        st.sampled_from(HASHABLE).map(
            lambda case: (types.GenericAlias(set, (case[0],)), unique(case[1]).map(set))
        ),
        inner.map(
            lambda case: (
                types.GenericAlias(dict, (str, case[0])),
                st.dictionaries(st.text(max_size=2), case[1], max_size=3),
            )
        ),
        st.tuples(inner, inner).map(lambda pair: (pair[0][0] | pair[1][0], pair[0][1] | pair[1][1])),
    )  # fmt: skip


CASES: Final = st.recursive(st.sampled_from(SCALARS), containers, max_leaves=6)


@st.composite
def types_and_values(draw: st.DrawFn) -> tuple[Any, Any]:
    """Return a type, and a value of this type or of another type."""
    type_, values = draw(CASES)
    _, others = draw(CASES)
    return type_, draw(st.one_of(values, values, others))


@settings(max_examples=500, deadline=None)
@given(case=types_and_values())
def test_a_value_comes_back_the_same_or_the_error_names_its_part(case: tuple[Any, Any]) -> None:
    type_, value = case
    try:
        serializer: Serializer[Any] = load_serializer("pydantic", type_)
    except InvalidTypeError:
        return
    refusal = ""
    try:
        data = serializer.dumps(value)
    except SerializationError as refused:
        refusal = str(refused)
    else:
        assert difference(value, serializer.loads(data)) is None
    assert refusal[:1] in ("", "$")


DAMAGED: Final[list[tuple[Any, Any]]] = [
    (User, User(name="Zoë", age=4, tags={"a", "b"}, addresses=[Address(street="c")])),
    (Log, Log(events=[Event(id=uuid.UUID(int=1))])),
    (dict[str, list[float | None]], {"a": [1.5, None]}),
]


@pytest.mark.parametrize(("type_", "value"), DAMAGED, ids=["model", "unset fields", "dict"])
def test_damaged_bytes_are_a_value_of_the_type_or_an_error(type_: Any, value: Any) -> None:
    serializer = load_serializer("pydantic", type_)
    data = serializer.dumps(value)
    cut = [data[:size] for size in range(len(data))]
    other = [data[:at] + bytes((byte,)) + data[at + 1 :] for at in range(len(data)) for byte in range(256)]
    read = [again for each in cut + other if (again := loaded(serializer, each)) is not None]
    assert len(read) > 100  # a letter within a text is replaced by another letter
    for again in read[::7]:
        # What was read can be written, so it is a value of the type.
        assert difference(again, serializer.loads(serializer.dumps(again))) is None
    assert all(loaded(serializer, each) is None for each in cut)


def loaded(serializer: Serializer[Any], data: bytes) -> Any:  # Any: a value of any type
    try:
        return serializer.loads(data)
    except Exception:  # any exception means: undecodable
        return None


JSON_LIKE: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "id", "at", "street", "zip", "x"]), inner)
    ),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(document=JSON_LIKE, head=st.sampled_from([b"", b"\n[]\n", b'\n[["name"]]\n', b"\n1\n"]))
@example(document={"name": "a"}, head=b'\n[["name"]]\n')
def test_a_document_is_read_only_if_the_serializer_writes_it(document: Any, head: bytes) -> None:
    types_: list[Any] = [Event, Address, list[Address] | dict[str, int]]
    for type_ in types_:
        serializer: Serializer[Any] = load_serializer("pydantic", type_)
        data = head + pydantic.TypeAdapter(Any).dump_json(document)
        value = loaded(serializer, data)
        if value is not None:
            assert difference(value, serializer.loads(serializer.dumps(value))) is None
