"""The commands for all nodes: ping, stats, flush."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from metacache.cli.layout import Column, Line, table
from metacache.cli.messagepack import Shown
from metacache.cli.node_stats import Counters, node_row, stats_lines
from metacache.cli.session import Session
from metacache.cli.statuses import Status
from metacache.cluster import admin
from metacache.errors import InvalidArgumentError, MetacacheError
from metacache.nodes import Node
from metacache.settings import Settings
from metacache.transports.blocking.connection import Connection

__all__ = ["flush", "ping", "stats"]

PING_COLUMNS: Final = (
    Column("node", is_flexible=True),
    Column("state"),
    Column("connect", ">", rank=1),
    Column("answer", ">"),
    Column("version", rank=2),
)


def _report(session: Session, answers: Mapping[Node, object]) -> Status:
    """Write the errors among *answers* to standard error; return the status."""
    errors = [(node, answer) for node, answer in answers.items() if isinstance(answer, MetacacheError)]
    for node, error in errors:
        session.output.message(f"metacache: {error.locate(node=node.name)}")
    return Status.FAILED if errors else Status.DONE


# --- ping ------------------------------------------------------------------------------------------------------------


def ping(session: Session, args: argparse.Namespace) -> Status:  # noqa: ARG001 - the shape of a command
    """Connect to every node, and ask for an answer."""
    settings = session.settings()
    with session.cluster() as cluster:
        nodes = cluster.nodes
    with ThreadPoolExecutor(len(nodes)) as threads:
        answers = dict(zip(nodes, threads.map(partial(_ping, settings=settings), nodes), strict=True))
    charset = session.output.charset
    if session.as_json:
        session.output.json([_pinged_json(node, answer) for node, answer in answers.items()])
    else:
        rows = [_pinged_row(charset.escaped(node.name), answer) for node, answer in answers.items()]
        session.output.lines(table(PING_COLUMNS, rows, session.output.width, charset))
    return _report(session, answers)


def _ping(node: Node, settings: Settings) -> tuple[float, float, str] | MetacacheError:
    """Return the milliseconds of the first answer (with the connect) and of the second, and the version."""
    try:
        with Connection(node, settings=settings) as connection:
            began = time.perf_counter()
            connection.run(admin.ping())
            connected = time.perf_counter()
            connection.run(admin.ping())
            answered = time.perf_counter()
            return (connected - began) * 1000, (answered - connected) * 1000, connection.run(admin.version())
    except MetacacheError as error:
        return error


def _pinged_row(name: str, answer: tuple[float, float, str] | MetacacheError) -> Line:
    if isinstance(answer, MetacacheError):
        return ((name, "name"), ("down", "bad"), ("-", ""), ("-", ""), ("", ""))
    connect, reply, version = answer
    return ((name, "name"), ("up", "good"), (f"{connect:.2f} ms", ""), (f"{reply:.2f} ms", ""), (version, ""))


def _pinged_json(node: Node, answer: tuple[float, float, str] | MetacacheError) -> dict[str, Shown]:
    if isinstance(answer, MetacacheError):
        return {"node": node.name, "state": "down", "error": str(answer)}
    connect, reply, version = answer
    return {"node": node.name, "state": "up", "connect_ms": connect, "answer_ms": reply, "version": version}


# --- stats -----------------------------------------------------------------------------------------------------------


def stats(session: Session, args: argparse.Namespace) -> Status:
    """Show a line for each node, or the whole reply of each node to ``stats``."""
    with session.cluster() as cluster:
        answers = cluster.stats(args.group or "")
    output = session.output
    found = {node: answer for node, answer in answers.items() if not isinstance(answer, MetacacheError)}
    if session.as_json:
        output.json([_stats_json(node, answer) for node, answer in answers.items()])
    elif args.all or args.group:
        output.lines(_all_stats({node.name: answer for node, answer in found.items()}, session))
    else:
        now = time.monotonic()
        charset = output.charset
        rows = [node_row(charset.escaped(node.name), Counters.of(each, now)) for node, each in found.items()]
        output.lines(stats_lines(rows, output.width, charset))
    return _report(session, answers)


def _stats_json(node: Node, answer: dict[str, str] | MetacacheError) -> dict[str, Shown]:
    if isinstance(answer, MetacacheError):
        return {"node": node.name, "error": str(answer)}
    return {"node": node.name, "stats": {**answer}}


def _all_stats(found: Mapping[str, Mapping[str, str]], session: Session) -> list[Line]:
    charset = session.output.charset
    names = list(dict.fromkeys(name for answer in found.values() for name in answer))
    columns = [Column("name"), *(Column(charset.escaped(node), ">", is_flexible=True) for node in found)]
    rows: list[Line] = [
        ((charset.escaped(name), ""), *((charset.escaped(answer.get(name, "")), "") for answer in found.values()))
        for name in names
    ]
    return table(columns, rows, session.output.width, charset)


# --- flush -----------------------------------------------------------------------------------------------------------


def flush(session: Session, args: argparse.Namespace) -> Status:
    """Expire all items of all nodes, after a question that names the nodes."""
    if not args.yes and not (session.stdin.isatty() and session.output.is_terminal):
        raise InvalidArgumentError("flush asks before it acts, and there is no terminal to ask on: use --yes")
    with session.cluster() as cluster:
        names = ", ".join(node.name for node in cluster.nodes)
        if not args.yes and not _is_confirmed(session, names):
            session.output.message("nothing was flushed")
            return Status.NO
        answers = cluster.flush_all(args.delay)
    if session.as_json:
        session.output.json(
            [
                {"node": node.name, "flushed": False, "error": str(answer)}
                if isinstance(answer, MetacacheError)
                else {"node": node.name, "flushed": True}
                for node, answer in answers.items()
            ]
        )
    else:
        escaped = session.output.charset.escaped
        session.output.lines(
            (((escaped(node.name), "name"), (": flushed", "good")))
            for node, answer in answers.items()
            if not isinstance(answer, MetacacheError)
        )
    return _report(session, answers)


def _is_confirmed(session: Session, names: str) -> bool:
    escaped = session.output.charset.escaped(names)
    session.output.text(f"This expires every item of: {escaped}\nType yes to go on: ")
    session.output.flush()
    return session.stdin.readline().strip().lower() == "yes"
