"""One type in the five forms that serializers accept, a value of each, and payloads of other types."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Generic, TypeAlias, TypeVar, final

import attrs
import msgspec
import pydantic
from typing_extensions import TypedDict

from metacache import Serializer, load_serializer

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
T = TypeVar("T")
Path: TypeAlias = tuple[str | int, ...]


class LineDict(TypedDict):
    sku: str
    quantity: int


class OrderDict(TypedDict):
    number: int
    total: float
    customer: str
    paid: bool
    note: str | None
    tags: list[str]
    counts: dict[str, int]
    lines: list[LineDict]


class LineStruct(msgspec.Struct):
    sku: str
    quantity: int


class OrderStruct(msgspec.Struct):
    number: int
    total: float
    customer: str
    paid: bool
    note: str | None
    tags: list[str]
    counts: dict[str, int]
    lines: list[LineStruct]


@dataclasses.dataclass
class LineData:
    sku: str
    quantity: int


@dataclasses.dataclass
class OrderData:
    number: int
    total: float
    customer: str
    paid: bool
    note: str | None
    tags: list[str]
    counts: dict[str, int]
    lines: list[LineData]


@attrs.frozen
class LineAttrs:
    sku: str
    quantity: int


@attrs.frozen
class OrderAttrs:
    number: int
    total: float
    customer: str
    paid: bool
    note: str | None
    tags: list[str]
    counts: dict[str, int]
    lines: list[LineAttrs]


class LineModel(pydantic.BaseModel):
    sku: str
    quantity: int


class OrderModel(pydantic.BaseModel):
    number: int
    total: float
    customer: str
    paid: bool
    note: str | None
    tags: list[str]
    counts: dict[str, int]
    lines: list[LineModel]


LINE: Final[dict[str, Json]] = {"sku": "a-1", "quantity": 2}
ORDER: Final[dict[str, Json]] = {
    "number": 7,
    "total": 12.5,
    "customer": "Zoë",
    "paid": True,
    "note": "leave it at the door",
    "tags": ["new", "gift"],
    "counts": {"a": 1, "b": 2},
    "lines": [LINE, {"sku": "b-2", "quantity": 1}],
}

# For each scalar, values that must be refused in its place: other kinds, and texts that a lenient reader would accept.
OTHER_KINDS: Final[Mapping[type, tuple[Json, ...]]] = {
    int: (None, True, False, 1.0, 0.5, "7", "", [], [7], {}, {"number": 7}),
    float: (None, True, 12, "12.5", "nan", [], [12.5], {}),
    str: (True, 7, 12.5, [], ["a"], {}, {"a": "b"}),
    bool: (None, 0, 1, 1.0, "true", "", [], [True], {}),
    list: (None, True, 7, 12.5, "abc", "", {}, {"0": "new"}),
    dict: (None, True, 7, 12.5, "abc", [], [["a", 1]], ["a"]),
}

Encode: TypeAlias = Callable[[Json], bytes]


def json_bytes(document: Json) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def wrong_orders(encode: Encode, other: Encode) -> list[bytes]:
    """Return payloads that are not an order: encodings of other documents, encodings by *other*, and broken bytes."""
    whole = encode(ORDER)
    documents = [*_other_documents(), *_one_part_changed(ORDER)]
    broken = [
        *(whole[:size] for size in range(len(whole))),
        *(whole + tail for tail in (b"x", b"}", b"\x00", b"1", b",", whole)),
        *(bytes((first,)) + whole for first in (0x00, 0x22, 0x7B, 0xC1, 0xFF)),
        *(bytes(range(first, first + 8)) for first in range(0, 248, 8)),
        other(ORDER),
        pickle.dumps(ORDER),
        b"\xef\xbb\xbf" + whole,
        json_bytes(ORDER).decode().encode("utf-16"),
    ]
    return [*map(encode, documents), *broken]


def _other_documents() -> list[Json]:
    scalars: list[Json] = [None, True, False, 0, 7, -1, 12.5, 1e300, "", "Zoë", "null", "{}"]
    orders: list[Json] = [[ORDER], {"order": ORDER}, {"0": ORDER}, [list(pair) for pair in ORDER.items()]]
    return [*scalars, *([scalar] for scalar in scalars), [], {}, list(ORDER), list(ORDER.values()), LINE, *orders]


def _one_part_changed(document: dict[str, Json]) -> Iterator[Json]:
    for path, part in _parts(document):
        for other in OTHER_KINDS[type(part)]:
            if not (path == ("note",) and other is None):
                yield _replaced(document, path, other)
        if isinstance(part, dict) and path != ("counts",):
            for keys in _other_keys(part):
                yield _replaced(document, path, keys)
    yield from _other_keys(document)


def _other_keys(part: dict[str, Json]) -> Iterator[Json]:
    """Yield *part* with a missing, a misspelt and an additional key."""
    for name in part:
        missing = {key: held for key, held in part.items() if key != name}
        yield missing
        yield missing | {name.upper(): part[name]}
        yield part | {name + "_": part[name]}


def _parts(document: Json, path: Path = ()) -> Iterator[tuple[Path, Json]]:
    if path:
        yield path, document
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for name, part in inner:
        yield from _parts(part, (*path, name))


def _replaced(document: Json, path: Path, new: Json) -> Json:
    if not path:
        return new
    if isinstance(document, dict):
        return {key: _replaced(part, path[1:], new) if key == path[0] else part for key, part in document.items()}
    assert isinstance(document, list)
    return [_replaced(part, path[1:], new) if at == path[0] else part for at, part in enumerate(document)]


@final
@attrs.frozen
class Case(Generic[T]):
    """A serializer of orders, the order, and the encoders of its format and of another format."""

    type_: type[T]
    serializer: Serializer[T]
    value: T
    encode: Encode
    other: Encode


def _json_case(name: str, type_: type[T]) -> Case[T]:
    return Case(type_, load_serializer(name, type_), msgspec.convert(ORDER, type_), json_bytes, msgspec.msgpack.encode)


_msgspec: Final = load_serializer("msgspec", OrderStruct)

# Any: each case has its own order type.
CASES: Final[Mapping[str, Case[Any]]] = {
    "json": _json_case("json", OrderDict),
    "msgspec": Case(OrderStruct, _msgspec, msgspec.convert(ORDER, OrderStruct), msgspec.msgpack.encode, json_bytes),
    "msgspec-json": _json_case("msgspec-json", OrderStruct),
    "orjson": _json_case("orjson", OrderData),
    "orjson of a TypedDict": _json_case("orjson", OrderDict),
    "attrs": _json_case("attrs", OrderAttrs),
    "pydantic": Case(
        OrderModel,
        load_serializer("pydantic", OrderModel),
        OrderModel.model_validate(ORDER),
        json_bytes,
        msgspec.msgpack.encode,
    ),
}
