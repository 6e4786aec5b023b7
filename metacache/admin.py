"""The few commands that are for a server and not for a key: ping, version, stats, flush_all. Pure.

Each is an operation: its request, and how its reply is read. Knows no transport.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from metacache.protocol import commands
from metacache.protocol.commands import Request
from metacache.protocol.replies import Reply
from metacache.transports import Operation, Verb

__all__ = ["flush_all", "ping", "probe", "stats", "version"]

R = TypeVar("R")

PING: Final = Verb("ping", commands.MN, is_read=True)
PROBE: Final = Verb("probe", commands.MN, is_read=True)
VERSION: Final = Verb("version", commands.VERSION, is_read=True)
STATS: Final = Verb("stats", commands.STATS)  # `stats reset` is none that may be sent twice
FLUSH_ALL: Final = Verb("flush_all", commands.FLUSH_ALL)


def _operation(verb: Verb, request: Request, read: Callable[[Reply], R]) -> Operation[R]:
    op: Operation[R] = Operation()
    op.verb, op.given, op.key, op.head, op.body, op.read = verb, None, b"", request.head, request.body, read
    return op


def ping() -> Operation[bool]:
    """mn. True when the server answers."""
    return _operation(PING, commands.meta_noop(), _answered)


def probe() -> Operation[bool]:
    """mn, to a node that was down."""
    return _operation(PROBE, commands.meta_noop(), _answered)


def version() -> Operation[str]:
    """version. Through a proxy it names the proxy."""
    return _operation(VERSION, commands.version(), _read_version)


def stats(arg: str) -> Operation[dict[str, str]]:
    """stats [arg]: names and values as the server writes them. Raises InvalidArgumentError."""
    return _operation(STATS, commands.stats(arg), _read_stats)


def flush_all(delay: int) -> Operation[bool]:
    """flush_all [delay]. Raises InvalidArgumentError."""
    return _operation(FLUSH_ALL, commands.flush_all(delay), _answered)


def _answered(_: Reply) -> bool:
    return True


def _read_version(reply: Reply) -> str:
    return b" ".join(reply[0][1:]).decode(errors="replace")


def _read_stats(reply: Reply) -> dict[str, str]:
    lines = [line.decode(errors="replace").split(" ", 2) for line in reply[0] if line.startswith(b"STAT ")]
    return {words[1]: words[2] if len(words) > 2 else "" for words in lines}
