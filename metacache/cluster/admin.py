"""Operations on a whole server: ping, version, stats, flush_all, cache_memlimit, verbosity. Pure.

Each function returns an operation: the request, and the function that reads its reply. A cluster runs them.
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
STATS: Final = Verb("stats", commands.STATS)  # not a read: `stats reset` must not be sent twice
FLUSH_ALL: Final = Verb("flush_all", commands.FLUSH_ALL)
CACHE_MEMLIMIT: Final = Verb("cache_memlimit", commands.CACHE_MEMLIMIT)
VERBOSITY: Final = Verb("verbosity", commands.VERBOSITY)


def _operation(verb: Verb, request: Request, read: Callable[[Reply], R]) -> Operation[R]:
    op: Operation[R] = Operation()
    op.verb, op.given, op.key, op.head, op.body, op.read = verb, None, b"", request.head, request.body, read
    return op


def ping() -> Operation[bool]:
    """Return the operation `mn`, whose result is True."""
    return _operation(PING, commands.meta_noop(), _answered)


def probe() -> Operation[bool]:
    """Return the operation `mn` of a probe. Errors call it probe, not ping."""
    return _operation(PROBE, commands.meta_noop(), _answered)


def version() -> Operation[str]:
    """Return the operation `version`. A proxy answers with its own version."""
    return _operation(VERSION, commands.version(), _read_version)


def stats(arg: str) -> Operation[dict[str, str]]:
    """Return the operation `stats arg`. Its result is a dict of texts by name. Raises InvalidArgumentError."""
    return _operation(STATS, commands.stats(arg), _read_stats)


def flush_all(delay: int) -> Operation[bool]:
    """Return the operation `flush_all delay`. Raises InvalidArgumentError."""
    return _operation(FLUSH_ALL, commands.flush_all(delay), _answered)


def cache_memlimit(megabytes: int) -> Operation[bool]:
    """Return the operation `cache_memlimit megabytes`. Raises InvalidArgumentError."""
    return _operation(CACHE_MEMLIMIT, commands.cache_memlimit(megabytes), _read_memlimit)


def verbosity(level: int) -> Operation[bool]:
    """Return the operation `verbosity level`. Raises InvalidArgumentError."""
    return _operation(VERBOSITY, commands.verbosity(level), _answered)


def _answered(_: Reply) -> bool:
    return True


# memcached.c, "cache_memlimit": the text after this word differs between releases.
_MEMLIMIT_REFUSED: Final = {
    b"MEMLIMIT_TOO_SMALL": "the server needs at least 8 megabytes",
    b"MEMLIMIT_ADJUST_FAILED": "the server could not change its memory limit; is the number in megabytes, not bytes?",
}


def _read_memlimit(reply: Reply) -> bool:
    refused = _MEMLIMIT_REFUSED.get(reply[0][0])
    if refused is not None:
        raise ClientError(refused)
    return True


def _read_version(reply: Reply) -> str:
    return b" ".join(reply[0][1:]).decode(errors="replace")


_STATS_LINES: Final = (b"STAT ", b"ITEM ", b"PREFIX ")  # then a name; for ITEM a key, for PREFIX a prefix of keys


def _read_stats(reply: Reply) -> dict[str, str]:
    # A key may be any bytes. With "replace", two keys could become one name.
    lines = [line.decode(errors="backslashreplace").split(" ", 2) for line in reply[0] if line.startswith(_STATS_LINES)]
    return {words[1]: words[2] if len(words) > 2 else "" for words in lines}
