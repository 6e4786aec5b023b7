"""`explain` shows what the router decides, and what a change of the nodes would move."""

from __future__ import annotations

import pytest

from metacache import InvalidArgumentError, Node, RendezvousRouter
from metacache.cli.changes import changed_nodes
from metacache.cli.explain import move_lines, score_lines
from metacache.cli.layout import plain
from metacache.cli.text import UNICODE, width_of
from tests.cli.rig import CommandLine

URL = "memcached://cache-1,cache-2,cache-3/?weights=1,1,2"
NODES = (Node("cache-1"), Node("cache-2"), Node("cache-3", weight=2))


@pytest.fixture
def explain(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """Commands for a cluster that does not exist: `explain` sends nothing."""
    return CommandLine(URL, capsys)


def test_the_owner_the_ranking_and_the_shares_are_those_of_the_router(explain: CommandLine) -> None:
    found = explain("explain", "user:ada", "--json").json
    ranking = RendezvousRouter(NODES).rank("user:ada", 3)
    assert [each["node"] for each in found["ranking"]] == [node.name for node in ranking]
    assert found["owner"] == ranking[0].name
    assert {each["node"]: each["share"] for each in found["ranking"]}["cache-3:11211"] == 0.5
    shown = explain("explain", "user:ada").out
    assert shown.startswith(f"user:ada is owned by {ranking[0].name}\n")
    assert "50.0%  ████████████" in shown


def test_a_change_of_nodes_is_drawn_as_bars(explain: CommandLine) -> None:
    changes = ("--move", "add=cache-4", "--move", "weight=cache-1:11211:0.5")
    found = explain("explain", *changes, "--json").json
    after = RendezvousRouter([Node("cache-1", weight=0.5), *NODES[1:], Node("cache-4")])
    moves = RendezvousRouter(NODES).moved(after)
    assert (found["moved"], found["lost"], found["gained"]) == (moves.total, moves.lost, moves.gained)
    lines = explain("explain", *changes).out.splitlines()
    assert lines[0].startswith(f"{moves.total:.1%} of all keys move")
    added = next(line for line in lines if line.startswith("cache-4:11211"))
    assert f"+{moves.gained['cache-4:11211']:.1%}  ██" in added
    assert max(map(width_of, lines)) <= 80


def test_a_removed_node_loses_its_share(explain: CommandLine) -> None:
    key = next(key for key in map(str, range(100)) if RendezvousRouter(NODES).pick(key).name == "cache-3:11211")
    found = explain("explain", key, "--move", "remove=cache-3:11211", "--json").json
    assert found["owner"] == "cache-3:11211"
    assert set(found["lost"]) == {"cache-3:11211"}
    assert abs(found["lost"]["cache-3:11211"] - 0.5) < 0.01
    assert found["owner_after"] == RendezvousRouter(NODES[:2]).pick(key).name


def test_the_tables_fit_into_narrow_terminals() -> None:
    router = RendezvousRouter([*NODES, Node("cache-4", weight=0)])
    for width in (30, 40, 60, 80):
        scores = score_lines("k", router.explain("k"), UNICODE, width)
        moves = move_lines(NODES, NODES[:2], router.moved(RendezvousRouter(NODES[:2])), UNICODE, width)
        tables = [*scores[2:], *moves[2:]]
        assert max(width_of(plain(line).rstrip()) for line in tables) <= width


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("cache-4", "add=host:port, remove=name or weight=name:2"),
        ("add=", "add=host:port"),
        ("add=cache-1", "already a node"),
        ("remove=none", "no node is called 'none'"),
        ("weight=cache-1:11211:x", "weight takes name:number"),
        ("weight=none:2", "no node is called"),
        ("weight=cache-1:11211:-1", "not negative"),
        ("add=a b", "is not host:port"),
    ],
)
def test_a_wrong_change_is_named(explain: CommandLine, change: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        changed_nodes(NODES, [change])
    assert explain("explain", "--move", change).status == 2


def test_explain_needs_a_key_or_a_change(explain: CommandLine) -> None:
    assert explain("explain").status == 2


def test_a_cluster_cannot_lose_all_nodes(explain: CommandLine) -> None:
    removals = [word for number in (1, 2, 3) for word in ("--move", f"remove=cache-{number}:11211")]
    shown = explain("explain", *removals)
    assert (shown.status, "no nodes" in shown.err) == (2, True)
