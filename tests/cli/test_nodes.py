"""The commands for all nodes: ping, stats, top, flush, against real servers."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest

from metacache import Cluster
from metacache.cli.layout import plain
from metacache.cli.node_stats import Counters, NodeHistory, Rates, bytes_text, top_lines
from metacache.cli.text import UNICODE, width_of
from metacache.testing import Memcached
from tests.cli.rig import CommandLine


def rows(out: str) -> dict[str, list[str]]:
    """Return the words of each line by its first word."""
    return {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}


def test_ping_shows_which_nodes_answer(
    two: tuple[Memcached, Memcached, str], capsys: pytest.CaptureFixture[str]
) -> None:
    one, other, url = two
    run = CommandLine(url, capsys)
    shown = run("ping")
    assert shown.status == 0
    assert [rows(shown.out)[str(server.node)][1] for server in (one, other)] == ["up", "up"]
    other.kill()
    shown = run("ping")
    assert shown.status == 3
    assert [rows(shown.out)[str(server.node)][1] for server in (one, other)] == ["up", "down"]
    assert f"ping on {other.node}: the connection was refused" in shown.err
    states = {each["node"]: each["state"] for each in run("ping", "--json").json}
    assert states == {str(one.node): "up", str(other.node): "down"}


def test_stats_shows_a_line_for_each_node(run: CommandLine, memcached: Memcached, cluster: Cluster) -> None:
    client = cluster.client()
    client.set("k", b"v")
    client.get("k")
    client.get("none")
    shown = run("stats")
    assert shown.status == 0
    assert rows(shown.out)[str(memcached.node)][1:3] == ["50.0%", "1"]
    assert run("stats", "--json").json[0]["stats"]["cmd_get"] == "2"
    assert rows(run("stats", "--all").out)["curr_items"][1] == "1"
    assert "maxbytes" in rows(run("stats", "settings").out)
    assert run("stats", "no;such").status == 2


def test_stats_of_a_node_that_is_down_is_status_3(
    two: tuple[Memcached, Memcached, str], capsys: pytest.CaptureFixture[str]
) -> None:
    one, other, url = two
    one.kill()
    shown = CommandLine(url, capsys)("stats")
    assert shown.status == 3
    assert str(other.node) in rows(shown.out)
    assert str(one.node) in shown.err


# --- top -------------------------------------------------------------------------------------------------------------


def counters(**changes: Any) -> Counters:  # Any: each field has a type of its own
    found = {"get_hits": "80", "get_misses": "20", "cmd_get": "100", "cmd_set": "10", "uptime": "50", "version": "1.6"}
    return attrs.evolve(Counters.of(found, 10.0), **changes)


def test_rates_are_per_second_between_two_samples() -> None:
    now = counters(at=12.0, hits=110, misses=30, gets=140, sets=30, evictions=4, uptime=52)
    rates = Rates.between(counters(), now)
    assert rates == Rates(gets=20.0, sets=10.0, evictions=2.0, hit_rate=0.75)


def test_a_restarted_server_has_no_rates() -> None:
    assert Rates.between(counters(), counters(at=12.0, uptime=1)) is None
    assert Rates.between(counters(), counters(at=12.0, gets=0, uptime=52)) is None, "after stats reset"
    assert Rates.between(counters(), counters()) is None


def test_a_sample_without_reads_has_no_hit_rate() -> None:
    rates = Rates.between(counters(), counters(at=12.0, uptime=52))
    assert rates is not None
    assert rates.hit_rate is None


def test_a_line_of_top_has_state_rates_and_sparkline() -> None:
    history = NodeHistory("cache-1:11211")
    for step in range(4):
        history.answered(counters(at=10.0 + step, hits=80 + 10 * step, misses=20 + step, gets=100 + 11 * step))
    down = NodeHistory("cache-2:11211")
    down.failed("stats on cache-2:11211: refused\x1b")
    lines = [plain(line) for line in top_lines([history, down], "title", None, UNICODE)]
    assert lines[3].split() == ["cache-1:11211", "up", "90.9%", "▇▇▇", "11", "0", "0B/0B", "0", "0"]
    assert lines[4].split()[:3] == ["cache-2:11211", "down", "-"]
    assert lines[5].strip() == r"stats on cache-2:11211: refused\x1b"
    assert [plain(line) for line in top_lines([history, down], "title", 80, UNICODE)][2:4] == lines[2:4]
    for width in (40, 60, 80, 200):
        narrow = top_lines([history, down], "title", width, UNICODE)[2:5]
        assert max(width_of(plain(line).rstrip()) for line in narrow) <= width


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0B"), (1023, "1023B"), (1536, "1.5K"), (64 << 20, "64M"), (200 << 30, "200G"), (1 << 45, "32.0T")],
)
def test_bytes_have_units(number: int, text: str) -> None:
    assert bytes_text(number) == text


def test_top_in_a_pipe_prints_a_table_for_each_sample(run: CommandLine, memcached: Memcached, cluster: Cluster) -> None:
    cluster.client().set("k", b"v")
    shown = run("top", "--count", "2", "--interval", "0.01")
    assert shown.status == 0
    assert shown.out.count(str(memcached.node)) == 2
    assert "\x1b" not in shown.out
    samples = [json.loads(line) for line in run("top", "--count", "2", "--interval", "0.01", "--json").out.splitlines()]
    assert [sample[0]["state"] for sample in samples] == ["up", "up"]
    assert "per_second" in samples[1][0]
    assert samples[0][0]["items"] == 1


@pytest.mark.parametrize(
    "arguments", [("--interval", "0"), ("--interval", "nan"), ("--interval", "-1"), ("--count", "0")]
)
def test_top_refuses_impossible_numbers(run: CommandLine, arguments: tuple[str, str]) -> None:
    assert run("top", *arguments).status == 2


# --- flush -----------------------------------------------------------------------------------------------------------


def test_flush_refuses_without_a_terminal(run: CommandLine, cluster: Cluster) -> None:
    cluster.client().set("k", b"v")
    shown = run("flush")
    assert (shown.status, "--yes" in shown.err) == (2, True)
    assert cluster.client().get("k") == b"v"


def test_flush_with_yes_names_the_nodes(run: CommandLine, memcached: Memcached, cluster: Cluster) -> None:
    cluster.client().set("k", b"v")
    shown = run("flush", "--yes")
    assert (shown.status, shown.out) == (0, f"{memcached.node}: flushed\n")
    assert cluster.client().get("k") is None
    assert run("flush", "--yes", "--json").json == [{"node": str(memcached.node), "flushed": True}]


def test_flush_reports_the_node_that_failed(
    two: tuple[Memcached, Memcached, str], capsys: pytest.CaptureFixture[str]
) -> None:
    one, other, url = two
    one.kill()
    shown = CommandLine(url, capsys)("flush", "--yes")
    assert shown.status == 3
    assert shown.out == f"{other.node}: flushed\n"
    assert str(one.node) in shown.err
