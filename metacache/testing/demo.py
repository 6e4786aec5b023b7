"""The demo: typed objects go to a private memcached and come back, a printed row each; what differs is a failure.

A section starts the servers it needs and returns its table; a further one is a function in SECTIONS.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from time import perf_counter
from typing import Any, Final, Generic, TypeVar, final

import attrs

from metacache.client import Client
from metacache.results import Item
from metacache.serializers import Serializer, available_serializers, load_serializer
from metacache.testing.memcached import Memcached, MemcachedNotFound
from metacache.transports import Transport
from metacache.transports.blocking import Connection

__all__ = ["Row", "Sample", "Section", "main", "round_trip", "run"]

T = TypeVar("T")

# The serializers that the demo shows, and the extra that installs each.
PLUGINS: Final = {"msgspec": "msgspec", "orjson": "orjson", "attrs": "attrs"}


# --- what is stored ------------------------------------------------------------------------------------------------


@final
@dataclasses.dataclass(frozen=True)
class Order:
    """A dataclass, stored as JSON by orjson."""

    number: int
    total: float
    lines: tuple[str, ...]


@final
@attrs.frozen
class Profile:
    """An attrs class with a date in it, stored by cattrs."""

    name: str
    born: date
    languages: tuple[str, ...] = ()


@final
@attrs.frozen
class Sample(Generic[T]):
    """One thing to store and read back: its key, its type's name, the serializer and its name, the value."""

    key: str
    type_name: str
    serializer_name: str
    serializer: Serializer[T]
    value: T


def samples() -> Iterable[Sample[Any]]:  # Any: each has a type of its own
    """Return an msgspec Struct, a dataclass and an attrs class."""
    import msgspec  # not at the top: it comes with metacache-msgspec, and `main` tells first if that is missing

    class Session(msgspec.Struct):
        user_id: int
        scopes: list[str]
        admin: bool = False

    session = Session(7, ["read", "write"])
    order = Order(1042, 99.5, ("tea", "kettle"))
    profile = Profile("Ada", date(1815, 12, 10), ("en", "fr"))
    yield Sample("session:7", "Session (Struct)", "msgspec", load_serializer("msgspec", Session), session)
    yield Sample("order:1042", "Order (dataclass)", "orjson", load_serializer("orjson", Order), order)
    yield Sample("profile:ada", "Profile (attrs)", "attrs", load_serializer("attrs", Profile), profile)


# --- how it is told ------------------------------------------------------------------------------------------------


@final
@attrs.frozen
class Row:
    """One line of a table, and what was wrong with it, if anything."""

    cells: tuple[str, ...]
    problem: str = ""


