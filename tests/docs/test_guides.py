"""Claims of the how-to guides that no example shows: tables, programs, and the file of tests in `testing.md`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import attrs
import msgspec
import pytest

from metacache import (
    BatchError,
    Client,
    Cluster,
    Connection,
    DeleteResult,
    MetacacheError,
    Node,
    SerializationError,
    StoreResult,
    load_serializer,
)
from metacache.testing import FakeServer, FakeTransport, Memcached
from tests.docs.pages import PAGES, ROOT, Page
from tests.docs.running import script

GUIDES: Final = {Path(page.name).stem: page for page in PAGES if page.name.startswith("docs/guides/")}
PROGRAMS: Final = ROOT / "tests" / "docs" / "programs"


def names_in(cell: str) -> list[str]:
    """Return the names that a cell of a table has in code."""
    return re.findall(r"`(\w+)", cell)


def run(command: list[str], cwd: Path) -> str:
    """Run *command* with the tests' Python; return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=120, cwd=cwd, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# --- programs --------------------------------------------------------------------------------------------------------


def test_a_client_made_before_a_fork_serves_parent_and_child(shared_memcached: Memcached, tmp_path: Path) -> None:
    run([str(PROGRAMS / "forks.py"), shared_memcached.url], tmp_path)


@pytest.mark.usefixtures("shared_memcached")
def test_an_exception_of_a_signal_handler_ends_a_call(tmp_path: Path) -> None:
    run([str(PROGRAMS / "alarm.py")], tmp_path)


