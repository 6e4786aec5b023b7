"""Claims of the explanation pages that no example shows: numbers and tables, held by what the library does."""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, NewType, TypedDict
from zoneinfo import ZoneInfo

import annotated_types
import attrs
import msgspec
import pytest

from metacache import (
    AsyncClient,
    AsyncConnection,
    BatchError,
    Client,
    Connection,
    InvalidTypeError,
    NodeState,
    SerializationError,
    Settings,
    load_serializer,
)
from metacache.cluster import health
from metacache.protocol.replies import OPAQUES
from metacache.serializers import fingerprint
from metacache.testing import FakeServer, FakeTransport
from tests.docs.pages import PAGES, Page
from tests.scripted import Peer, ScriptedServer

PAGE: Final = {Path(page.name).stem: page for page in PAGES if page.name.startswith("docs/explanation/")}
SERIALIZERS: Final = ("json", "msgspec", "msgspec-json", "orjson", "attrs")


def words(page: Page) -> str:
    """Return the prose with single spaces, so that line breaks do not matter."""
    return " ".join(page.prose.split())


# --- how replies are matched -----------------------------------------------------------------------------------------


def limits() -> tuple[list[int], ...]:
    """Return the numbers of each row of the table of windows."""
    table = PAGE["matching-replies"].table("quantity")
    assert len(table) == 4
    return tuple(
        [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", cell)] for (cell,) in table.values()
    )


def test_the_first_and_the_last_request_of_a_window_carry_an_opaque() -> None:
    (requests,), *_ = limits()
    lines: list[bytes] = []

    def script(peer: Peer) -> None:
        for asked in peer.requests(2 * requests + 10):
            lines.append(asked.line)
            asked.answer(b"EN")
        peer.expect_end()

    with ScriptedServer(script) as server, Client(Connection(server.node), owns=True) as client:
        assert client.get_many([f"key:{number}" for number in range(2 * requests + 10)]) == {}
    marked = [number for number, line in enumerate(lines) if b" O" in line]
    assert marked == [0, requests - 1, requests, 2 * requests - 1, 2 * requests, 2 * requests + 9]


def test_a_batch_stops_writing_while_its_replies_do_not_come() -> None:
    _, (window, _), (unanswered,), _ = limits()
    received = 0

    def script(peer: Peer) -> None:
        nonlocal received
        peer.sock.settimeout(0.3)
        try:
            while data := peer.sock.recv(65536):
                received += len(data)
        except TimeoutError:
            peer.fin()

    values = {f"key:{number}": b"x" * 1000 for number in range(1000)}
    settings = Settings(timeout=10.0)
    with (
        ScriptedServer(script) as server,
        Client(Connection(server.node, settings=settings), owns=True) as client,
        pytest.raises(BatchError),
    ):
        client.set_many(values)
    assert unanswered <= received < unanswered + window


async def test_an_asyncio_batch_waits_when_a_number_of_windows_has_no_reply() -> None:
    (requests,), *_, (windows,) = limits()
    received = b""

    def script(peer: Peer) -> None:
        nonlocal received
        peer.sock.settimeout(0.5)
        try:
            while data := peer.sock.recv(65536):
                received += data
        except TimeoutError:
            peer.fin()

    settings = Settings(timeout=10.0)
    with ScriptedServer(script) as server:
        async with AsyncClient(AsyncConnection(server.node, settings=settings), owns=True, on_error="miss") as client:
            await client.get_many([f"key:{number}" for number in range(requests * (windows + 4))])
    assert received.count(b"\r\n") == requests * windows


def test_an_opaque_is_one_of_the_number_that_the_page_says() -> None:
    assert f"a table of {len(OPAQUES)} numbers" in words(PAGE["matching-replies"])


# --- node health -----------------------------------------------------------------------------------------------------


def test_the_table_of_states_has_every_state() -> None:
    assert set(PAGE["node-health"].table("state")) == {state.value for state in NodeState}


def test_the_numbers_of_the_health_page_are_those_of_the_library() -> None:
    text = words(PAGE["node-health"])
    assert health.FAILURES == 3
    assert "three failures in a row" in text
    assert f"The first pause is {health.FIRST_PAUSE} seconds." in text
    assert f"doubles it, up to {health.LONGEST_PAUSE:g} seconds" in text
    assert f"up to {100 * health.JITTER:g} % shorter or longer" in text


def test_the_table_of_failures_has_every_state_of_a_node_and_no_other() -> None:
    text = PAGE["node-health"].text
    rows = text[text.index("| state of the node |") :].partition("\n\n")[0].splitlines()[2:]
    before = {state for row in rows for state in row.split("|")[1].strip().split(", ")}
    assert before - {"any"} == {state.value for state in NodeState}


# --- costs -----------------------------------------------------------------------------------------------------------


def exchanges(name: str) -> str:
    """Return what the table says of the method *name*."""
    found = [cells[0] for names, cells in PAGE["costs"].table("method").items() if f"`{name}`" in names]
    assert len(found) == 1, name
    return found[0]


NUMBERS: Final[Mapping[str, Callable[[Client[int]], object]]] = {
    "get": lambda client: client.get("key"),
    "get_item": lambda client: client.get_item("key"),
    "exists": lambda client: client.exists("key"),
    "inspect": lambda client: client.inspect("key"),
    "set": lambda client: client.set("key", 1),
    "add": lambda client: client.add("key", 1),
    "replace": lambda client: client.replace("key", 1),
    "compare_and_set": lambda client: client.compare_and_set("key", 1, 1),
    "delete": lambda client: client.delete("key"),
    "invalidate": lambda client: client.invalidate("key", stale_for=1),
    "touch": lambda client: client.touch("key", 1),
    "get_and_touch": lambda client: client.get_and_touch("key", 1),
    "increment": lambda client: client.increment("key"),
    "decrement": lambda client: client.decrement("key"),
    "update": lambda client: client.update("key", lambda _: 2),
    "get_many": lambda client: client.get_many(["key", "other"]),
    "get_items": lambda client: client.get_items(["key", "other"]),
    "get_many_outcomes": lambda client: client.get_many_outcomes(["key", "other"]),
    "set_many": lambda client: client.set_many({"key": 1, "other": 2}),
    "set_many_outcomes": lambda client: client.set_many_outcomes({"key": 1, "other": 2}),
    "delete_many": lambda client: client.delete_many(["key", "other"]),
    "delete_many_outcomes": lambda client: client.delete_many_outcomes(["key", "other"]),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_method_needs_the_exchanges_that_the_table_says(name: str) -> None:
    fake = FakeTransport()
    client = Client(fake, load_serializer("int", int))
    client.set("key", 1)
    fake.operations.clear()
    NUMBERS[name](client)
    assert exchanges(name).startswith(str(len(fake.operations)))


def test_counting_with_ttl_and_touching_a_lease_need_a_second_exchange() -> None:
    server = FakeServer()
    fake = FakeTransport(server)
    client = Client(fake, load_serializer("int", int))
    client.set("key", 1)
    server.answer(b"mg lease v N30\r\n")
    fake.operations.clear()
    client.increment("key", ttl=9)
    assert len(fake.operations) == 2
    fake.operations.clear()
    client.touch("lease", 9)
    assert len(fake.operations) == 2
    assert exchanges("increment") == "1; with `ttl=` 2"
    assert exchanges("touch") == "1; for a lease 2"


@pytest.mark.parametrize("name", ["append", "prepend"])
def test_extending_needs_two_exchanges_and_one_if_there_is_nothing(name: str) -> None:
    fake = FakeTransport()
    client = Client(fake)
    extend: Callable[[str, bytes], object] = client.append if name == "append" else client.prepend
    extend("key", b"more")
    assert len(fake.operations) == 1
    client.set("key", b"value")
    fake.operations.clear()
    extend("key", b"more")
    assert len(fake.operations) == 2
    assert exchanges(name) == "2; 1 if there is nothing to extend"


# --- types and fingerprints ------------------------------------------------------------------------------------------


def dataclass_of(name: str = "Record", **fields: object) -> type:
    return dataclasses.make_dataclass(name, list(fields.items()))


class Colour(enum.Enum):
    RED = 1


class Color(enum.Enum):
    CRIMSON = 1


class MoreColours(enum.Enum):
    RED = 1
    BLUE = 2


class Omitting(msgspec.Struct, omit_defaults=True):
    number: int = 0


class OmittingOne(msgspec.Struct, omit_defaults=True):
    number: int = 1


class Full(msgspec.Struct):
    number: int = 0


class FullOne(msgspec.Struct):
    number: int = 1


class Validated(msgspec.Struct):
    number: int = 0

    def __post_init__(self) -> None:
        assert self.number >= 0


@attrs.frozen
class Attrs:
    number: int


@dataclasses.dataclass
class Data:
    number: int


class Typed(TypedDict):
    number: int


class Optional(TypedDict, total=False):
    number: int


class Pair(NamedTuple):
    number: int


class Struct(msgspec.Struct):
    number: int


class Tagged(msgspec.Struct, tag="t"):
    number: int


class Plain:
    """A class without fields."""


class OtherPlain:
    """Another."""


Number = NewType("Number", int)

# Pairs of types, by the row of the table that they are examples of.
COUNTS: Final[Mapping[str, tuple[tuple[object, object], ...]]] = {
    "the kind of the class": ((Data, Typed), (Data, Struct), (Struct, Pair), (Pair, Typed)),
    "names of fields, in order": (
        (dataclass_of(a=int), dataclass_of(b=int)),
        (dataclass_of(a=int, b=int), dataclass_of(b=int, a=int)),
        (Struct, Tagged),
        (Typed, Optional),
    ),
    "types of fields": ((dataclass_of(a=int), dataclass_of(a=str)),),
    "values of an enum": ((Colour, MoreColours),),
    "constraints of": ((int, Annotated[int, annotated_types.Ge(0)]), (int, Annotated[int, msgspec.Meta(ge=0)])),
    "a default, where the stored bytes may lack the field": ((Omitting, OmittingOne),),
    "module and name of a class": ((Plain, OtherPlain),),
}
DOES_NOT_COUNT: Final[Mapping[str, tuple[tuple[object, object], ...]]] = {
    "the name of a class with fields": ((dataclass_of("A", a=int), dataclass_of("B", a=int)), (Data, Attrs)),
    "documentation, titles": ((int, Annotated[int, msgspec.Meta(title="A number")]),),
    "defaults, except": ((Full, FullOne),),
    "names of the members of an enum": ((Colour, Color),),
    "code: validators": ((Full, Validated),),
    "the name of an alias, or of a `NewType`": ((int, Number),),
}


def test_a_fingerprint_depends_on_what_the_table_says() -> None:
    table = PAGE["types-and-fingerprints"].table("counts")
    for rows, pairs, is_equal in (
        (list(table), COUNTS, False),
        ([cell for (cell,) in table.values() if cell], DOES_NOT_COUNT, True),
    ):
        assert len(rows) == len(pairs)
        for row, start in zip(rows, pairs, strict=True):
            assert row.startswith(start)
            for one, other in pairs[start]:
                assert (fingerprint(one) == fingerprint(other)) is is_equal, start


CEST: Final = timezone(timedelta(hours=2))
ALL: Final = frozenset(("msgspec", "msgspec-json", "orjson", "attrs"))

# Values of each row of the table of values, with the serializers that keep them.
VALUES: Final[tuple[tuple[str, type, tuple[object, ...], frozenset[str]], ...]] = (
    ("`datetime`, `time`: naive", datetime, (datetime(2026, 5, 1), datetime(2026, 5, 1, tzinfo=UTC)), ALL),
    ("`datetime`, `time`: naive", datetime, (datetime(2026, 5, 1, tzinfo=CEST),), ALL),
    ("`datetime`, `time`: naive", time, (time(12, 30), time(12, 30, tzinfo=CEST)), ALL),
    (
        "`datetime`, `time` with a `ZoneInfo`",
        datetime,
        (datetime(2026, 5, 1, tzinfo=ZoneInfo("Europe/Paris")),),
        frozenset(),
    ),
    (
        "`datetime`, `time` with a `ZoneInfo`",
        datetime,
        (
            datetime(2026, 5, 1, tzinfo=timezone(timedelta(hours=2), "CEST")),
            datetime(2026, 5, 1, tzinfo=timezone(timedelta(seconds=1))),
        ),
        frozenset(),
    ),
    ("`datetime`, `time` with `fold=1`", datetime, (datetime(2026, 5, 1, fold=1),), frozenset()),
    ("`date`, `timedelta`", date, (date(2026, 5, 1),), ALL),
    ("`date`, `timedelta`", timedelta, (timedelta(microseconds=1), timedelta(days=-3)), ALL),
    ("`Decimal`", Decimal, (Decimal("1.50"), Decimal("-0"), Decimal("NaN")), ALL),
    ("`Decimal`", Decimal, (Decimal("sNaN"),), frozenset()),
    ("float:", float, (-0.0,), ALL),
    ("float:", float, (float("nan"), float("inf")), frozenset(("msgspec",))),
    ("int beyond 64 bits", int, (2**70,), ALL - {"msgspec", "orjson"}),
    ("text with a lone surrogate", str, ("\ud800",), frozenset()),
    ("the order of a dict", dict[str, int], ({"b": 1, "a": 2},), ALL),
)


@pytest.mark.parametrize(("row", "type_", "values", "kept"), VALUES)
@pytest.mark.parametrize("name", sorted(ALL))
def test_a_value_is_kept_or_refused_as_the_table_says(
    name: str, row: str, type_: type, values: tuple[object, ...], kept: frozenset[str]
) -> None:
    assert any(said.startswith(row) for said in PAGE["types-and-fingerprints"].table("value")), row
    holder: Any = attrs.make_class("Holder", {"value": attrs.field(type=type_)})  # Any: a class made here
    serializer = load_serializer(name, holder)
    for value in values:
        if name in kept:
            again = serializer.loads(serializer.dumps(holder(value))).value
            assert (type(again), str(again), repr(again)) == (type(value), str(value), repr(value))
        else:
            with pytest.raises(SerializationError):
                serializer.dumps(holder(value))


def test_every_row_of_the_table_of_values_has_an_example() -> None:
    rows = PAGE["types-and-fingerprints"].table("value")
    assert all(any(said.startswith(row) for row, *_ in VALUES) for said in rows)


def test_a_local_class_without_fields_is_refused_with_the_reason() -> None:
    class Local:
        pass

    for name in SERIALIZERS:
        with pytest.raises(InvalidTypeError, match=r"Local"):
            load_serializer(name, Local)
