"""The demo: typed objects go to private memcached servers and come back. A value that comes back different is an error.

It shows lines of code with the objects they return, then tables. It runs the source that it shows. A part starts the
servers it needs; a further part is a function in PARTS. Printed lines have at most 80 columns.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import date
from time import perf_counter
from typing import Any, Final, Generic, Protocol, TypeVar, final

import attrs

from metacache import accelerated, connect, connect_async
from metacache.client.aio import AsyncClient
from metacache.client.blocking import Client
from metacache.cluster.aio import AsyncCluster
from metacache.cluster.blocking import Cluster
from metacache.nodes import Node
from metacache.operations.results import Item
from metacache.routing import split
from metacache.serializers import Serializer, StrSerializer, available_serializers, load_serializer
from metacache.testing.memcached import Memcached
from metacache.testing.served import PrivateServer, private_server
from metacache.testing.stampede_demo import TASKS, THREADS, VALUE, tasks_ask, threads_ask
from metacache.testing.walkthrough import walk
from metacache.transports.base import Transport
from metacache.transports.blocking.connection import Connection

__all__ = ["Listing", "Part", "Row", "Sample", "Section", "main", "round_trip", "run"]

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
    """An attrs class with a date in it, stored as JSON."""

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
    import msgspec  # not at the top: it comes with metacache-msgspec, and `main` says first if that is missing

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


TEXTS: Final = {f"page:{number}": f"<h1>Page {number}</h1>" for number in range(1, 101)}
ALL_TEXTS: Final = "page:1..100"


# --- how it is shown -----------------------------------------------------------------------------------------------


class Part(Protocol):
    """What the demo prints: lines, and what was wrong with some of them."""

    def lines(self) -> Iterable[str]:
        """Return the lines to print."""
        ...

    def problems(self) -> int:
        """Return how many values did not come back as they were stored."""
        ...


@final
@attrs.frozen
class Listing:
    """Titled lines of code, each with its value, as an interactive session shows them."""

    title: str
    shown: Sequence[str]

    def lines(self) -> Iterable[str]:
        """Return the lines to print."""
        yield self.title
        yield ""
        yield from (f"  {line}".rstrip() for line in self.shown)
        yield ""

    def problems(self) -> int:
        """Return 0: a line that cannot run raises, and the tables check the values."""
        return 0


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

    def problems(self) -> int:
        """Return the number of rows with a problem."""
        return sum(bool(row.problem) for row in self.rows)

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
    ("bytes", ">"),
    ("flags", ">"),
    ("took", ">"),
)


# --- lines of code -------------------------------------------------------------------------------------------------


def typed_objects(server: PrivateServer) -> None:
    """Store and read objects of several types; shown and run line by line."""
    import msgspec

    class User(msgspec.Struct):
        name: str
        age: int
        scopes: list[str] = []

    users = connect(server.url, User, serializer="msgspec", prefix="user:")
    users.set("ada", User("Ada", 36, ["read", "write"]), ttl=300)
    users.get("ada")
    users.get("bob", "no such user")
    orders = connect(server.url, Order, serializer="orjson", prefix="order:")
    orders.set("1042", Order(1042, 99.5, ("tea", "kettle")))
    orders.get_many(["1042", "1043"])
    people = connect(server.url, Profile, serializer="attrs")
    people.add("lovelace", Profile("Ada", date(1815, 12, 10), ("en", "fr")))
    people.get_item("lovelace")
    visits = connect(server.url, int)
    visits.set("visits", 41)
    visits.increment("visits")
    for client in (users, orders, people, visits):
        client.close()


async def the_same_with_asyncio(server: PrivateServer) -> None:
    """Read what `typed_objects` stored; shown and run line by line."""
    people = connect_async(server.url, Profile, serializer="attrs")
    await people.get("lovelace")
    await people.set("boole", Profile("George", date(1815, 11, 2)))
    await asyncio.gather(people.get("boole"), people.get("babbage"))
    await people.aclose()


def listing(title: str, functions: Iterable[Callable[..., object]], classes: Iterable[type] = ()) -> Listing:
    """Run *functions* on one memcached; return their lines and values, below the source of *classes*."""
    shown: list[str] = []
    for class_ in classes:
        shown += [*textwrap.dedent(inspect.getsource(class_)).splitlines(), ""]
    with private_server() as server:
        for function in functions:
            for step in walk(function, {"server": server}):
                shown += step.lines()
    return Listing(title, shown)


def objects() -> Listing:
    """Return the lines that store and read objects, with both clients."""
    title = "Typed objects in a private memcached; below each line is what it returned"
    return listing(title, [typed_objects, the_same_with_asyncio], [Order, Profile])


# --- one server ----------------------------------------------------------------------------------------------------


def one_server() -> Section:
    """Return the table of one memcached: three objects, a counter and a batch."""
    with private_server() as server, Connection(server.node) as connection:
        rows = [round_trip(connection, sample) for sample in samples()]
        rows += [counter(connection), batch(connection)]
        kind = "memcached" if isinstance(server, Memcached) else "embedded server"
        return Section(f"One {kind}, on {server.node}: what is stored, and how", COLUMNS, rows)


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
    client = Client(transport, StrSerializer())
    client.set_many(TEXTS)
    began = perf_counter()
    found = client.get_many(TEXTS)
    took = perf_counter() - began
    items = _items(client, TEXTS)
    return _row(ALL_TEXTS, "str, 100 in batch", "str", items, took, _difference(TEXTS, found))


def _items(client: Client[T], keys: Iterable[str]) -> list[Item[T]]:
    return list(client.get_items(keys).values())


def _row(key: str, type_: str, serializer: str, items: Sequence[Item[Any]], took: float, problem: str) -> Row:
    # Any: of the items only size and flags are shown.
    flags = " ".join(sorted({f"0x{item.client_flags:08x}" for item in items}))
    return Row((key, type_, serializer, _size(items), flags or "-", _milliseconds(took)), problem)


def _size(items: Iterable[Item[Any]]) -> str:  # Any: as above
    return f"{sum(item.size for item in items):,}"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.3f} ms"


def _difference(stored: object, found: object) -> str:
    """Return how the value read differs from the value stored; "" when it does not."""
    if type(found) is not type(stored):
        return f"DIFFERS: {type(stored).__name__} came back as {type(found).__name__}"
    return "" if found == stored else "DIFFERS: another value came back"


# --- a cluster of three --------------------------------------------------------------------------------------------

# The nodes and their weights. Keys hang on the names: they are where they are whatever ports the servers got.
NODES: Final = {"cache-a": 1.0, "cache-b": 1.0, "cache-c": 2.0}

CLUSTER_COLUMNS: Final = (
    ("key", "<"),
    ("node", "<"),
    ("bytes", ">"),
    ("took", ">"),
)


def cluster_of_three() -> Section:
    """Return the table of three memcached: three objects and a batch, each key on the node that owns it."""
    with ExitStack() as stack:
        servers = {name: private_server() for name in NODES}
        for server in servers.values():
            stack.callback(server.close)
        nodes = [Node(servers[name].node.address, weight=weight, name=name) for name, weight in NODES.items()]
        cluster = stack.enter_context(Cluster(nodes))
        rows = [*(placed(cluster, sample) for sample in samples()), spread(cluster)]
        weights = ", ".join(f"{node.name} (weight {node.weight:g})" for node in cluster.nodes)
        return Section(f"A cluster of three: {weights}", CLUSTER_COLUMNS, rows)


def placed(cluster: Cluster, sample: Sample[T]) -> Row:
    """Store the sample's value in *cluster*, read it back, look which node holds it, and return its row."""
    client = Client(cluster, sample.serializer)
    client.set(sample.key, sample.value)
    began = perf_counter()
    found = client.get(sample.key)
    took = perf_counter() - began
    owner = cluster.router.pick(sample.key.encode()).name
    held = held_by_each(cluster, [sample.key])
    problem = _difference(sample.value, found) or _misplaced({owner: 1}, held)
    items = _items(client, [sample.key])
    return Row((sample.key, ", ".join(held) or "-", _size(items), _milliseconds(took)), problem)


