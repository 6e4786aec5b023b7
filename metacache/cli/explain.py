"""The command `explain`: which node owns a key, and what a change of the nodes would move. Sends nothing to a node."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Final

from metacache.cli.changes import changed_nodes
from metacache.cli.given import json_bytes, key_of, raw_of
from metacache.cli.layout import Column, Line, Span, Style, table
from metacache.cli.messagepack import Shown
from metacache.cli.session import Session
from metacache.cli.statuses import Status
from metacache.cli.text import Charset
from metacache.errors import InvalidArgumentError
from metacache.nodes import Node
from metacache.protocol.keys import KeyEncoder
from metacache.routing import Moves, NodeScore, RendezvousRouter

__all__ = ["explain", "move_lines", "score_lines"]

# Columns of a bar.
BAR: Final = 24
MOVE_BAR: Final = 12

SCORE_COLUMNS: Final = (
    Column("rank", ">"),
    Column("node", is_flexible=True),
    Column("weight", ">", rank=2),
    Column("cost", ">", rank=1),
    Column("share", ">"),
    Column("", rank=3),
)
MOVE_COLUMNS: Final = (
    Column("node", is_flexible=True),
    Column("before", ">", rank=2),
    Column("after", ">", rank=2),
    Column("loses", ">"),
    Column("", rank=3),
    Column("gains", ">"),
    Column("", rank=3),
)


def explain(session: Session, args: argparse.Namespace) -> Status:
    """Show the ranking of the nodes for a key, and what ``--move`` would move."""
    if args.key is None and not args.move:
        raise InvalidArgumentError("give a key, or a change of the nodes: --move add=host:port")
    with session.cluster() as cluster:
        nodes = cluster.nodes
    router = RendezvousRouter(nodes)
    other = RendezvousRouter(changed_nodes(nodes, args.move)) if args.move else None
    found: dict[str, Shown] = {}
    lines: list[Line] = []
    charset, width = session.output.charset, session.output.width
    if args.key is not None:
        key = raw_of(key_of(args.key, is_base64=args.base64))
        KeyEncoder().encode(key)  # raises for a key that no server takes
        scores = router.explain(key)
        found |= {**json_bytes("key", key), "owner": scores[0].name, "ranking": _scores_json(scores)}
        lines += score_lines(charset.decoded(key), scores, charset, width)
        if other is not None:
            owner = other.pick(key).name
            found["owner_after"] = owner
            lines.append((("after the change its owner is ", ""), (charset.escaped(owner), "name")))
    if other is not None:
        moves = router.moved(other)
        found |= {"moved": moves.total, "lost": dict(moves.lost), "gained": dict(moves.gained)}
        lines += [*([()] if lines else []), *move_lines(router.nodes, other.nodes, moves, charset, width)]
    if session.as_json:
        session.output.json(found)
    else:
        session.output.lines(lines)
    return Status.DONE


def _scores_json(scores: Sequence[NodeScore]) -> list[Shown]:
    total = sum(score.weight for score in scores)
    return [
        {
            "node": score.name,
            "rank": score.rank,
            "weight": score.weight,
            "share": score.weight / total,
            "cost": score.cost if score.rank else None,
        }
        for score in scores
    ]


def score_lines(key: str, scores: Sequence[NodeScore], charset: Charset, width: int | None) -> list[Line]:
    """Return the lines that show the ranking *scores* of the nodes for the escaped *key*."""
    total = sum(score.weight for score in scores)
    owner: Line = ((key, "name"), (" is owned by ", ""), (charset.escaped(scores[0].name), "good"))
    rows = [_score_row(score, score.weight / total, charset) for score in scores]
    return [owner, (), *table(SCORE_COLUMNS, rows, width, charset)]


def _score_row(score: NodeScore, share: float, charset: Charset) -> Line:
    return (
        (str(score.rank) if score.rank else "drained", ""),
        (charset.escaped(score.name), "good" if score.rank == 1 else ""),
        (f"{score.weight:g}", ""),
        (f"{score.cost:.4f}" if score.rank else "-", ""),
        (f"{share:.1%}", ""),
        (charset.bar(share, BAR), "dim"),
    )


def move_lines(
    before: Sequence[Node], after: Sequence[Node], moves: Moves, charset: Charset, width: int | None
) -> list[Line]:
    """Return the lines that show as bars what each node loses and gains."""
    shares, shares_after = _shares(before), _shares(after)
    rows: list[Line] = []
    for name in sorted(shares.keys() | shares_after.keys()):
        lost, gained = moves.lost.get(name, 0.0), moves.gained.get(name, 0.0)
        rows.append(
            (
                (charset.escaped(name), "name"),
                (_percent(shares.get(name)), ""),
                (_percent(shares_after.get(name)), ""),
                *_move(-lost, charset),
                *_move(gained, charset),
            )
        )
    summary = f"{moves.total:.1%} of all keys move to another node (estimated with {moves.samples:,} keys)"
    return [((summary, "title"),), (), *table(MOVE_COLUMNS, rows, width, charset)]


def _move(share: float, charset: Charset) -> tuple[Span, Span]:
    """Return the number and the bar of a *share* of all keys; a negative one is lost."""
    style: Style = "bad" if share < 0 else "good"
    return (f"{share:+.1%}" if share else "-", style if share else ""), (charset.bar(abs(share), MOVE_BAR), style)


def _shares(nodes: Sequence[Node]) -> dict[str, float]:
    total = sum(node.weight for node in nodes)
    return {node.name: node.weight / total for node in nodes}


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{share:.1%}"
