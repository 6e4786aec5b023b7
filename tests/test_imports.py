"""The arrows between the rooms: imports go down the list below and nowhere else, and I/O stays where it belongs.

An import under TYPE_CHECKING is an arrow too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

import metacache

ROOT: Final = Path(metacache.__file__).parent

# A room is a package with all in it, or a module. A line may import from the lines below it, and a room from itself.
# Rooms that share a line do not import one another. A part of a room that has a line of its own keeps to that line.
ORDER: Final[tuple[tuple[str, ...], ...]] = (
    ("",),  # metacache/__init__.py, the public names
    ("connect",),
    ("urls",),
    ("client",),
    ("operations.recipes",),
    ("operations.batches",),
    ("operations.requests",),
    ("operations.readers", "operations.answers"),
    ("operations.policies",),
    ("operations.statistics",),
    ("operations.options",),
    ("operations",),
    ("discovery",),
    ("cluster",),
    ("pool",),
    ("transports.blocking", "transports.aio"),
    ("transports",),
    ("serializers", "routing", "protocol"),
    ("settings",),
    ("nodes", "copying", "entry_points"),
    ("interrupts", "errors"),
)
# The public contract has a cluster make clients, and open itself from a URL: two imports up, each made when it is used.
LATE: Final = {
    "cluster/blocking.py": {"metacache.client.blocking", "metacache.connect", "metacache.operations.options"},
    "cluster/aio.py": {"metacache.client.aio", "metacache.connect", "metacache.operations.options"},
}
FREE: Final = {"testing", "__main__"}  # may import anything, and be imported by each other only
BOTH: Final = {"", "connect"}  # rooms that serve both kinds of client

RANK: Final = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}

# Which modules do I/O, wait or read a clock, and why.
GUARDED: Final[dict[str, dict[str, str]]] = {
    "socket": {
        "discovery/dns.py": "resolves the names of nodes",
        "transports/resolving.py": "resolves the name of one node",
        "transports/blocking/dialer.py": "connects",
        "transports/blocking/stream.py": "sends and receives",
        "transports/aio/dialer.py": "connects",
    },
    "ssl": {
        "settings.py": "the type of `Settings.tls`",
        "urls.py": "the context of a memcacheds URL",
        "transports/resolving.py": "describes a failed TLS handshake",
        "transports/blocking/stream.py": "catches what TLS sockets raise",
    },
    "threading": {
        "cluster/blocking.py": "the lock of node health and of the node set",
        "discovery/watch.py": "asks the source of nodes from time to time",
        "transports/blocking/checkout.py": "callers wait for a connection",
        "transports/resolving.py": "getaddrinfo has no timeout",
    },
    "select": {
        "cluster/blocking_batch.py": "waits for several nodes",
        "transports/blocking/exchange.py": "waits for one node",
        "transports/blocking/stream.py": "sees whether an idle connection is stale",
    },
    "selectors": {},
    "asyncio": {
        "client/aio_effects.py": "sleeps between attempts",
        "cluster/aio.py": "drains removed nodes in tasks",
        "cluster/aio_admin.py": "asks all nodes at the same time",
        "cluster/aio_batch.py": "sends to several nodes at the same time",
        "cluster/opening.py": "finds the nodes once for all who wait",
        "cluster/per_loop.py": "a cluster for each event loop",
        "discovery/aio_watch.py": "asks the source of nodes from time to time",
        "transports/aio/connection.py": "one connection for the tasks of a loop",
        "transports/aio/dialer.py": "connects",
        "transports/aio/link.py": "sends and receives",
        "transports/aio/loops.py": "finds the running loop",
        "transports/aio/opening.py": "dials in a task",
        "transports/aio/pending.py": "tasks wait for replies",
        "transports/aio/timing.py": "timers",
    },
    "time": {
        "client/core.py": "an expiry more than 30 days away is sent as a time of day",
        "client/blocking_effects.py": "deadlines; sleeps between attempts",
        "client/aio_effects.py": "deadlines",
        "cluster/blocking.py": "deadlines, probes",
        "cluster/blocking_batch.py": "deadlines",
        "cluster/aio.py": "deadlines, probes",
        "cluster/aio_batch.py": "deadlines",
        "cluster/opening.py": "deadlines",
        "discovery/watch.py": "when to ask again",
        "discovery/aio_watch.py": "when to ask again",
        "discovery/dns.py": "deadlines",
        "discovery/elasticache.py": "deadlines",
        "pool/aio.py": "deadlines, idle times",
        "transports/resolving.py": "how old an answer is",
        "transports/blocking/checkout.py": "deadlines",
        "transports/blocking/lending.py": "deadlines, idle times",
        "transports/blocking/dialer.py": "deadlines",
        "transports/blocking/exchange.py": "deadlines",
        "transports/blocking/stream.py": "deadlines",
        "transports/aio/connection.py": "deadlines",
        "transports/aio/dialer.py": "deadlines",
        "transports/aio/link.py": "when a reply arrived",
        "transports/aio/opening.py": "deadlines",
        "transports/aio/pending.py": "deadlines",
        "transports/aio/timing.py": "timers",
    },
}


class Import(NamedTuple):
    """One imported module, and where."""

    file: str
    line: int
    module: str


def imports_of(path: Path) -> Iterator[Import]:
    name = path.relative_to(ROOT).as_posix()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(name, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}:{node.lineno}: imports are absolute"
            assert node.module
            # `from metacache import recipes` names a room in its list.
            rooms = [alias.name for alias in node.names if is_module(f"{node.module}.{alias.name}")]
            yield from (Import(name, node.lineno, f"{node.module}.{room}") for room in rooms)
            if len(rooms) < len(node.names):
                yield Import(name, node.lineno, node.module)


def is_module(name: str) -> bool:
    path = ROOT.parent.joinpath(*name.split("."))
    return name.startswith("metacache.") and (path.is_dir() or path.with_suffix(".py").is_file())


def room_of(name: str) -> str:
    """Return the room of a file (``pool/blocking.py``) or of a module (``metacache.pool.blocking``)."""
    parts = name.removesuffix(".py").split("/") if name.endswith(".py") else name.split(".")[1:]
    dotted = ".".join(part for part in parts if part != "__init__")
    found = [room for room in (*RANK, *FREE) if room and f"{dotted}.".startswith(f"{room}.")]
    return max(found, key=len, default=dotted)


def side_of(name: str) -> str | None:
    """Return which kind of client a file or module serves: "aio", "blocking", or None for both."""
    for part in name.removesuffix(".py").replace("/", ".").split("."):
        for side in ("aio", "blocking"):
            if part == side or part.startswith(f"{side}_"):
                return side
    return None


ALL: Final = [found for path in sorted(ROOT.rglob("*.py")) for found in imports_of(path)]


def wrong_arrow(found: Import) -> str | None:
    """Return what is wrong with *found*, if anything."""
    if found.module.split(".")[0] != "metacache":
        return None
    here, there = room_of(found.file), room_of(found.module)
    where = f"{found.file}:{found.line}: {here or 'the public names'} imports {there or 'the public names'}"
    if here in FREE or found.module in LATE.get(found.file, ()):
        return None
    if here not in RANK or there not in RANK:
        return f"{where}, and one of them is in no line of ORDER"
    if here not in BOTH and {side_of(found.file), side_of(found.module)} == {"aio", "blocking"}:
        return f"{where}, which serves the other kind of client"
    if here == there and here:
        return None
    return None if RANK[here] < RANK[there] else f"{where}, which is not below it"


def wrong_guard(found: Import) -> str | None:
    """Return what is wrong with *found* if it is a guarded module, if anything."""
    allowed = GUARDED.get(found.module.split(".")[0])
    if allowed is None or room_of(found.file) in FREE or found.file in allowed:
        return None
    return f"{found.file}:{found.line}: {found.module} is for {', '.join(allowed)}"


def test_imports_go_down_only() -> None:
    assert [wrong for found in ALL if (wrong := wrong_arrow(found))] == []


def test_io_stays_in_its_files() -> None:
    assert [wrong for found in ALL if (wrong := wrong_guard(found))] == []


def test_each_module_that_may_do_io_does_it() -> None:
    used = {(found.module.split(".")[0], found.file) for found in ALL}
    listed = {(module, file) for module, files in GUARDED.items() for file in files}
    assert listed - used == set()


def test_the_walk_sees_the_arrows() -> None:
    assert len(ALL) > 200
    modules = {(found.file, found.module) for found in ALL}
    assert ("client/blocking.py", "metacache.operations.recipes") in modules, "a room named in a list"
    assert ("transports/blocking/dialer.py", "socket") in modules
    assert any(file == "protocol/connection.py" and module.startswith("metacache.") for file, module in modules)


WRONG: Final = (
    ("protocol/keys.py", "metacache.serializers.frame", "not below"),
    ("protocol/keys.py", "metacache.routing", "not below"),
    ("routing/rendezvous.py", "metacache.protocol.keys", "not below"),
    ("serializers/frame.py", "metacache.transports.base", "not below"),
    ("operations/requests.py", "metacache.client.blocking", "not below"),
    ("operations/requests.py", "metacache.operations.batches", "not below"),
    ("client/blocking.py", "metacache.client.aio", "the other kind"),
    ("pool/aio.py", "metacache.transports.blocking.checkout", "the other kind"),
    ("transports/aio/link.py", "metacache.transports.blocking.exchange", "the other kind"),
    ("transports/limits.py", "metacache.transports.aio.link", "not below"),
    ("errors.py", "metacache.nodes", "not below"),
    ("pool/blocking.py", "metacache.cluster.blocking", "not below"),
    ("transports/blocking/connection.py", "metacache.operations.requests", "not below"),
    ("client/blocking.py", "metacache", "not below"),
    ("client/blocking.py", "metacache.testing.fake", "no line of ORDER"),
    ("attic.py", "metacache.errors", "no line of ORDER"),
)
RIGHT: Final = (
    ("client/blocking.py", "metacache.operations.recipes"),
    ("operations/recipes.py", "metacache.operations.requests"),
    ("pool/blocking.py", "metacache.transports.blocking.connection"),
    ("transports/aio/link.py", "metacache.transports.limits"),
    ("pool/blocking.py", "metacache.pool.state"),
    ("testing/fake.py", "metacache.client.blocking"),
    ("__init__.py", "metacache.client.blocking"),
    ("routing/__init__.py", "metacache.nodes"),
)


@pytest.mark.parametrize(("file", "module", "why"), WRONG)
def test_an_arrow_up_or_across_is_found(file: str, module: str, why: str) -> None:
    assert why in (wrong_arrow(Import(file, 1, module)) or "")


@pytest.mark.parametrize(("file", "module"), RIGHT)
def test_an_arrow_down_is_allowed(file: str, module: str) -> None:
    assert wrong_arrow(Import(file, 1, module)) is None


@pytest.mark.parametrize(
    ("file", "module", "is_wrong"),
    [
        ("protocol/connection.py", "socket", True),
        ("protocol/connection.py", "time", True),
        ("operations/requests.py", "threading", True),
        ("client/blocking.py", "asyncio", True),
        ("client/aio.py", "socket", True),
        ("pool/aio.py", "ssl", True),
        ("settings.py", "socket", True),
        ("transports/blocking/connection.py", "asyncio", True),
        ("pool/aio.py", "threading", True),
        ("settings.py", "ssl", False),
        ("transports/aio/link.py", "asyncio", False),
        ("testing/memcached.py", "socket", False),
    ],
)
def test_io_in_a_wrong_file_is_found(file: str, module: str, *, is_wrong: bool) -> None:
    assert (wrong_guard(Import(file, 1, module)) is not None) == is_wrong