def spread(cluster: Cluster) -> Row:
    """Store a hundred texts in one exchange with all nodes, read them in another, and return their row."""
    client = Client(cluster, StrSerializer())
    client.set_many(TEXTS)
    began = perf_counter()
    found = client.get_many(TEXTS)
    took = perf_counter() - began
    owned = {name: len(keys) for name, keys in split(cluster.router, [key.encode() for key in TEXTS]).items()}
    held = held_by_each(cluster, TEXTS)
    counts = ", ".join(f"{name} {count}" for name, count in held.items())
    problem = _difference(TEXTS, found) or _misplaced(owned, held)
    return Row((ALL_TEXTS, counts, _size(_items(client, TEXTS)), _milliseconds(took)), problem)


def held_by_each(cluster: Cluster, keys: Iterable[str]) -> Mapping[str, int]:
    """Ask each node; return how many of *keys* it holds, without the nodes that hold none."""
    held: dict[str, int] = {}
    for node in cluster.nodes:
        with Connection(node) as connection:
            client = Client(connection)
            count = sum(client.inspect(key) is not None for key in keys)
        if count:
            held[node.name] = count
    return held


def _misplaced(owned: Mapping[str, int], held: Mapping[str, int]) -> str:
    return "" if owned == held else f"DIFFERS: the router says {dict(owned)}"


# --- asyncio -------------------------------------------------------------------------------------------------------


