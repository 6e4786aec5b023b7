"""The demo as a user runs it: its output and its exit status."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeVar, final

import pytest

from metacache import (
    AsyncClient,
    AsyncConnection,
    Client,
    Cluster,
    Connection,
    Node,
    RendezvousRouter,
    __version__,
    accelerated,
)
from metacache.serializers import StrSerializer
from metacache.testing import Memcached, demo
from metacache.testing.walkthrough import Step, walk

T = TypeVar("T")

OBJECTS: Final = {
    "session:7": ("Session (Struct)", "msgspec"),
    "order:1042": ("Order (dataclass)", "orjson"),
    "profile:ada": ("Profile (attrs)", "attrs"),
}
TEXTS: Final = "page:1..100"
ONE_SERVER: Final = OBJECTS | {"visits": ("int (counter)", "int"), TEXTS: ("str, 100 in batch", "str")}
ASYNCIO: Final = OBJECTS | {TEXTS: ("str, 100 in tasks", "str")}

DURATION: Final = r"[0-9]+\.[0-9]{3} ms"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "metacache", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def printed(shared_memcached: Memcached) -> str:
    """The output of the demo; skips the test if there is no memcached."""
    assert shared_memcached.pid
    done = run("demo")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def table(printed: str, title: str) -> list[str]:
    """Return the lines of the table with that title: column names, rules, rows."""
    return re.split(rf"^{title}.*\n\n", printed, flags=re.MULTILINE)[1].partition("\n\n")[0].splitlines()


def cells(printed: str, title: str) -> dict[str, list[str]]:
    """Return the cells of each row of that table, by the first cell."""
    lines = [re.split(r"\s{2,}", line.strip()) for line in table(printed, title)[2:]]
    return {line[0]: line[1:] for line in lines}


@pytest.mark.parametrize(("title", "rows"), [("One memcached", ONE_SERVER), ("Read back under asyncio", ASYNCIO)])
def test_the_demo_prints_every_object_that_came_back(
    printed: str, title: str, rows: Mapping[str, tuple[str, str]]
) -> None:
    found = cells(printed, title)
    assert found.keys() == rows.keys()
    for key, (type_name, serializer) in rows.items():
        assert found[key][:2] == [type_name, serializer]
        size, flags, took, verdict = found[key][2:]
        assert int(size.replace(",", "")) > 0
        assert re.fullmatch("0xb[0-9a-f]{7}", flags)
        assert re.fullmatch(DURATION, took)
        assert verdict == "ok"


def test_the_demo_stores_and_reads_back_the_same_bytes_under_asyncio(printed: str) -> None:
    stored, read = cells(printed, "One memcached"), cells(printed, "Read back under asyncio")
    for key in ASYNCIO:
        assert stored[key][2:4] == read[key][2:4]
    assert stored["visits"][2] == "2"


def test_the_demo_prints_each_key_of_the_cluster_with_the_node_that_owns_it(printed: str) -> None:
    router = RendezvousRouter(
        [Node("a", name="cache-a"), Node("b", name="cache-b"), Node("c", name="cache-c", weight=2.0)]
    )
    found = cells(printed, "A cluster of three: cache-a .* cache-b .* cache-c")
    assert found.keys() == OBJECTS.keys() | {TEXTS}
    for key in OBJECTS:
        node, size, took, verdict = found[key]
        assert node == router.pick(key).name
        assert int(size) > 0
        assert re.fullmatch(DURATION, took)
        assert verdict == "ok"
    owners = Counter(router.pick(f"page:{number}").name for number in range(1, 101))
    assert found[TEXTS][0] == ", ".join(f"{name} {count}" for name, count in sorted(owners.items()))
    assert found[TEXTS][-1] == "ok"


def test_the_demo_shows_that_a_stampede_runs_the_query_once(printed: str) -> None:
    rows = [re.split(r"\s{2,}", line.strip()) for line in table(printed, "A stampede")[2:]]
    assert [row[:3] for row in rows] == [
        ["50 threads", "get, then set", rows[0][2]],
        ["50 threads", "get_or_compute", "1 x"],
        ["200 tasks", "get, then set", "200 x"],
        ["200 tasks", "get_or_compute", "1 x"],
    ]
    assert int(rows[0][2].split()[0]) > 1
    assert {row[-1] for row in rows} == {"ok"}


@pytest.mark.parametrize("title", ["One memcached", "A cluster of three", "Read back under asyncio", "A stampede"])
def test_the_columns_of_the_demo_are_aligned(printed: str, title: str) -> None:
    _, rules, *rows = table(printed, title)
    ends = [match.end() for match in re.finditer(r"-+", rules)]
    assert rows
    for line in rows:
        assert line[ends[-1] :] == "  ok"
        assert all(line[end : end + 2] == "  " for end in ends)


def listing(printed: str) -> str:
    """Return the part with lines of code."""
    return printed.partition("\n\nOne memcached")[0]


RETURNED: Final = {
    'users.get("ada")': "User(name='Ada', age=36, scopes=['read', 'write'])",
    'users.get("bob", "no such user")': "'no such user'",
    'orders.get_many(["1042", "1043"])': "{'1042': Order(number=1042, total=99.5, lines=('tea', 'kettle'))}",
    'visits.increment("visits")': "42",
    'await people.get("lovelace")': ("Profile(name='Ada', born=datetime.date(1815, 12, 10), languages=('en', 'fr'))"),
}


@pytest.mark.parametrize("line", RETURNED)
def test_the_demo_shows_lines_of_code_and_the_objects_they_return(printed: str, line: str) -> None:
    after = listing(printed).split(f"  >>> {line}\n")[1].partition("\n  >>> ")[0]
    assert " ".join(after.split()) == RETURNED[line]


def test_the_lines_that_the_demo_shows_are_the_source_of_its_functions(printed: str) -> None:
    shown = [line[6:].rstrip() for line in listing(printed).splitlines() if line[2:5] in (">>>", "...")]
    source: list[str] = []
    for function in (demo.typed_objects, demo.the_same_with_asyncio):
        body = inspect.getsource(function).partition('"""\n')[2]
        source += [line for line in textwrap.dedent(body).splitlines() if line]
    assert shown == source