@final
@attrs.frozen
class Section:
    """A titled table; its columns are (name, alignment as in a format specification)."""

    title: str
    columns: Sequence[tuple[str, str]]
    rows: Sequence[Row]

    def lines(self) -> Iterable[str]:
        """Return the lines to print."""
        names, alignments = zip(*self.columns, strict=True)
        table = [names, *(row.cells for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        formats = [f"{{:{alignment}{width}}}" for alignment, width in zip(alignments, widths, strict=True)]
        layout = "  " + "  ".join(formats)
        yield self.title
        yield ""
        yield layout.format(*names)
        yield layout.format(*("-" * width for width in widths))
        for row in self.rows:
            yield f"{layout.format(*row.cells)}  {row.problem or 'ok'}"
        yield ""


COLUMNS: Final = (
    ("key", "<"),
    ("python type", "<"),
    ("serializer", "<"),
    ("stored bytes", ">"),
    ("client flags", ">"),
    ("round trip", ">"),
)


# --- one server ----------------------------------------------------------------------------------------------------


def one_server() -> Section:
    """Return the table of one memcached: three objects, a counter and a batch."""
    with Memcached() as server, Connection(server.node) as connection:
        rows = [round_trip(connection, sample) for sample in samples()]
        rows += [counter(connection), batch(connection)]
        return Section(f"One memcached, started for this demo on {server.node}", COLUMNS, rows)


def round_trip(transport: Transport, sample: Sample[T]) -> Row:
    """Store the sample's value, read it back as its type, and return its row."""
    client = Client(transport, sample.serializer)
    client.set(sample.key, sample.value)
    began = perf_counter()
    found = client.get(sample.key)
    took = perf_counter() - began
    items = _items(client, [sample.key])
    return _row(sample.key, sample.type_name, sample.serializer_name, items, took, _difference(sample.value, found))


def counter(transport: Transport) -> Row:
    """Store a number, let the server add to it, and return its row."""
    client = Client(transport, load_serializer("int", int))
    client.set("visits", 41)
    began = perf_counter()
    found = client.increment("visits")
    took = perf_counter() - began
    difference = _difference(42, found) or _difference(42, client.get("visits"))
    return _row("visits", "int (counter)", "int", _items(client, ["visits"]), took, difference)


def batch(transport: Transport) -> Row:
    """Store a hundred texts in one exchange, read them in another, and return their row."""
    client = Client(transport, load_serializer("str", str))
    texts = {f"page:{number}": f"<h1>Page {number}</h1>" for number in range(1, 101)}
    client.set_many(texts)
    began = perf_counter()
    found = client.get_many(texts)
    took = perf_counter() - began
    items = _items(client, texts)
    return _row("page:1 ... page:100", "str (batch of 100)", "str", items, took, _difference(texts, found))


def _items(client: Client[T], keys: Iterable[str]) -> list[Item[T]]:
    return list(client.get_items(keys).values())


def _row(key: str, type_: str, serializer: str, items: Sequence[Item[Any]], took: float, problem: str) -> Row:
    # Any: of the items only size and flags are told.
    size = sum(item.size for item in items)
    flags = " ".join(sorted({f"0x{item.client_flags:08x}" for item in items}))
    return Row((key, type_, serializer, f"{size:,}", flags or "-", f"{took * 1000:.3f} ms"), problem)


def _difference(stored: object, found: object) -> str:
    """Tell how what was read differs from what was stored; nothing when it does not."""
    if type(found) is not type(stored):
        return f"DIFFERS: {type(stored).__name__} came back as {type(found).__name__}"
    return "" if found == stored else "DIFFERS: another value came back"


# --- the whole -----------------------------------------------------------------------------------------------------

SECTIONS: Final[Sequence[Callable[[], Section]]] = (one_server,)

LEGEND: Final = """\
stored bytes  of the values alone; the server adds about 50 for each item
client flags  0xb, fingerprint of the type (4 digits, 0: none), compressor (1), serializer (2): who can read it back
round trip    one exchange with the server, from the call to the typed value in hand
"""


def main(plugins: Mapping[str, str] = PLUGINS) -> int:
    """Run the demo; return the exit status: 0 when everything came back as stored, 1 when not, 2 when it cannot run.

    *plugins*: the names of the serializers it needs, and the extra that installs each.
    """
    missing = _missing(plugins)
    if missing:
        extras = ",".join(dict.fromkeys(missing.values()))
        print(f"demo: not installed: {', '.join(missing)}\n  pip install 'metacache[{extras}]'", file=sys.stderr)
        return 2
    try:
        return run(SECTIONS)
    except MemcachedNotFound as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2


def _missing(wanted: Mapping[str, str]) -> Mapping[str, str]:
    installed = {info.name for info in available_serializers()}
    return {name: extra for name, extra in wanted.items() if name not in installed}


def run(sections: Iterable[Callable[[], Section]]) -> int:
    """Print *sections*; return 0 when nothing differs, else 1."""
    problems = 0
    for section in sections:
        table = section()
        problems += sum(bool(row.problem) for row in table.rows)
        print("\n".join(table.lines()))
    print(LEGEND)
    print(f"{problems} did not come back as it was stored." if problems else "Everything came back as it was stored.")
    return 1 if problems else 0
