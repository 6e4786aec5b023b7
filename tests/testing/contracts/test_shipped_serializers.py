"""Every serializer that metacache ships keeps the contract of serializers."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias
from uuid import UUID

import attrs
import msgspec
import pydantic
from typing_extensions import override

from metacache import Serializer, available_serializers
from metacache.serializers import BytesSerializer
from metacache.testing import SerializerContract


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Product(msgspec.Struct):
    name: str
    price: float
    stock: int = 0


@dataclasses.dataclass
class Order:
    number: int
    lines: list[str]
    color: Color = Color.RED


@attrs.frozen
class Profile:
    name: str
    born: datetime.date
    languages: tuple[str, ...] = ()


@attrs.frozen
class Price:
    amount: decimal.Decimal


Cases: TypeAlias = Mapping[Any, Sequence[object]]  # Any: type expressions

WRONG: Any = b"wrong"  # Any: of no type that a field here has
PRODUCTS = [Product("tea", 1.5), Product("", -0.0, 7)]
ORDERS = [Order(1, []), Order(-5, ["a", "ü"], Color.BLUE)]
PROFILES = [Profile("Ada", datetime.date(1815, 12, 10)), Profile("B", datetime.date(1, 1, 1), ("en", "fr"))]
WRONG_PRODUCTS: list[object] = [None, {}, Product(WRONG, 2.0), Order(1, [])]
WRONG_ORDERS: list[object] = [None, 1, Order(WRONG, []), Order(1, [WRONG])]
PLAIN: Cases = {
    list[int]: [[], [1, -(2**40)]],
    dict[str, int]: [{}, {"a": 1, "ü": 2}],
    str | None: [None, "", "text"],
}
WRONG_PLAIN: Cases = {
    list[int]: [None, ["1"], [True], (1,)],
    dict[str, int]: [{1: 1}, {"a": "1"}],
    str | None: [1, b"a"],
}


class TestBytes(SerializerContract):
    plugin = "bytes"
    values = {bytes: [b"", b"\0\xff", b"text"]}
    refused_values = {bytes: [None, "text", bytearray(b"a"), 1]}
    refused_types = [str, list[bytes]]


class TestStr(SerializerContract):
    plugin = "str"
    values = {str: ["", "text", "ü€\0", "\U0001f600"]}
    refused_values = {str: [None, b"text", 1, "\ud800"]}
    refused_bytes = {str: [b"\xff", b"\xed\xa0\x80"]}
    refused_types = [bytes, int]


class TestInt(SerializerContract):
    plugin = "int"
    values = {int: [0, 1, -1, 2**63]}
    refused_values = {int: [None, "1", True, 1.0]}
    refused_bytes = {int: [b"", b"+1", b"1_0", "٣".encode(), b" 1", b"0x3", b"1.0"]}
    refused_types = [str, bool]


class TestJson(SerializerContract):
    plugin = "json"
    values = {dict[str, Any]: [{}, {"a": 1, "b": [None, True, "ü"]}]}
    refused_values = {dict[str, Any]: [None, [], {1: 2}, {"a": b""}, {"a": (1,)}]}
    refused_bytes = {dict[str, Any]: [b"", b"[]", b"{", b'"a"', b"{} {}"]}
    refused_types = [bytes]


class TestMsgspec(SerializerContract):
    plugin = "msgspec"
    values = {Product: PRODUCTS, Order: ORDERS, **PLAIN}
    refused_values = {Product: WRONG_PRODUCTS, Order: WRONG_ORDERS, **WRONG_PLAIN}
    refused_bytes = {
        Product: [b"", msgspec.msgpack.encode({"name": "a", "price": 1}), msgspec.json.encode(PRODUCTS[0])],
        list[int]: [msgspec.msgpack.encode([1.0]), msgspec.msgpack.encode({})],
    }
    refused_types = [object]


class TestMsgspecJson(SerializerContract):
    plugin = "msgspec-json"
    values = {Product: PRODUCTS, Order: ORDERS, **PLAIN}
    refused_values = {Product: WRONG_PRODUCTS, Order: WRONG_ORDERS, **WRONG_PLAIN}
    refused_bytes = {Product: [b"", b"{}", b'{"name":"a","price":1,"more":1}'], list[int]: [b"[1.0]", b'["1"]']}
    refused_types = [object]


class TestOrjson(SerializerContract):
    plugin = "orjson"
    values = {Order: ORDERS, UUID: [UUID(int=1)], **PLAIN}
    refused_values = {Order: WRONG_ORDERS, UUID: ["a", 1], **WRONG_PLAIN}
    refused_bytes = {Order: [b"", b"{}", b'{"number":1,"lines":[],"color":"green"}'], list[int]: [b"[1.0]", b'["1"]']}
    refused_types = [object]


class TestAttrs(SerializerContract):
    plugin = "attrs"
    values = {Profile: PROFILES, list[Profile]: [[], PROFILES], Price: [Price(decimal.Decimal("1.50"))]}
    refused_values = {Profile: [None, {}, Profile("a", WRONG)], list[Profile]: [None, [None], PROFILES[0]]}
    refused_bytes = {Profile: [b"", b"{}", b'{"name":"a","born":1,"languages":[]}'], list[Profile]: [b"[1]", b"{}"]}
    refused_types = [object, list[int]]


class Article(pydantic.BaseModel):
    title: str
    price: float = 1.5
    tags: list[str] = []


class TestPydantic(SerializerContract):
    plugin = "pydantic"
    values = {Article: [Article(title="a"), Article(title="ü", price=-0.0, tags=["x", "y"])]}
    refused_values = {Article: [None, {}, {"title": "a"}, Article.model_construct(title=1)]}
    refused_bytes = {Article: [b"", b"{}", b'{"title":1}', b'{"title":"a","more":1}', b"[]"]}
    refused_types = [threading.Thread, Iterator[int]]


class TestAnObjectWithoutPlugin(SerializerContract):
    values: ClassVar = {bytes: [b"", b"text"]}
    refused_values: ClassVar = {bytes: ["text"]}

    @override
    def serializer(self, type_: Any) -> Serializer[Any]:  # Any: as in the contract
        return BytesSerializer()


def test_every_shipped_serializer_has_a_contract() -> None:
    shipped = {info.name for info in available_serializers() if info.distribution.startswith("metacache")}
    contracts = {each.plugin for each in SerializerContract.__subclasses__() if each.__module__ == __name__}
    assert contracts - {""} == shipped