def test_the_classes_that_the_demo_shows_are_those_that_it_stores(printed: str) -> None:
    for class_ in (demo.Order, demo.Profile):
        assert textwrap.indent(inspect.getsource(class_), "  ") in printed


def test_the_demo_fits_80_columns_and_is_plain_text(printed: str) -> None:
    assert [line for line in printed.splitlines() if len(line) > 80] == []
    assert printed.isascii()
    assert printed.replace("\n", "").isprintable()


def returns_a_list() -> None:
    first = [1]  # a comment is shown, too
    first.append(2)
    first.copy()
    raise ValueError("the last line")


def test_a_walk_runs_a_line_when_it_is_asked_for_and_shows_its_value() -> None:
    scope: dict[str, object] = {}
    steps = walk(returns_a_list, scope)
    assert "first" not in scope
    assert list(next(steps).lines()) == [">>> first = [1]  # a comment is shown, too"]
    assert scope["first"] == [1]
    assert list(next(steps).lines()) == [">>> first.append(2)"]
    assert list(next(steps).lines()) == [">>> first.copy()", "[1, 2]"]
    with pytest.raises(ValueError, match="the last line") as raised:
        next(steps)
    assert raised.traceback[-1].path == Path(__file__)
    assert "the last line" in str(raised.traceback[-1].statement)


def test_a_long_value_takes_a_few_lines() -> None:
    lines = list(Step("value", "word " * 1000).lines())
    assert len(lines) == 4
    assert lines[-1].endswith(" ...")
    assert max(map(len, lines)) <= 78


@final
class Forgetful:
    """A serializer that stores a text and reads another text."""

    wire_id = 96
    fingerprint = 0

    def dumps(self, value: str, /) -> bytes:
        return value.encode()

    def loads(self, data: bytes, /) -> str:
        return data.decode()[:-1]


