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

# A room is a module, or a package with all in it. A line may import from the lines below it, a package from itself;
# rooms that share a line do not import one another.
ORDER: Final[tuple[tuple[str, ...], ...]] = (
    ("",),  # the shop window: metacache/__init__.py
    ("connect",),
    ("urls",),
    ("client", "aio"),
    ("effects",),
    ("core",),
    ("recipes",),
    ("batches",),
    ("operations",),
    ("readers", "answers"),
    ("policies",),
    ("statistics",),
    ("options",),
    ("arguments",),
    ("discovery",),
    ("cluster",),
    ("pool",),
    ("admin",),
    ("transports",),
    ("results",),
    ("serializers", "routing", "protocol"),
    ("settings",),
    ("nodes", "copying"),
    ("interrupts", "errors"),
)
# The public contract has a cluster make clients, and open itself from a URL: two doors up, each opened when it is used.
DOORS: Final = {
    "cluster/blocking.py": {"metacache.client", "metacache.connect", "metacache.options"},
    "cluster/aio.py": {"metacache.aio", "metacache.connect", "metacache.options"},
}
FREE: Final = {"testing", "__main__"}  # may import anything, and be imported by each other only

RANK: Final = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}

# Modules that do I/O or wait, and the files that may import them, as patterns of `Path.match`.
GUARDED: Final[dict[str, tuple[str, ...]]] = {
    "socket": ("blocking.py", "transports/**/aio.py", "transports/aio.py"),
    "ssl": ("blocking.py", "transports/**/aio.py", "transports/aio.py", "settings.py", "urls.py"),
    "threading": ("blocking.py",),
    "selectors": ("blocking.py",),
    "select": ("blocking.py",),
    "asyncio": ("aio.py",),
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
    if "/" in name or name.endswith(".py"):
        return name.removesuffix(".py").split("/")[0].replace("__init__", "")
    return (name.split(".") + [""])[1]


ALL: Final = [found for path in sorted(ROOT.rglob("*.py")) for found in imports_of(path)]


def wrong_arrow(found: Import) -> str | None:
    """Return what is wrong with *found*, if anything."""
    if found.module.split(".")[0] != "metacache":
        return None
    here, there = room_of(found.file), room_of(found.module)
    where = f"{found.file}:{found.line}: {here or 'the shop window'} imports {there or 'the shop window'}"
    if here in FREE or (here == there and here) or found.module in DOORS.get(found.file, ()):
        return None
    if here not in RANK or there not in RANK:
        return f"{where}, and one of them is in no line of ORDER"
    return None if RANK[here] < RANK[there] else f"{where}, which is not below it"


def wrong_guard(found: Import) -> str | None:
    """Return what is wrong with *found* if it is a guarded module, if anything."""
    allowed = GUARDED.get(found.module.split(".")[0])
    if allowed is None or room_of(found.file) in FREE or any(matches(found.file, pattern) for pattern in allowed):
        return None
    return f"{found.file}:{found.line}: {found.module} belongs into {', '.join(allowed)}"


def matches(file: str, pattern: str) -> bool:
    room, _, name = pattern.rpartition("/")
    return file.split("/")[-1] == name and (not room or file.startswith(room.split("/")[0] + "/"))


def test_imports_go_down_only() -> None:
    assert [wrong for found in ALL if (wrong := wrong_arrow(found))] == []


def test_io_stays_in_its_files() -> None:
    assert [wrong for found in ALL if (wrong := wrong_guard(found))] == []


def test_the_walk_sees_the_arrows() -> None:
    assert len(ALL) > 200
    modules = {(found.file, found.module) for found in ALL}
    assert ("client.py", "metacache.recipes") in modules, "a room named in a list"
    assert ("transports/dialing/blocking.py", "socket") in modules
    assert any(file == "protocol/connection.py" and module.startswith("metacache.") for file, module in modules)


WRONG: Final = (
    ("protocol/keys.py", "metacache.serializers.frame", "not below"),
    ("protocol/keys.py", "metacache.routing", "not below"),
    ("routing/rendezvous.py", "metacache.protocol.keys", "not below"),
    ("serializers/frame.py", "metacache.transports", "not below"),
    ("operations.py", "metacache.client", "not below"),
    ("client.py", "metacache.aio", "not below"),
    ("errors.py", "metacache.nodes", "not below"),
    ("pool/blocking.py", "metacache.cluster.blocking", "not below"),
    ("transports/blocking.py", "metacache.operations", "not below"),
    ("client.py", "metacache", "not below"),
    ("client.py", "metacache.testing.fake", "no line of ORDER"),
    ("attic.py", "metacache.errors", "no line of ORDER"),
)
RIGHT: Final = (
    ("client.py", "metacache.recipes"),
    ("pool/blocking.py", "metacache.transports.blocking"),
    ("pool/blocking.py", "metacache.pool.state"),
    ("testing/fake.py", "metacache.client"),
    ("__init__.py", "metacache.client"),
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
        ("operations.py", "threading", True),
        ("client.py", "asyncio", True),
        ("aio.py", "socket", True),
        ("pool/aio.py", "ssl", True),
        ("settings.py", "socket", True),
        ("transports/blocking.py", "asyncio", True),
        ("pool/aio.py", "threading", True),
        ("transports/streams/aio.py", "socket", False),
        ("transports/aio.py", "ssl", False),
        ("settings.py", "ssl", False),
        ("urls.py", "ssl", False),
        ("pool/blocking.py", "threading", False),
        ("cluster/aio.py", "asyncio", False),
        ("testing/memcached.py", "socket", False),
    ],
)
def test_io_in_a_wrong_file_is_found(file: str, module: str, *, is_wrong: bool) -> None:
    assert (wrong_guard(Import(file, 1, module)) is not None) == is_wrong
