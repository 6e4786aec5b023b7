"""Data that msgspec would coerce or drop parts of is refused. Differences without meaning are accepted."""

from __future__ import annotations

import datetime
import decimal
import math
import os
import subprocess
import sys
from typing import Any, Final
from uuid import UUID

import msgspec
import pytest

from metacache import InvalidTypeError, SerializationError, load_serializer

FORMATS: Final = {"msgspec": msgspec.msgpack, "msgspec-json": msgspec.json}


class Product(msgspec.Struct):
    name: str
    price: float
    stock: int = 0


class Grown(msgspec.Struct):
    name: str
    price: float
    stock: int = 0
    color: str = "red"


class Special(Product):
    discount: float = 0.5


class Row(msgspec.Struct, array_like=True):
    name: str
    count: int = 0


class Cat(msgspec.Struct, tag=True):
    name: str


class Dog(msgspec.Struct, tag=True):
    name: str


def is_refused(name: str, type_: Any, document: object) -> bool:
    """Return whether the serializer refuses *document*, encoded by msgspec."""
    try:
        load_serializer(name, type_).loads(FORMATS[name].encode(document))
    except Exception:
        return True
    return False


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("type_", "document"),
    [
        (float, 1),
        (list[float], [1.5, 2]),
        (float | None, 2**60),
        (decimal.Decimal, 1),
        (decimal.Decimal, 1.5),
        (datetime.datetime, "2026-01-02"),
        (Product, {"name": "a", "price": 1}),
        (Product, {"name": "a", "price": 1.0, "more": 1}),
        (Product, {"name": "a", "price": 1.0, "Stock": 1}),
        (Product, {"name": "a"}),
        (list[Product], [{"name": "a", "price": 1.0}, {"name": "a", "price": 1.0, "more": 1}]),
        (Row, ["a", 1, 2]),
        (set[int], [1, 1]),
        (set[int | float], [1, 2, 2]),
        (tuple[float, str, float], [1, "a", 2.0]),
        (Cat | Dog, {"type": "Cat", "name": "Tom", "more": 1}),
        (Cat | Dog, {"name": "Tom"}),
        (dict[int, float], {1: 1}),
    ],
    ids=repr,
)
def test_data_that_msgspec_accepts_but_would_not_write_is_refused(name: str, type_: Any, document: object) -> None:
    assert is_refused(name, type_, document)


@pytest.mark.parametrize("document", [b"a" * 16, {1: 1.0}])
def test_messagepack_bytes_are_not_a_uuid_and_keys_keep_their_kind(document: object) -> None:
    assert is_refused("msgspec", UUID, document)
    assert is_refused("msgspec", dict[float, float], document)


@pytest.mark.parametrize("name", FORMATS)
def test_an_int_in_a_float_field_is_stored_as_the_equal_float(name: str) -> None:
    serializer = load_serializer(name, Product)
    again = serializer.loads(serializer.dumps(Product("a", 5)))
    assert again == Product("a", 5.0)
    assert type(again.price) is float
    with pytest.raises(SerializationError, match=r"^\$.price: expected float, got an int that no float holds exactly$"):
        serializer.dumps(Product("a", 2**53 + 1))


@pytest.mark.parametrize("name", FORMATS)
def test_a_subclass_is_refused_because_it_would_lose_its_own_fields(name: str) -> None:
    with pytest.raises(SerializationError, match=r"^\$: expected Product, got Special$"):
        load_serializer(name, Product).dumps(Special("a", 1.0))


@pytest.mark.parametrize("name", FORMATS)
def test_without_fingerprints_a_new_field_with_a_default_is_filled_in(name: str) -> None:
    data = load_serializer(name, Product).dumps(Product("a", 1.0, 2))
    assert load_serializer(name, Grown, fingerprint="off").loads(data) == Grown("a", 1.0, 2, "red")
    assert load_serializer(name, Row).loads(FORMATS[name].encode(["a"])) == Row("a", 0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_refuses_values_that_it_would_write_as_null(value: float) -> None:
    for serializer in (load_serializer("msgspec-json", float), load_serializer("msgspec-json", float | None)):
        with pytest.raises(SerializationError, match=r"^\$: the format cannot hold NaN or an infinity$"):
            serializer.dumps(value)
    with pytest.raises(
        SerializationError, match=r"^\$.values\(\)\[0\]\[1\]: the format cannot hold NaN or an infinity$"
    ):
        load_serializer("msgspec-json", dict[str, list[float | None]]).dumps({"a": [None, value]})
    packed = load_serializer("msgspec", float)
    assert repr(packed.loads(packed.dumps(value))) == repr(value)


@pytest.mark.parametrize("name", FORMATS)
def test_json_accepts_none(name: str) -> None:
    serializer = load_serializer(name, list[float | None])
    assert serializer.loads(serializer.dumps([None, 1.5])) == [None, 1.5]


READ: Final = """
import sys
from metacache import load_serializer
data = bytes.fromhex(sys.argv[2])
assert load_serializer(sys.argv[1], set[int | str | None]).loads(data) == {1, None, *map(str, range(50))}
"""


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("seed", ["1", "2"])
def test_a_set_is_readable_by_a_process_with_another_order(name: str, seed: str) -> None:
    data = load_serializer(name, set[int | str | None]).dumps({1, None, *map(str, range(50))})
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    subprocess.run([sys.executable, "-c", READ, name, data.hex()], env=environment, check=True, timeout=60)


class Nest(msgspec.Struct):
    inner: list[Nest | None]
    weight: float = 0.0


@pytest.mark.parametrize("name", FORMATS)
def test_a_coerced_number_is_found_at_any_depth_with_one_visit_per_level(name: str) -> None:
    document: dict[str, object] = {"inner": [], "weight": 1}
    for _ in range(100):
        document = {"inner": [None, document]}  # with two visits per level it would take 2**100 steps
    assert is_refused(name, Nest, document)


class Opaque:
    pass


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("type_", [Opaque, list[Opaque], dict[str, Opaque | None], "Missing", 7])
def test_a_type_that_msgspec_needs_hooks_for_is_not_served(name: str, type_: Any) -> None:
    with pytest.raises(InvalidTypeError, match="does not serve"):
        load_serializer(name, type_)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("type_", [Product, list[Product | None], int, dict[str, Any], Cat | Dog, datetime.datetime])
def test_any_type_that_msgspec_knows_is_served(name: str, type_: Any) -> None:
    assert load_serializer(name, type_).wire_id == {"msgspec": 64, "msgspec-json": 80}[name]
