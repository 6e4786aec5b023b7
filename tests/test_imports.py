"""Imports between the packages only go down the list below, and only listed modules do I/O.

An import under TYPE_CHECKING counts too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

import metacache

ROOT: Final = Path(metacache.__file__).parent

# A room is a package with all its modules, or a single module. A room may import from itself and from the lines below
# it. Rooms in one line do not import one another. A part of a room may have its own line.
ORDER: Final[tuple[tuple[str, ...], ...]] = (
    ("cli",),
    ("",),  # metacache/__init__.py, the public names
    ("connecting", "aio_connecting"),
    ("urls",),
    ("client",),
    ("caching",),
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
    ("memory",),
    ("transports.blocking", "transports.aio"),
    ("transports",),
    ("observe",),
    ("serializers", "routing", "protocol"),
    ("settings",),
    ("nodes", "copying", "entry_points"),
    ("interrupts", "errors", "sessions", "lazy_names", "once", "acceleration"),
    ("marks", "logs"),
)
# Imports up, inside functions: `Cluster.client` makes clients, and `Cluster.from_url` parses a URL.
LATE: Final = {
    "cluster/blocking.py": {"metacache.client.blocking", "metacache.connecting", "metacache.operations.options"},
    "cluster/aio.py": {"metacache.client.aio", "metacache.aio_connecting", "metacache.operations.options"},
}
FREE: Final = {"testing", "__main__"}  # may import everything; only they import one another
BOTH: Final = {"", "discovery"}  # rooms that serve both kinds of client

RANK: Final = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}

# The modules that do I/O, wait or read a clock, and the reasons.
GUARDED: Final[dict[str, dict[str, str]]] = {
    "socket": {
        "discovery/dns.py": "resolves the names of nodes",
        "memory/serve.py": "resets a connection; asks whether a unix socket is in use",
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
        "cluster/blocking.py": "the lock of the node set and of node health",
        "discovery/watch.py": "asks the source of nodes from time to time",
        "memory/server.py": "the lock of the items",
        "transports/blocking/checkout.py": "callers wait for a connection",
        "transports/resolving.py": "getaddrinfo has no timeout",
    },
    "select": {
        "cli/metadump.py": "waits for the lines of a dump",
        "cluster/blocking_batch.py": "waits for several nodes",
        "cluster/parallel.py": "waits for several nodes",
        "transports/blocking/exchange.py": "waits for one node",
        "transports/blocking/stream.py": "sees whether an idle connection is stale",
    },
    "selectors": {},
    "rich": {"cli/colours.py": "colours; the library works without it"},
    "asyncio": {
        "cli/serve.py": "serves until a signal",
        "client/aio_effects.py": "sleeps between attempts",
        "client/aio_background.py": "tasks refresh",
        "client/aio_caching.py": "tasks wait",
        "cluster/aio.py": "drains removed nodes in tasks",
        "cluster/aio_admin.py": "asks all nodes at the same time",
        "cluster/aio_batch.py": "sends to several nodes at the same time",
        "cluster/opening.py": "finds the nodes once for all who wait",
        "cluster/per_loop.py": "a cluster for each event loop",
        "discovery/aio_watch.py": "asks the source of nodes from time to time",
        "memory/serve.py": "listens",
        "transports/aio/block_receiver.py": "a protocol of a transport",
        "transports/aio/connection.py": "one connection for the tasks of a loop",
        "transports/aio/dialer.py": "connects",
        "transports/aio/link.py": "sends and receives",
        "transports/aio/local.py": "carries bytes to a server in this process",
        "transports/aio/loops.py": "finds the running loop",
        "transports/aio/opening.py": "dials in a task",
        "transports/aio/pending.py": "tasks wait for replies",
        "transports/aio/timing.py": "timers",
    },
    "time": {
        "caching/core.py": "as client/core.py",
        "cli/keys.py": "the time of a node that does not say its own",
        "cli/metadump.py": "deadlines; sleeps while the server is busy",
        "cli/nodes.py": "how long an answer took",
        "cli/output.py": "how often a progress bar is drawn",
        "cli/top.py": "sleeps between samples",
        "client/blocking_caching.py": "waits, sleeps",
        "client/aio_caching.py": "deadlines",
        "client/core.py": "an expiry more than 30 days away is sent as a time of day",
        "client/blocking_effects.py": "deadlines; sleeps between attempts",
        "client/calls.py": "how long a call took",
        "client/blocking_observed.py": "how long a call took",
        "client/aio_observed.py": "how long a call took",
        "client/aio_effects.py": "deadlines",
        "cluster/blocking.py": "deadlines, probes",
        "cluster/blocking_batch.py": "deadlines",
        "cluster/parallel.py": "deadlines",
        "cluster/aio.py": "deadlines, probes",
        "cluster/opening.py": "deadlines",
        "discovery/watch.py": "when to ask again",
        "discovery/aio_watch.py": "when to ask again",
        "discovery/dns.py": "deadlines",
        "discovery/elasticache.py": "deadlines",
        "memory/server.py": "the default clock",
        "pool/aio.py": "deadlines, idle times",
        "transports/resolving.py": "how old an answer is",
        "transports/blocking/checkout.py": "deadlines",
        "transports/blocking/lending.py": "deadlines, idle times",
        "transports/blocking/dialer.py": "deadlines",
        "transports/blocking/exchange.py": "deadlines",
        "transports/blocking/local.py": "waits for the pauses of a fault script",
        "transports/blocking/stream.py": "deadlines",
        "transports/aio/connection.py": "deadlines",
        "transports/aio/observed.py": "how long a request took",
        "transports/blocking/observed.py": "how long a request took",
        "transports/aio/dialer.py": "deadlines",
        "transports/aio/link.py": "when a reply arrived",
        "transports/aio/opening.py": "deadlines",
        "transports/aio/pending.py": "deadlines",
        "transports/aio/timing.py": "timers",
    },
}


class Import(NamedTuple):
    """An import: the file, the line, the imported module."""

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
            # `from metacache import recipes` names a module in its list.
            rooms = [alias.name for alias in node.names if is_module(f"{node.module}.{alias.name}")]
            yield from (Import(name, node.lineno, f"{node.module}.{room}") for room in rooms)
            if len(rooms) < len(node.names):
                yield Import(name, node.lineno, node.module)


def is_module(name: str) -> bool:
    path = ROOT.parent.joinpath(*name.split("."))
    return name.startswith("metacache.") and (path.is_dir() or path.with_suffix(".py").is_file())


def room_of(name: str) -> str:
    """Return the room of a file (``pool/blocking.py``) or a module (``metacache.pool.blocking``)."""
    parts = name.removesuffix(".py").split("/") if name.endswith(".py") else name.split(".")[1:]
    dotted = ".".join(part for part in parts if part != "__init__")
    found = [room for room in (*RANK, *FREE) if room and f"{dotted}.".startswith(f"{room}.")]
    return max(found, key=len, default=dotted)


def side_of(name: str) -> str | None:
    """Return the kind of client that uses a file or module: "aio", "blocking", or None for both."""
    for part in name.removesuffix(".py").replace("/", ".").split("."):
        for side in ("aio", "blocking"):
            if part == side or part.startswith(f"{side}_"):
                return side
    return None


ALL: Final = [found for path in sorted(ROOT.rglob("*.py")) for found in imports_of(path)]


def wrong_arrow(found: Import) -> str | None:
    """Return what is wrong with the direction of *found*; None if it is right."""
    if found.module.split(".")[0] != "metacache":
        return None
    here, there = room_of(found.file), room_of(found.module)
    where = f"{found.file}:{found.line}: {here or 'the public names'} imports {there or 'the public names'}"
    if here in FREE or found.module in LATE.get(found.file, ()):
        return None
    if here not in RANK or there not in RANK:
        return f"{where}, and one of them is not in ORDER"
    if here not in BOTH and {side_of(found.file), side_of(found.module)} == {"aio", "blocking"}:
        return f"{where}, which belongs to the other kind of client"
    if here == there and here:
        return None
    return None if RANK[here] < RANK[there] else f"{where}, which is not below it"


def wrong_guard(found: Import) -> str | None:
    """Return what is wrong with *found* if it imports a guarded module; None if it is right."""
    allowed = GUARDED.get(found.module.split(".")[0])
    if allowed is None or room_of(found.file) in FREE or found.file in allowed:
        return None
    return f"{found.file}:{found.line}: {found.module} is only for {', '.join(allowed)}"


def test_imports_go_down_only() -> None:
    assert [wrong for found in ALL if (wrong := wrong_arrow(found))] == []


def test_only_listed_modules_import_io() -> None:
    assert [wrong for found in ALL if (wrong := wrong_guard(found))] == []


def test_each_module_listed_for_io_imports_it() -> None:
    used = {(found.module.split(".")[0], found.file) for found in ALL}
    listed = {(module, file) for module, files in GUARDED.items() for file in files}
    assert listed - used == set()


def test_all_forms_of_imports_are_found() -> None:
    assert len(ALL) > 200
    modules = {(found.file, found.module) for found in ALL}
    assert ("client/blocking.py", "metacache.operations.recipes") in modules, "a room named in a list"
    assert ("transports/blocking/dialer.py", "socket") in modules
    assert any(file == "protocol/connection.py" and module.startswith("metacache.") for file, module in modules)


def test_the_embedded_server_does_not_use_the_parser_of_replies() -> None:
    # One mistake must not hide in both: the clients parse what the server wrote.
    reached = {"metacache.memory.server", "metacache.memory.commands", "metacache.memory.admin"}
    before: set[str] = set()
    while reached != before:
        before = set(reached)
        reached |= {found.module for found in ALL if module_of(found.file) in before}
    assert "metacache.protocol.flags" in reached, "it shares the table of flags"
    assert reached.isdisjoint({f"metacache.protocol.{name}" for name in ("replies", "expectations", "error_lines")})


def module_of(file: str) -> str:
    return f"metacache.{file.removesuffix('.py').removesuffix('/__init__').replace('/', '.')}"


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
    ("client/blocking.py", "metacache.testing.fake", "not in ORDER"),
    ("attic.py", "metacache.errors", "not in ORDER"),
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
def test_an_import_up_or_across_is_found(file: str, module: str, why: str) -> None:
    assert why in (wrong_arrow(Import(file, 1, module)) or "")


@pytest.mark.parametrize(("file", "module"), RIGHT)
def test_an_import_down_is_allowed(file: str, module: str) -> None:
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
def test_io_in_an_unlisted_module_is_found(file: str, module: str, *, is_wrong: bool) -> None:
    assert (wrong_guard(Import(file, 1, module)) is not None) == is_wrong


# A module whose docstring says "Pure" gives equal results for equal arguments, so it imports none of these.
IMPURE: Final = {
    *("asyncio", "io", "logging", "os", "random", "secrets", "select", "selectors", "socket", "ssl", "subprocess"),
    *("tempfile", "threading", "time", "weakref"),
}


def impure_imports(docstring: str, modules: Iterable[str]) -> set[str]:
    """Return the members of IMPURE among *modules*, the imports of a module whose docstring says that it is pure."""
    is_pure = re.search(r"\bPure\b", docstring) is not None
    return {module.split(".")[0] for module in modules} & IMPURE if is_pure else set()


def test_a_module_that_calls_itself_pure_imports_nothing_impure() -> None:
    docstrings = {path: ast.get_docstring(ast.parse(path.read_text())) or "" for path in sorted(ROOT.rglob("*.py"))}
    found = {
        path.relative_to(ROOT): impure_imports(docstring, [each.module for each in imports_of(path)])
        for path, docstring in docstrings.items()
    }
    assert {path: modules for path, modules in found.items() if modules} == {}


@pytest.mark.parametrize(
    ("docstring", "expected"), [("Parses. Pure.", ["time"]), ("Pure, and shared.", ["time"]), ("Waits.", [])]
)
def test_an_impure_import_is_found(docstring: str, expected: list[str]) -> None:
    assert sorted(impure_imports(docstring, ["math", "time", "metacache.errors"])) == expected