def under_asyncio() -> Section:
    """Return the table of what the blocking client stored and the asyncio client reads back."""
    with private_server() as server:
        with Connection(server.node) as connection:
            for sample in samples():
                Client(connection, sample.serializer).set(sample.key, sample.value)
            Client(connection, StrSerializer()).set_many(TEXTS)
        rows = asyncio.run(read_all(server.url))
        return Section("Read back under asyncio", COLUMNS, rows)


async def read_all(url: str) -> Sequence[Row]:
    """Read the samples, and a hundred texts by a hundred tasks at the same time; return their rows."""
    async with AsyncCluster.from_url(url) as cluster:
        await cluster.ping()  # dials, as the store before did for the others
        rows = [await read_back(AsyncClient(cluster, sample.serializer), sample) for sample in samples()]
    async with connect_async(url, str) as client:
        began = perf_counter()
        texts = await asyncio.gather(*map(client.get, TEXTS))
        took = perf_counter() - began
        found = {key: text for key, text in zip(TEXTS, texts, strict=True) if text is not None}
        items = list((await client.get_items(TEXTS)).values())
    return [*rows, _row(ALL_TEXTS, "str, 100 in tasks", "str", items, took, _difference(TEXTS, found))]


async def read_back(client: AsyncClient[T], sample: Sample[T]) -> Row:
    """Read the sample's value as its type, and return its row."""
    began = perf_counter()
    item = await client.get_item(sample.key)
    took = perf_counter() - began
    items = [] if item is None else [item]
    difference = _difference(sample.value, None if item is None else item.value)
    return _row(sample.key, sample.type_name, sample.serializer_name, items, took, difference)


# --- a stampede ----------------------------------------------------------------------------------------------------

STAMPEDE_COLUMNS: Final = (
    ("callers of one key", "<"),
    ("how", "<"),
    ("query ran", ">"),
    ("took", ">"),
)


def stampede() -> Section:
    """Return the table of many callers that ask for one absent key at the same time, with and without help."""
    asked: dict[str, Callable[[PrivateServer, bool], tuple[int, set[str]]]] = {
        f"{THREADS} threads": lambda server, once: threads_ask(server, compute_once=once),
        f"{TASKS} tasks": lambda server, once: asyncio.run(tasks_ask(server, compute_once=once)),
    }
    rows: list[Row] = []
    with private_server() as server:
        for callers, ask in asked.items():
            for once, how in ((False, "get, then set"), (True, "get_or_compute")):
                began = perf_counter()
                runs, answers = ask(server, once)
                took = perf_counter() - began
                problem = "DIFFERS: another value came back" if answers != {VALUE} else ""
                if once and runs != 1:
                    problem = "DIFFERS: the query ran more than once"
                rows.append(Row((callers, how, f"{runs} x", _milliseconds(took)), problem))
    return Section("A stampede: many callers of one absent key, and a query of 50 ms", STAMPEDE_COLUMNS, rows)


# --- the whole -----------------------------------------------------------------------------------------------------

PARTS: Final[Sequence[Callable[[], Part]]] = (objects, one_server, cluster_of_three, under_asyncio, stampede)

LEGEND: Final = """\
bytes  of the values alone; the server adds about 50 for each item
flags  0xb, fingerprint of the type (4 digits, 0: none), compressor (1 digit),
       serializer (2 digits): a client reads only what it can decode
node   the server that holds the key; it is the one that the router chooses
took   one exchange with the server, from the call to the typed value in hand;
       in the last table, all callers together
"""


STAND_IN: Final = """\
memcached is not installed. The embedded server of metacache takes its place:
it answers in the same way, from the memory of this process.
"""


def main(plugins: Mapping[str, str] = PLUGINS) -> int:
    """Run the demo; return the exit status: 0 when everything came back as stored, 1 when not, 2 when it cannot run.

    *plugins*: the names of the serializers it needs, and the extra that installs each. Without memcached, it uses the
    embedded server, and says so.
    """
    missing = _missing(plugins)
    if missing:
        extras = ",".join(dict.fromkeys(missing.values()))
        print(f"demo: not installed: {', '.join(missing)}\n  pip install 'metacache[{extras}]'", file=sys.stderr)
        return 2
    with private_server() as server:
        if not isinstance(server, Memcached):
            print(STAND_IN)
    return run(PARTS)


def _missing(wanted: Mapping[str, str]) -> Mapping[str, str]:
    installed = {info.name for info in available_serializers()}
    return {name: extra for name, extra in wanted.items() if name not in installed}


def run(parts: Iterable[Callable[[], Part]]) -> int:
    """Print *parts*; return 0 when nothing differs, else 1."""
    problems = 0
    for part in parts:
        made = part()
        problems += made.problems()
        print("\n".join(made.lines()))
    print("With compiled primitives (metacache-speed)." if accelerated else "In pure Python, without metacache-speed.")
    print(LEGEND)
    print(f"{problems} did not come back as it was stored." if problems else "Everything came back as it was stored.")
    return 1 if problems else 0
