"""The cache report: its numbers, and the whole program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from examples.cache_report import CacheReport
from metacache import Client, Connection, NodeState, StateChanged, load_serializer
from metacache.testing import Memcached

PROGRAM: Final = Path(__file__).parents[2] / "examples" / "cache_report.py"


def test_the_report_has_the_reads_of_each_prefix_and_the_slowest_request(shared_memcached: Memcached) -> None:
    report = CacheReport()
    with Connection(shared_memcached.node, observer=report) as connection:
        texts = Client(connection, load_serializer("json", str), prefix="report:")
        texts.set("a", "1")
        texts.get_many(["a", "b", "c"])
        Client(connection, load_serializer("json", int), prefix="report:").get("a")
    assert report.reads == {("report:", "hit"): 1, ("report:", "miss"): 2, ("report:", "undecodable"): 1}
    assert report.lines()[0] == "report:: 1 hits, 2 misses, 33 % hits"
    node = shared_memcached.node.name
    assert 0 < report.slowest[node] < 10
    assert report.lines()[1].startswith(f"{node}: slowest request ")
    assert len(report.lines()) == 2


def test_a_change_of_a_node_is_logged(shared_memcached: Memcached, caplog: pytest.LogCaptureFixture) -> None:
    report = CacheReport()
    report.happened(StateChanged(shared_memcached.node, NodeState.UP, NodeState.DOWN))
    assert caplog.messages == [f"{shared_memcached.node.name}: down, was up"]


def test_the_program_runs_as_its_first_lines_say(shared_memcached: Memcached) -> None:
    environment = {**os.environ, "CACHE_URL": shared_memcached.url}
    command = [sys.executable, "-W", "error", str(PROGRAM)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[:2] == ["name:: 10 hits, 10 misses, 50 % hits", "visits:: 20 hits, 1 misses, 95 % hits"]
    assert lines[2].startswith(f"{shared_memcached.node.name}: slowest request ")
    assert len(lines) == 3