@pytest.mark.usefixtures("shared_memcached")
def test_the_examples_of_the_testing_guide_are_a_file_of_tests_that_passes(tmp_path: Path) -> None:
    text = script(GUIDES["testing"])
    (tmp_path / "test_users.py").write_text(text)
    command = ["-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(tmp_path), "-p", "no:cacheprovider"]
    number = len(re.findall(r"^def test_", text, re.MULTILINE))
    assert number > 5
    passed = re.search(r"(\d+) passed", run([*command, "test_users.py"], tmp_path))
    assert passed is not None
    assert int(passed[1]) > number, "the tests of the contract are among them"


# --- change a type ---------------------------------------------------------------------------------------------------


class Old(msgspec.Struct):
    number: int


class New(msgspec.Struct):
    number: int
    name: str = ""


def on_another_shape(do: Callable[[Client[New]], object]) -> object:
    """Return what *do* returns for a key that holds a value of another shape."""
    server = FakeServer()
    Client(FakeTransport(server), load_serializer("msgspec", Old)).set("key", Old(1), ttl=100)
    return do(Client(FakeTransport(server), load_serializer("msgspec", New)))


def test_methods_treat_a_value_of_another_shape_as_the_table_says() -> None:
    said = {
        name: text for names, (text,) in GUIDES["change-a-type"].table("method").items() for name in names_in(names)
    }
    value = New(2, "two")
    plain: Mapping[str, tuple[str, Callable[[Client[New]], object], object]] = {
        "get": ("a miss", lambda client: client.get("key"), None),
        "get_item": ("a miss", lambda client: client.get_item("key"), None),
        "get_many": ("a miss", lambda client: client.get_many(["key"]), {}),
        "exists": ("a miss", lambda client: client.exists("key"), False),
        "set": ("as on any other item", lambda client: client.set("key", value), StoreResult.STORED),
        "set_many": (
            "as on any other item",
            lambda client: client.set_many({"key": value}),
            {"key": StoreResult.STORED},
        ),
        "delete": ("as on any other item", lambda client: client.delete("key"), DeleteResult.DELETED),
        "add": ("NOT_STORED", lambda client: client.add("key", value), StoreResult.NOT_STORED),
        "replace": ("stores", lambda client: client.replace("key", value), StoreResult.STORED),
        "touch": ("True: the time to live is renewed", lambda client: client.touch("key", 50), True),
        "get_and_touch": (
            "None, and the time to live is renewed",
            lambda client: client.get_and_touch("key", 50),
            None,
        ),
        "update": (
            "calls your function with None, and replaces the value",
            lambda client: client.update("key", lambda found: value if found is None else New(3)),
            value,
        ),
    }
    assert {name: text for name, (text, _, _) in plain.items()} | {
        "append": "NOT_STORED",
        "prepend": "NOT_STORED",
    } == said
    for name, (_, do, expected) in plain.items():
        assert on_another_shape(do) == expected, name


def test_append_does_not_store_onto_a_value_of_another_serializer() -> None:
    server = FakeServer()
    Client(FakeTransport(server), load_serializer("msgspec", Old)).set("key", Old(1))
    texts = Client(FakeTransport(server), load_serializer("str", str))
    assert texts.append("key", "more") is texts.prepend("key", "more") is StoreResult.NOT_STORED


# --- choose a serializer ---------------------------------------------------------------------------------------------


@attrs.frozen
class Holder:
    value: float | int


def keeps(name: str, value: float) -> bool:
    """Return whether the serializer *name* stores *value*; a write that succeeds was read back."""
    try:
        if name == "attrs":
            load_serializer(name, Holder).dumps(Holder(value))
        else:
            load_serializer(name, list[float | int]).dumps([value])
    except SerializationError:
        return False
    return True


def test_the_values_that_a_format_can_hold_are_those_of_the_table() -> None:
    page = GUIDES["choose-a-serializer"]
    header = next(line for line in page.text.splitlines() if line.startswith("| value |"))
    serializers = names_in(header.replace("-", "_"))
    assert len(serializers) == 6
    table = page.table("value")
    for row, value in (("NaN and infinities", float("inf")), ("ints beyond 64 bits", 2**70)):
        for name, said in zip(serializers, table[row], strict=True):
            assert keeps(name.replace("_", "-"), value) is {"yes": True, "no": False}[said], (row, name)


# --- outages ---------------------------------------------------------------------------------------------------------

OUTAGES: Final[Page] = GUIDES["outages"]


def unreachable(on_error: str) -> Client[int]:
    """Return a client with that `on_error`, of an address where nothing listens."""
    client = Client(Connection(Node("127.0.0.1:1")), load_serializer("int", int))
    if on_error == "miss":
        return client.with_options(on_error="miss")
    return client.with_options(on_error="ignore") if on_error == "ignore" else client


READS: Final[Mapping[str, tuple[Callable[[Client[int]], object], object]]] = {
    "get": (lambda client: client.get("key"), None),
    "get_item": (lambda client: client.get_item("key"), None),
    "get_many": (lambda client: client.get_many(["key"]), {}),
    "get_items": (lambda client: client.get_items(["key"]), {}),
    "exists": (lambda client: client.exists("key"), False),
    "inspect": (lambda client: client.inspect("key"), None),
}
WRITES: Final[Mapping[str, tuple[Callable[[Client[int]], object], object]]] = {
    "set": (lambda client: client.set("key", 1), StoreResult.FAILED),
    "add": (lambda client: client.add("key", 1), StoreResult.FAILED),
    "replace": (lambda client: client.replace("key", 1), StoreResult.FAILED),
    "compare_and_set": (lambda client: client.compare_and_set("key", 1, 1), StoreResult.FAILED),
    "delete": (lambda client: client.delete("key"), DeleteResult.FAILED),
    "set_many": (lambda client: client.set_many({"key": 1}), {"key": StoreResult.FAILED}),
    "delete_many": (lambda client: client.delete_many(["key"]), {"key": DeleteResult.FAILED}),
    "touch": (lambda client: client.touch("key", 1), False),
    "invalidate": (lambda client: client.invalidate("key", stale_for=1), False),
    "get_and_touch": (lambda client: client.get_and_touch("key", 1), None),
    "increment": (lambda client: client.increment("key"), None),
    "increment with initial": (lambda client: client.increment("key", initial=7), 7),
    "decrement": (lambda client: client.decrement("key"), None),
    "decrement with initial": (lambda client: client.decrement("key", initial=7), 7),
}


def test_the_table_of_on_error_says_which_calls_raise() -> None:
    line = next(line for line in OUTAGES.text.splitlines() if line.startswith("| `on_error` | reads"))
    assert names_in(line) == ["on_error", *READS]
    found = {re.search(r"\w+", name): cells for name, cells in OUTAGES.table("`on_error`").items()}
    rows = {name[0]: cells for name, cells in found.items() if name}
    assert {name: tuple(cells) for name, cells in rows.items()} == {
        "raise": ("raise", "raise"),
        "miss": ("miss", "raise"),
        "ignore": ("miss", "return a result that says that they failed"),
    }
    for on_error, (reads, writes) in rows.items():
        for name, (call, missed) in READS.items():
            assert outcome(call, on_error, missed) == reads, (on_error, name)
        for name, (call, failed) in WRITES.items():
            said = "raise" if outcome(call, on_error, failed) == "raise" else rows["ignore"][1]
            assert said == writes, (on_error, name)


def outcome(call: Callable[[Client[int]], object], on_error: str, missed: object) -> str:
    try:
        found = call(unreachable(on_error))
    except (MetacacheError, BatchError):
        return "raise"
    assert found == missed
    return "miss"


# --- speed -----------------------------------------------------------------------------------------------------------


def test_the_sections_of_the_benchmarks_that_are_named_exist() -> None:
    named = re.findall(r"-m benchmarks (\w+)", GUIDES["speed"].text)
    sections = {"goals", "instructions", "wall", "large", "start", "cluster", "asyncio", "django"}
    assert set(named) == sections
    program = (ROOT / "benchmarks" / "__main__.py").read_text()
    assert all(f'"{name}":' in program for name in named)


def test_a_view_needs_no_connection_of_its_own(shared_memcached: Memcached) -> None:
    with Cluster([shared_memcached.node]) as cluster:
        texts = cluster.client(str, prefix="view:")
        texts.set("key", "value")
        assert texts.with_options(timeout=5.0).get("key") == "value"
        assert [pool.created for pool in cluster.statistics.values()] == [1]
