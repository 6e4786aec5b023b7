"""The admin lines of the embedded server: version, stats, flush_all, cache_memlimit, verbosity, lru_crawler metadump.

It takes no lock and reads no clock. Lines that a server without slabs, threads or a network cannot answer with a true
number are left out of the statistics.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import quote

import attrs

from metacache.memory.flags import BAD_LINE
from metacache.memory.numbers import safe_strtol, safe_strtoul
from metacache.memory.store import CHUNK_MAX, SLAB_SIZES, Counts, Store, slab_class

__all__ = ["ADMIN_LINES", "VERSION"]

VERSION: Final = "1.6.18-metacache"
MEGABYTE: Final = 1024 * 1024

_ERROR: Final = b"ERROR\r\n"

AdminLine = Callable[[Store, list[bytes], float], bytes]
"""Answers one line: the store, its words behind the command, and the time."""


def _version(_: Store, __: list[bytes], ___: float) -> bytes:
    return f"VERSION {VERSION}\r\n".encode()


def _flush_all(store: Store, words: list[bytes], now: float) -> bytes:
    if len(words) > 2:
        return _ERROR
    noreply, words = _without_noreply(words)
    delay = safe_strtol(words[0]) if words else 0
    if delay is None:
        return b"" if noreply else b"CLIENT_ERROR invalid exptime argument\r\n"
    store.flush(delay, now)
    return b"" if noreply else b"OK\r\n"


def _verbosity(_: Store, words: list[bytes], __: float) -> bytes:
    if len(words) not in (1, 2):
        return _ERROR
    reply = b"OK\r\n" if safe_strtoul(words[0]) is not None else BAD_LINE + b"\r\n"
    return b"" if words[-1] == b"noreply" else reply


def _cache_memlimit(store: Store, words: list[bytes], _: float) -> bytes:
    if len(words) not in (1, 2):
        return _ERROR
    megabytes = safe_strtoul(words[0])
    if megabytes is None:
        reply = _ERROR
    elif megabytes < 8:
        reply = b"MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m\r\n"
    elif megabytes > 1_000_000_000:
        reply = b"MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes\r\n"
    else:
        store.memory_limit = megabytes * MEGABYTE
        store.evict()
        reply = b"OK\r\n"
    return b"" if words[-1] == b"noreply" else reply


def _without_noreply(words: list[bytes]) -> tuple[bool, list[bytes]]:
    return (True, words[:-1]) if words and words[-1] == b"noreply" else (False, words)


def _lru_crawler(store: Store, words: list[bytes], now: float) -> bytes:
    if len(words) != 2 or words[0] != b"metadump":
        return _ERROR
    if words[1] not in (b"all", b"hash"):
        return b"BADCLASS invalid class id\r\n"
    lines = [
        f"key={quote(item.key, safe='')} exp={-1 if item.expires is None else int(item.expires)} la={int(item.used)} "
        f"cas={item.cas} fetch={'yes' if item.fetched else 'no'} cls={slab_class(item.total_size)} "
        f"size={item.total_size}\n"
        for item in store.all_items()
        if item.expires is None or item.expires > now
    ]
    return "".join(lines).encode() + b"END\r\n"


def _shutdown(_: Store, __: list[bytes], ___: float) -> bytes:
    return b"ERROR: shutdown not enabled\r\n"


# --- stats -----------------------------------------------------------------------------------------------------------


def _stats(store: Store, words: list[bytes], now: float) -> bytes:
    if not words:
        return _stat_lines(_general(store, now))
    name = words[0]
    if name == b"reset":
        store.counts = attrs.evolve(
            Counts(), curr_connections=store.counts.curr_connections, total_connections=store.counts.total_connections
        )
        return b"RESET\r\n"
    if name == b"detail":
        usage = b"CLIENT_ERROR usage: stats detail on|off|dump\r\n"
        return {b"on": b"OK\r\n", b"off": b"OK\r\n", b"dump": b"END\r\n"}.get(b"".join(words[1:2]), usage)
    if name == b"cachedump":
        return b"CLIENT_ERROR stats cachedump not allowed\r\n"
    found = _STATS.get(name)
    return _ERROR if found is None else _stat_lines(found(store, now))


def _stat_lines(pairs: Iterable[tuple[str, object]]) -> bytes:
    return "".join(f"STAT {name} {value}\r\n" for name, value in pairs).encode() + b"END\r\n"


def _general(store: Store, now: float) -> Iterable[tuple[str, object]]:
    counts = store.counts
    yield "pid", os.getpid()
    yield "uptime", int(now - store.started)
    yield "time", int(now)
    yield "version", VERSION
    yield "pointer_size", 64
    yield "curr_connections", counts.curr_connections
    yield "total_connections", counts.total_connections
    yield "cmd_get", counts.get_hits + counts.get_misses
    yield "cmd_set", counts.cmd_set
    yield "cmd_flush", counts.cmd_flush
    yield "cmd_touch", counts.touch_hits + counts.touch_misses
    yield "cmd_meta", counts.cmd_meta
    for name in _COUNTED:
        yield name, getattr(counts, name)
    yield "bytes_read", counts.bytes_read
    yield "bytes_written", counts.bytes_written
    yield "limit_maxbytes", store.memory_limit
    yield "accepting_conns", 1
    yield "threads", 1
    yield "bytes", store.used
    yield "curr_items", len(store.items)
    yield "total_items", counts.total_items
    yield "evictions", counts.evictions
    yield "reclaimed", counts.get_expired


_COUNTED: Final = (
    *("get_hits", "get_misses", "get_expired", "delete_misses", "delete_hits", "incr_misses", "incr_hits"),
    *("decr_misses", "decr_hits", "cas_misses", "cas_hits", "cas_badval", "touch_hits", "touch_misses"),
    "store_too_large",
)


def _settings(store: Store, _: float) -> Iterable[tuple[str, object]]:
    yield "maxbytes", store.memory_limit
    yield "evictions", "on"
    yield "growth_factor", "1.25"
    yield "chunk_size", 48
    yield "num_threads", 1
    yield "cas_enabled", "yes"
    yield "auth_enabled_ascii", "no"
    yield "item_size_max", store.max_item_size
    yield "slab_chunk_max", CHUNK_MAX
    yield "flush_enabled", "yes"
    yield "dump_enabled", "yes"
    yield "shutdown_command", "no"
    yield "ssl_enabled", "no"


def _items(store: Store, now: float) -> Iterable[tuple[str, object]]:
    numbers, bytes_of = _by_class(store)
    oldest: dict[int, float] = {}
    for item in store.all_items():
        number = slab_class(item.total_size)
        oldest[number] = min(oldest.get(number, item.used), item.used)
    for number in sorted(numbers):
        yield f"items:{number}:number", numbers[number]
        yield f"items:{number}:age", int(now - oldest[number])
        yield f"items:{number}:mem_requested", bytes_of[number]


def _slabs(store: Store, _: float) -> Iterable[tuple[str, object]]:
    numbers, bytes_of = _by_class(store)
    for number in sorted(numbers):
        yield f"{number}:chunk_size", SLAB_SIZES[number - 1]
        yield f"{number}:used_chunks", numbers[number]
        yield f"{number}:mem_requested", bytes_of[number]
    yield "active_slabs", len(numbers)
    yield "total_malloced", store.used


def _by_class(store: Store) -> tuple[Counter[int], Counter[int]]:
    """Return the number and the bytes of the items of each slab class that memcached would use."""
    numbers: Counter[int] = Counter()
    bytes_of: Counter[int] = Counter()
    for item in store.all_items():
        number = slab_class(item.total_size)
        numbers[number] += 1
        bytes_of[number] += item.total_size
    return numbers, bytes_of


def _sizes(_: Store, __: float) -> Iterable[tuple[str, object]]:
    yield "sizes_status", "disabled"


def _nothing(_: Store, __: float) -> Iterable[tuple[str, object]]:
    return ()


_STATS: Final[dict[bytes, Callable[[Store, float], Iterable[tuple[str, object]]]]] = {
    b"settings": _settings,
    b"items": _items,
    b"slabs": _slabs,
    b"sizes": _sizes,
    b"conns": _nothing,
}

ADMIN_LINES: Final[dict[bytes, AdminLine]] = {
    b"version": _version,
    b"stats": _stats,
    b"flush_all": _flush_all,
    b"verbosity": _verbosity,
    b"cache_memlimit": _cache_memlimit,
    b"lru_crawler": _lru_crawler,
    b"shutdown": _shutdown,
}
