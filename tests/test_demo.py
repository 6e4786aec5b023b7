"""The demo as its user runs it: what it prints, and what it exits with."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TypeVar, final

import pytest

from metacache import Connection, __version__
from metacache.testing import Memcached, demo

T = TypeVar("T")

ROWS = {
    "session:7": ("Session (Struct)", "msgspec"),
    "order:1042": ("Order (dataclass)", "orjson"),
    "profile:ada": ("Profile (attrs)", "attrs"),
    "visits": ("int (counter)", "int"),
    "page:1 ... page:100": ("str (batch of 100)", "str"),
}


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "metacache", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def cells(printed: str) -> dict[str, list[str]]:
    """Return the cells of each printed row, by the first."""
    lines = [re.split(r"\s{2,}", line.strip()) for line in printed.splitlines()]
    return {line[0]: line[1:] for line in lines}


@pytest.mark.usefixtures("shared_memcached")  # skips where there is none
def test_the_demo_prints_every_object_that_came_back_and_exits_with_zero() -> None:
    done = run("demo")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    printed = cells(done.stdout)
    for key, (type_name, serializer) in ROWS.items():
        assert printed[key][:2] == [type_name, serializer]
        size, flags, took, verdict = printed[key][2:]
        assert int(size.replace(",", "")) > 0
        assert re.fullmatch("0xb[0-9a-f]{7}", flags)
        assert re.fullmatch(r"[0-9]+\.[0-9]{3} ms", took)
        assert verdict == "ok"
    assert printed["visits"][2] == "2"


@pytest.mark.usefixtures("shared_memcached")
def test_the_columns_of_the_demo_stand_under_one_another() -> None:
    lines = run("demo").stdout.splitlines()
    start = next(number for number, line in enumerate(lines) if line.split()[:1] == ["key"])
    ends = [match.end() for match in re.finditer(r"-+", lines[start + 1])]
    for line in lines[start + 2 : start + 2 + len(ROWS)]:
        assert line[ends[-1] :] == "  ok"
        assert all(line[end : end + 2] == "  " for end in ends)


@final
class Forgetful:
    """Stores a text and reads another."""

    wire_id = 200
    fingerprint = 0

    def dumps(self, value: str, /) -> bytes:
        return value.encode()

    def loads(self, data: bytes, /) -> str:
        return data.decode()[:-1]


@final
class Careless:
    """Stores a text and reads a list."""

    wire_id = 200
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


def test_a_value_that_differs_is_told_and_exits_with_one(
    memcached: Memcached, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(memcached, demo.Sample("text", "str", "forgetful", Forgetful(), "as it was")) == 1
    printed = capsys.readouterr().out
    assert "DIFFERS: another value came back" in printed
    assert "1 did not come back as it was stored" in printed


def test_a_value_of_another_type_is_told_and_exits_with_one(
    memcached: Memcached, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(memcached, demo.Sample[object]("text", "str", "careless", Careless(), "as it was")) == 1
    assert "DIFFERS: str came back as list" in capsys.readouterr().out


def test_a_missing_plugin_is_named_with_the_line_that_installs_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main({"int": "all", "thrift": "thrift", "thrift-json": "thrift"}) == 2
    assert capsys.readouterr().err == "demo: not installed: thrift, thrift-json\n  pip install 'metacache[thrift]'\n"


def test_a_missing_memcached_is_told_and_exits_with_two() -> None:
    done = run("demo", PATH="", METACACHE_MEMCACHED="")
    assert done.returncode == 2
    assert "no memcached on PATH; install it" in done.stderr


def test_the_command_line_tells_its_commands_and_its_version() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert {"demo", "version"} <= set(done.stdout.split())
    assert run("version").stdout == f"metacache {__version__}\n"
    assert run().returncode == 2