@final
class Careless:
    """A serializer that stores a text and reads a list."""

    wire_id = 96
    fingerprint = 0

    def dumps(self, value: object, /) -> bytes:
        return str(value).encode()

    def loads(self, data: bytes, /) -> object:
        return list(data)


def exit_status(memcached: Memcached, sample: demo.Sample[T]) -> int:
    def section() -> demo.Section:
        with Connection(memcached.node) as connection:
            return demo.Section("One server", demo.COLUMNS, [demo.round_trip(connection, sample)])

    return demo.run([section])


def test_a_different_value_is_reported_and_the_exit_status_is_1(
    memcached: Memcached, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(memcached, demo.Sample("text", "str", "forgetful", Forgetful(), "as it was")) == 1
    printed = capsys.readouterr().out
    assert "DIFFERS: another value came back" in printed
    assert "1 did not come back as it was stored" in printed


def test_a_value_of_another_type_is_reported_and_the_exit_status_is_1(
    memcached: Memcached, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(memcached, demo.Sample[object]("text", "str", "careless", Careless(), "as it was")) == 1
    assert "DIFFERS: str came back as list" in capsys.readouterr().out


def test_a_key_on_another_node_than_the_routers_is_reported(memcached: Memcached) -> None:
    # Both nodes are the same server, so the key is also on the node that does not own it.
    nodes = [Node(memcached.node.address, name="cache-1"), Node(memcached.node.address, name="cache-2")]
    with Cluster(nodes) as cluster:
        row = demo.placed(cluster, demo.Sample("text", "str", "str", StrSerializer(), "as it was"))
        owner = cluster.router.pick(b"text").name
    assert row.cells[1] == "cache-1, cache-2"
    assert row.problem == f"DIFFERS: the router says {{'{owner}': 1}}"


def test_a_batch_on_other_nodes_than_the_routers_is_reported(memcached: Memcached) -> None:
    nodes = [Node(memcached.node.address, name="cache-1"), Node(memcached.node.address, name="cache-2")]
    with Cluster(nodes) as cluster:
        row = demo.spread(cluster)
    assert row.cells[1] == "cache-1 100, cache-2 100"
    assert row.problem.startswith("DIFFERS: the router says {'cache-1': ")


async def test_a_missing_or_changed_value_under_asyncio_is_reported(memcached: Memcached) -> None:
    sample = demo.Sample("text", "str", "forgetful", Forgetful(), "as it was")
    async with AsyncConnection(memcached.node) as connection:
        client = AsyncClient(connection, sample.serializer)
        assert (await demo.read_back(client, sample)).problem == "DIFFERS: str came back as NoneType"
        await client.set("text", "as it was")
        assert (await demo.read_back(client, sample)).problem == "DIFFERS: another value came back"


def test_a_hundred_tasks_that_find_nothing_are_reported(memcached: Memcached) -> None:
    with Connection(memcached.node) as connection:
        for sample in demo.samples():
            Client(connection, sample.serializer).set(sample.key, sample.value)
    *objects, texts = asyncio.run(demo.read_all(memcached.url))
    assert [row.problem for row in objects] == ["", "", ""]
    assert texts.problem == "DIFFERS: another value came back"


def test_a_missing_plugin_is_named_with_the_line_that_installs_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main({"int": "all", "thrift": "thrift", "thrift-json": "thrift"}) == 2
    assert capsys.readouterr().err == "demo: not installed: thrift, thrift-json\n  pip install 'metacache[thrift]'\n"


def test_without_memcached_the_demo_uses_the_embedded_server_and_says_so() -> None:
    done = run("demo", PATH="", METACACHE_MEMCACHED="")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert done.stdout.startswith("memcached is not installed. The embedded server of metacache takes its place")
    assert "One embedded server, on 127.0.0.1:" in done.stdout
    assert done.stdout.endswith("Everything came back as it was stored.\n")


def test_the_command_line_lists_its_commands_and_its_version() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert {"demo", "serve", "version"} <= set(done.stdout.split())
    kind = "with compiled primitives" if accelerated else "in pure Python"
    assert run("version").stdout == f"metacache {__version__}\n{kind}\n"
    assert run().returncode == 2
