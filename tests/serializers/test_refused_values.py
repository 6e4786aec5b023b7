"""For a refused value, the error names the path to the wrong part and the expected type, and never a value."""

from __future__ import annotations

import collections
import math
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import pytest

from metacache import AsyncClient, Client, SerializationError, Serializer, load_serializer
from metacache.serializers import RoundTrip
from metacache.testing import AsyncFakeTransport, FakeServer, FakeTransport
from tests.client.interrupting import driven
from tests.serializers import records

# Any: the tests use wrong values of these classes.
R: Final[Any] = records
SECRET: Final = "hunter2"


class Refusal(NamedTuple):
    type_: Any  # Any: a type expression
    value: Any  # Any: a wrong value
    message: str
    only: tuple[str, ...] = records.SERIALIZERS


JSON: Final = ("json", "msgspec-json", "orjson", "attrs")
LARGE: Final = "the int has more digits or bits than the format can hold"
UNION: Final = "dict[str, Json] | list[Json] | str | int | None"


def deep(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


def cycle() -> Any:
    value: list[Any] = []
    value.append({"a": value})
    return value


REFUSALS: Final = [
    Refusal(int, SECRET, "$: expected int, got str"),
    Refusal(float, b"", "$: expected float, got bytes"),
    Refusal(float, 2**53 + 1, "$: expected float, got an int that no float holds exactly"),
    Refusal(int | str, 1.5, "$: expected int | str, got float"),
    Refusal(int | None, SECRET, "$: expected int | None, got str"),
    Refusal(list[int], {SECRET: 1}, "$: expected list, got dict"),
    Refusal(list[int], [1, SECRET], "$[1]: expected int, got str"),
    Refusal(list[list[int]], [[1], [2, SECRET]], "$[1][1]: expected int, got str"),
    Refusal(tuple[int, str], (1, 2), "$[1]: expected str, got int"),
    Refusal(tuple[int, str], (1,), "$: expected tuple[int, str], got a tuple of 1"),
    Refusal(tuple[int, ...], (1, SECRET), "$[1]: expected int, got str"),
    Refusal(set[int], {1, SECRET}, "$[*]: expected int, got str"),
    # A key may be a secret, so the path has its position.
    Refusal(dict[str, int], {"a": 1, SECRET: SECRET}, "$.values()[1]: expected int, got str"),
    Refusal(dict[str, int], {"a": 1, 7: 1}, "$.keys()[1]: expected str, got int"),
    Refusal(dict[str, list[int]], {SECRET: [SECRET]}, "$.values()[0][0]: expected int, got str"),
    Refusal(R.Place, R.Place("a", 7), "$.zip: expected str, got int"),
    Refusal(R.Place, {"street": SECRET}, "$: expected Place, got dict"),
    Refusal(R.Place | None, R.Place("a", 7), "$.zip: expected str, got int"),
    Refusal(R.Place | int, SECRET, "$: expected Place | int, got str"),
    Refusal(R.Addressed, R.Addressed("a", [R.Place("b"), R.Place("c", 7)]), "$.addrs[1].zip: expected str, got int"),
    Refusal(R.Addressed, R.Addressed("a", [], {SECRET: SECRET}), "$.scores.values()[0]: expected float, got str"),
    Refusal(dict[str, R.Addressed], {SECRET: R.Addressed(1, [])}, "$.values()[0].name: expected str, got int"),
    Refusal(R.Node[int], R.Node(1, [R.Node(2, [R.Node("")])]), "$.children[0].children[0].held: expected int, got str"),
    Refusal(R.Boxed[list[R.Boxed[int]]], R.Boxed([R.Boxed(1), 7]), "$.held[1]: expected Boxed[int], got int"),
    Refusal(R.Boxed[list[R.Boxed[int]]], R.Boxed([R.Boxed(SECRET)]), "$.held[0].held: expected int, got str"),
    Refusal(R.Row, R.Row(1, SECRET), "$.ratio: expected float, got str"),
    Refusal(R.Row, (1, 2.0), "$: expected Row, got tuple"),
    Refusal(R.Note, {"text": 7}, "$.text: expected str, got int"),
    Refusal(R.Note, {"text": "a", "inner": {"text": 7}}, "$.inner.text: expected str, got int"),
    Refusal(R.Note, {"inner": {"text": "a"}}, "$: expected Note, got a dict without the key text"),
    Refusal(R.Note, {"text": "a", SECRET: 1}, "$: expected Note, got a dict with unknown keys"),
    Refusal(R.Perm, 1, "$: expected Perm, got int"),
    Refusal(R.Json, {SECRET: [1, {SECRET: 1.5}]}, f"$.values()[0][1].values()[0]: expected {UNION}, got float"),
    Refusal(R.Pair, R.Pair("a"), "$.first: expected int, got str"),
    Refusal(list[R.Unequal], [R.Unequal(1), R.Unequal("a")], "$[1].size: expected int, got str"),
    Refusal(dict[str, R.Leaf], {SECRET: R.Leaf(1, "a")}, "$.values()[0].ratio: expected float, got str"),
    Refusal(R.Leaf | None, R.Leaf("a", 1), "$.size: expected int, got str"),
    # of the type, but the format cannot hold it, or the class changes it
    Refusal(list[str], ["a", "\ud800" + SECRET], "$[1]: the str has a lone surrogate"),
    Refusal(dict[str, int], {"\ud800": 1}, "$.keys()[0]: the str has a lone surrogate"),
    Refusal(list[float], [1.5, math.nan], "$[1]: the format cannot hold NaN or an infinity", JSON),
    Refusal(R.Leaf, R.Leaf(1, -math.inf), "$.ratio: the format cannot hold NaN or an infinity", JSON),
    Refusal(list[float | None], [math.inf], "$[0]: the format cannot hold NaN or an infinity", JSON),
    Refusal(list[int], [1, 2**70], f"$[1]: {LARGE}", ("msgspec", "orjson")),
    Refusal(list[int], [1, 10**5000], f"$[1]: {LARGE}"),
    Refusal(R.Doubled, R.Doubled(1), "$.size: the int would come back with another value"),
    Refusal(list[R.Doubled], [R.Doubled(0), R.Doubled(1)], "$[1].size: the int would come back with another value"),
    Refusal(collections.deque[int], collections.deque((1,), 3), "$.maxlen: the int would come back as NoneType"),
    Refusal(Any, [(1,)], "$[0]: expected a JSON value, got tuple", ("json", "orjson")),
    Refusal(Any, [(1,)], "$[0]: the tuple would come back as list", ("msgspec", "msgspec-json")),
    Refusal(Any, {1: 2}, "$: it would come back with other keys or elements", ("msgspec-json",)),
    # too deep
    Refusal(Any, deep(5000), "$: nested too deeply"),
    Refusal(list, deep(5000), "$: nested too deeply"),
    Refusal(Any, cycle(), "$: nested too deeply"),
    Refusal(R.Json, deep(5000), "$: nested too deeply"),
]  # fmt: skip


def cases() -> list[Any]:
    return [
        pytest.param(name, refusal, id=f"{name} {refusal.message[:60]}")
        for refusal in REFUSALS
        for name in refusal.only
        if serves(name, refusal.type_)
    ]


def serves(name: str, type_: Any) -> bool:
    try:
        load_serializer(name, type_)
    except TypeError:
        return False
    return True


@pytest.mark.parametrize(("name", "refusal"), cases())
def test_the_error_names_the_path_and_the_types(name: str, refusal: Refusal) -> None:
    serializer: Serializer[Any] = load_serializer(name, refusal.type_)
    for _ in range(3):  # the first call fills caches
        with pytest.raises(SerializationError) as raised:
            serializer.dumps(refusal.value)
        assert str(raised.value) == refusal.message
        assert raised.value.__cause__ is None
        assert raised.value.__context__ is None


def test_the_table_has_refusals_for_each_serializer() -> None:
    served = [case.values[0] for case in cases()]
    assert {name: served.count(name) > 4 for name in records.SERIALIZERS} == dict.fromkeys(records.SERIALIZERS, True)


@pytest.mark.parametrize(
    ("name", "type_", "value", "message"),
    [
        ("bytes", bytes, SECRET, "$: expected bytes, got str"),
        ("bytes", bytes, bytearray(b"a"), "$: expected bytes, got bytearray"),
        ("str", str, SECRET.encode(), "$: expected str, got bytes"),
        ("str", str, "\ud800" + SECRET, "$: the str has a lone surrogate"),
        ("int", int, True, "$: expected int, got bool"),
        pytest.param("int", int, 10**5000, "$: the int has more digits than Python converts", id="large"),
    ],
)
def test_the_serializers_of_one_class_name_the_types_too(name: str, type_: Any, value: Any, message: str) -> None:
    serializer: Serializer[Any] = load_serializer(name, type_)
    with pytest.raises(SerializationError) as raised:
        serializer.dumps(value)
    assert str(raised.value) == message


@pytest.mark.parametrize("name", ["json", "msgspec", "msgspec-json", "orjson"])
def test_clients_add_the_operation_and_the_key(name: str) -> None:
    server, serializer = FakeServer(), load_serializer(name, dict[str, int])
    wrong: Any = {SECRET: SECRET}
    client = Client(FakeTransport(server), serializer)
    aio = AsyncClient(AsyncFakeTransport(server), serializer)
    message = r"'k': \$\.values\(\)\[0\]: expected int, got str$"
    calls: list[tuple[str, Callable[[], object]]] = [
        ("set", lambda: client.set("k", wrong)),
        ("add", lambda: client.add("k", wrong)),
        ("set_many", lambda: client.set_many({"a": {}, "k": wrong})),
        ("set", lambda: driven(aio.set("k", wrong))),
        ("set_many", lambda: driven(aio.set_many({"a": {}, "k": wrong}))),
    ]
    for verb, call in calls:
        with pytest.raises(SerializationError, match=f"^{verb} {message}"):
            call()
    assert client.get_many(["a", "k"]) == {}


@pytest.mark.parametrize("name", records.SERIALIZERS)
def test_bytes_nested_too_deeply_are_a_miss(name: str) -> None:
    type_: Any = list[R.Node[Any]] if name == "attrs" else Any
    server, serializer = FakeServer(), load_serializer(name, type_)
    client: Client[Any] = Client(FakeTransport(server), serializer)
    client.set("k", [])
    flags = client.get_item("k")
    assert flags is not None
    for data in (b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000, b"\x91" * 100_000 + b"\x90"):
        server.answer(b"ms k %d F%d\r\n%b\r\n" % (len(data), flags.client_flags, data))
        assert client.get("k") is None
        assert client.get_many(["k"]) == {}
    assert client.undecodable["decode"] == 6


def test_round_trip_checks_the_values_of_a_user_defined_serializer() -> None:
    trip = RoundTrip(list[int], lambda value: repr(value).encode(), lambda data: [*map(int, data[1:-1].split(b","))])
    assert trip([1, 2]) == (b"[1, 2]", [1, 2])
    wrong: Any
    for wrong, message in (
        ([1, True], r"^\$\[1\]: expected int, got bool$"),
        ([], r"^\$: a list cannot be read back \(ValueError\)$"),
    ):
        with pytest.raises(SerializationError, match=message):
            trip(wrong)


@pytest.mark.alone
def test_the_error_for_a_large_value_is_found_quickly() -> None:
    serializer: Serializer[Any] = load_serializer("orjson", list[R.Positive])
    values = [R.Positive(1) for _ in range(20_000)]
    values[-1].size = -1
    with pytest.raises(SerializationError, match=r"^\$\[19999\]: a Positive cannot be read back \(ValueError\)$"):
        serializer.dumps(values)
