"""The few commands that are for a server and not for a key: ping, version, stats, flush_all, limits. Pure.

Each is an operation: its request, and how its reply is read. Knows no transport.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from metacache.errors import ClientError
from metacache.protocol import commands
from metacache.protocol.commands import Request
from metacache.protocol.replies import Reply
from metacache.transports.base import Operation, Verb

__all__ = ["cache_memlimit", "flush_all", "ping", "probe", "stats", "verbosity", "version"]

R = TypeVar("R")

PING: Final = Verb("ping", commands.MN, is_read=True)
PROBE: Final = Verb("probe", commands.MN, is_read=True)
VERSION: Final = Verb("version", commands.VERSION, is_read=True)
STATS: Final = Verb("stats", commands.STATS)  # no read: `stats reset` must not be sent twice
FLUSH_ALL: Final = Verb("flush_all", commands.FLUSH_ALL)
CACHE_MEMLIMIT: Final = Verb("cache_memlimit", commands.CACHE_MEMLIMIT)
VERBOSITY: Final = Verb("verbosity", commands.VERBOSITY)


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


def cache_memlimit(megabytes: int) -> Operation[bool]:
    """cache_memlimit megabytes. Raises InvalidArgumentError."""
    return _operation(CACHE_MEMLIMIT, commands.cache_memlimit(megabytes), _read_memlimit)


def verbosity(level: int) -> Operation[bool]:
    """verbosity level. Raises InvalidArgumentError."""
    return _operation(VERBOSITY, commands.verbosity(level), _answered)


def _answered(_: Reply) -> bool:
    return True


# memcached.c, "cache_memlimit": the text behind the word differs between releases.
_MEMLIMIT_REFUSED: Final = {
    b"MEMLIMIT_TOO_SMALL": "the server takes 8 megabytes and more",
    b"MEMLIMIT_ADJUST_FAILED": "the server could not change its memory; is the number one of megabytes, not bytes?",
}


def _read_memlimit(reply: Reply) -> bool:
    refused = _MEMLIMIT_REFUSED.get(reply[0][0])
    if refused is not None:
        raise ClientError(refused)
    return True


def _read_version(reply: Reply) -> str:
    return b" ".join(reply[0][1:]).decode(errors="replace")


_STATS_LINES: Final = (b"STAT ", b"ITEM ", b"PREFIX ")  # a name behind each; ITEM: a key, PREFIX: that of keys


def _read_stats(reply: Reply) -> dict[str, str]:
    # A key is any bytes. With "replace" two keys could become one.
    lines = [line.decode(errors="backslashreplace").split(" ", 2) for line in reply[0] if line.startswith(_STATS_LINES)]
    return {words[1]: words[2] if len(words) > 2 else "" for words in lines}
