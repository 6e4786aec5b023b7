"""The command `top`: a live table of the nodes. Ctrl-C ends it, with status 0."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

from metacache.cli.layout import Line
from metacache.cli.node_stats import Counters, NodeHistory, top_lines
from metacache.cli.session import Session
from metacache.cli.statuses import Status
from metacache.cluster.blocking import Cluster
from metacache.errors import MetacacheError

__all__ = ["top"]


def top(session: Session, args: argparse.Namespace) -> Status:
    """Show the nodes again and again until Ctrl-C, or ``--count`` times."""
    with session.cluster() as cluster:
        try:
            if session.as_json or not session.output.is_terminal:
                _watch(cluster, session, args, None)
            else:
                with session.output.screen() as draw:
                    _watch(cluster, session, args, draw)
        except KeyboardInterrupt:
            pass  # the usual end of this command
    return Status.DONE


def _watch(
    cluster: Cluster, session: Session, args: argparse.Namespace, draw: Callable[[Sequence[Line]], None] | None
) -> None:
    """Take samples, and show each one: by *draw*, as text, or as JSON."""
    output = session.output
    histories: dict[str, NodeHistory] = {}
    number = 0
    while True:
        began = time.monotonic()
        shown = _sample(cluster, histories)
        title = f"metacache top   {time.strftime('%H:%M:%S')}   every {args.interval:g} s   Ctrl-C ends"
        if session.as_json:
            output.json([history.as_json() for history in shown])
        elif draw is None:
            output.lines([*top_lines(shown, title, None, output.charset), ()])
        else:
            draw(top_lines(shown, title, output.width, output.charset))
        output.flush()
        number += 1
        if number == args.count:
            return
        time.sleep(max(args.interval - (time.monotonic() - began), 0.0))


def _sample(cluster: Cluster, histories: dict[str, NodeHistory]) -> list[NodeHistory]:
    """Ask all nodes, add their answers to *histories*, and return those of the current nodes."""
    shown: list[NodeHistory] = []
    for node, answer in cluster.stats().items():
        history = histories.setdefault(node.name, NodeHistory(node.name))
        if isinstance(answer, MetacacheError):
            history.failed(str(answer))
        else:
            history.answered(Counters.of(answer, time.monotonic()))
        shown.append(history)
    return shown
