"""Short paths for the requests that clients send most: plain gets and plain sets, alone or in a batch.

The rest of the server gives the same replies and changes the items in the same way; a test checks that. A path returns
None, before it changes anything, for a request that it does not know. It takes no lock and reads no clock.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import permutations
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from metacache.memory.flags import parse_flags
from metacache.memory.store import Store, StoredItem

if TYPE_CHECKING:
    from collections.abc import Callable

    from metacache.memory.store import Hit

__all__ = ["plain_gets", "plain_sets"]

# The flags and the end of a line. A key with other bytes would be changed by the line parser.
_KEY: Final = rb"([^ \0\n]{1,250})"
_OPAQUE: Final = rb"(?: O([0-9]{1,31}))?\r\n"

_all_gets: Final = re.compile(rb"(mg " + _KEY + rb" ([vfcs ]{1,7})" + _OPAQUE + rb")").findall
_one_set: Final = re.compile(rb"ms " + _KEY + rb" ([0-9]{1,9})((?: [FT][0-9]{1,10}){0,2})" + _OPAQUE).match


def plain_gets(store: Store, data: bytes, now: float) -> bytes | None:
    """Return the replies if *data* is only ``mg`` lines with v, f, c, s and O, for absent items or plain ones."""
    lines: list[tuple[bytes, bytes, bytes, bytes]] = _all_gets(data)
    if sum([len(line) for line, _, _, _ in lines]) != len(data):
        return None
    parts: list[bytes] = []
    found: list[Hit] = []
    for _, key, asked, opaque in lines:
        item = store.items.get(key)
        if item is None and asked in _FORMS:
            parts += (b"EN O", opaque, b"\r\n") if opaque else (b"EN\r\n",)
            continue
        hit = None if item is None else _hit(store, item, asked, now)
        if hit is None:
            return None
        header, value, _ = hit
        found.append(hit)
        parts += (header, opaque, b"\r\n", value, b"\r\n") if opaque else (header[:-2], b"\r\n", value, b"\r\n")
    for _, _, item in found:
        item.fetched = True
        store.bump(item, now)
    store.counts.get_hits += len(found)
    store.counts.get_misses += len(lines) - len(found)
    return b"".join(parts)


def _hit(store: Store, item: StoredItem, asked: bytes, now: float) -> Hit | None:
    """Return the reply to the flags *asked*, and keep it; None for an item with marks or an expired one."""
    if item.stale or item.won or (item.expires is not None and item.expires <= now):
        return None
    head = b"mg %b %b" % (item.key, asked)
    if item.head != head:
        known = _FORMS.get(asked)
        if known is None:
            return None
        form, fields = known
        store.keep_hit(head, (form % fields(item), item.value, item))
    return store.hits[head]


def _forms() -> dict[bytes, tuple[bytes, Callable[[StoredItem], object]]]:
    """Return how a header up to the opaque is made, by the flags that ask for it: v with some of f, c and s."""
    fields = {b"f": "flags", b"c": "cas", b"s": "size"}
    forms: dict[bytes, tuple[bytes, Callable[[StoredItem], object]]] = {}
    for count in range(len(fields) + 1):
        for letters in permutations((b"v", *fields), count + 1):
            if b"v" in letters:
                returned = [letter for letter in letters if letter != b"v"]
                form = b"VA %d" + b"".join(b" " + letter + b"%d" for letter in returned) + b" O"
                forms[b" ".join(letters)] = form, attrgetter("size", *(fields[letter] for letter in returned))
    return forms


_FORMS: Final = _forms()


def plain_sets(store: Store, data: bytes, now: float, max_value_size: int) -> bytes | None:
    """Return the replies if *data* is only complete ``ms`` requests with F, T and O, of values that are not refused."""
    requests: list[tuple[bytes, bytes, int, int, bytes]] = []
    start = 0
    while start < len(data):
        found = _one_set(data, start)
        numbers = None if found is None else _flags_and_ttl(found[3])
        if found is None or numbers is None:
            return None
        start = found.end() + int(found[2]) + 2
        value = data[found.end() : start - 2]
        fits = len(value) <= max_value_size and store.fits(found[1], numbers[0], len(value))
        if not fits or data[start - 2 : start] != b"\r\n":
            return None
        requests.append((found[1], value, *numbers, found[4]))
    for key, value, flags, ttl, _ in requests:
        store.find(key, now)  # counts an expired item
        store.counts.cmd_set += 1
        store.link(StoredItem(key, value, flags, store.expiry(ttl, now), now))
    return b"".join([b"HD O%b\r\n" % opaque if opaque else b"HD\r\n" for *_, opaque in requests])


@lru_cache(maxsize=1024)
def _flags_and_ttl(text: bytes) -> tuple[int, int] | None:
    """Return the client flags and the TTL of the flags F and T in *text*; None if they are wrong."""
    flags = parse_flags(tuple(text.split()))
    return None if flags.error is not None else (flags.numbers.get(b"F", 0), flags.numbers.get(b"T", 0))
