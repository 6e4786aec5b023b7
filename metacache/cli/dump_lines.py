"""Parse the lines of ``lru_crawler metadump``, and render them. Pure.

memcached writes one line for each item (crawler.c): ``key=<percent-encoded> exp=<unix time or -1> la=<unix time> cas=…
fetch=yes|no cls=… size=…``; newer releases add ``flags=…``. A key that was sent as base64 is stored decoded, so its raw
bytes are in the dump.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from metacache.cli.given import json_bytes
from metacache.cli.messagepack import Shown
from metacache.cli.text import Charset
from metacache.protocol.keys import HASH_MARK

__all__ = ["Dumped", "key_json", "key_row", "key_titles", "parse_line"]

# A split of the fields and a dict take twice as long.
_match: Final = re.compile(rb"key=(\S*) exp=(-?\d+) la=(\d+) cas=(\d+) fetch=(\w+) cls=(\d+) size=(\d+)").match


class Dumped(NamedTuple):
    """One item of a dump.

    ``key`` are the raw bytes, ``expires_at`` and ``used_at`` unix times of the server (-1: never expires), ``size`` the
    bytes that the item takes in the server, with header and key. A tuple, because a dump may have millions.
    """

    key: bytes
    expires_at: int
    used_at: int
    is_fetched: bool
    size: int


def parse_line(line: bytes) -> Dumped | None:
    """Return the item of *line*; None for a line of another form."""
    match = _match(line)
    if match is None:
        return None
    key, expires_at, used_at, _, fetched, _, size = match.groups()
    raw = unquote_to_bytes(key) if b"%" in key else key
    return Dumped(raw, int(expires_at), int(used_at), fetched == b"yes", int(size))


NUMBERS: Final = 33  # columns of the numbers before a key
NARROW: Final = 60  # columns; a narrower terminal shows keys only


def key_titles(width: int | None) -> str:
    """Return the line of titles above the rows of `key_row`."""
    return "key\n" if _is_narrow(width) else f"{'size':>9}  {'ttl':>9}  {'idle':>9}  key\n"


def _is_narrow(width: int | None) -> bool:
    return width is not None and width < NARROW


def key_row(charset: Charset, now: int, width: int | None) -> Callable[[Dumped], str]:
    """Return a function that returns the line for an item: size, seconds to live, seconds since the last use, key.

    *now*: the unix time of the server. *width*: lines are cut to it; None: they are not cut.
    """
    if width is not None and _is_narrow(width):
        return lambda item: f"{charset.cut(shown_key(item.key, charset), width)}\n"
    room = None if width is None else width - NUMBERS

    def row(item: Dumped) -> str:
        ttl = "-" if item.expires_at < 0 else str(max(item.expires_at - now, 0))
        key = shown_key(item.key, charset)
        if room is not None:
            key = charset.cut(key, room)
        return f"{item.size:>9}  {ttl:>9}  {max(now - item.used_at, 0):>9}  {key}\n"

    return row


def shown_key(key: bytes, charset: Charset) -> str:
    """Return *key* as escaped text. A key that a client replaced by its SHA-256 is shown as such."""
    if key.startswith(HASH_MARK) and len(key) == len(HASH_MARK) + 32:
        return f"(hashed long key) sha256:{key[len(HASH_MARK) :].hex()}"
    return charset.decoded(key)


def key_json(item: Dumped, node: str, now: int) -> dict[str, Shown]:
    """Return what ``keys --json`` prints for an item."""
    return {
        **json_bytes("key", item.key),
        "node": node,
        "size": item.size,
        "ttl": None if item.expires_at < 0 else max(item.expires_at - now, 0),
        "idle_seconds": max(now - item.used_at, 0),
        "fetched_before": item.is_fetched,
    }
