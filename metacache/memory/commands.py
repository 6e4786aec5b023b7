"""The meta commands on a `Store`: a request in, the bytes of its reply out (protocol.txt, "Meta Commands").

Each function follows the one of memcached 1.6.18 (proto_text.c) step by step, with the flags of later releases added:
E, s and N on ms, x on md, C on mg. It parses no line, takes no lock and reads no clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

from metacache.memory.flags import MAX_OPAQUE_TOKEN, RequestFlags
from metacache.memory.keys import echo_key
from metacache.memory.numbers import safe_strtoull
from metacache.memory.store import CHUNK_MAX, Store, StoredItem, slab_class

__all__ = ["Request", "debug", "line", "refusal_of_store", "run_ma", "run_md", "run_mg", "run_ms"]

U64: Final = 2**64
OPAQUE_TOO_LONG: Final = b"CLIENT_ERROR opaque token too long\r\n"
TOO_LARGE: Final = b"SERVER_ERROR object too large for cache"


@final
class Request:
    """One request on an item: the store, the time, the decoded key and the flags.

    ``is_binary``: the key came as base64.
    """

    __slots__ = ("flags", "is_binary", "key", "now", "store")

    def __init__(self, store: Store, now: float, key: bytes, flags: RequestFlags) -> None:
        self.store = store
        self.now = now
        self.key = key
        self.flags = flags
        self.is_binary = flags.has(b"b")

    def find(self) -> StoredItem | None:
        """Return the item, if there is one."""
        return self.store.find(self.key, self.now)

    def expiry(self, letter: bytes) -> float | None:
        """Return the time at which the TTL of the flag *letter* ends; None for an endless one or no flag."""
        return self.store.expiry(self.flags.numbers.get(letter, 0), self.now)

    @property
    def new_cas(self) -> int:
        """The CAS number of the flag E; 0 without one."""
        return self.flags.numbers.get(b"E", 0)

    def echo(self) -> bytes | None:
        """Return the flags O and k of a reply without an item; None if the opaque is too long."""
        echoed: list[bytes] = []
        for letter, token in self.flags.order:
            if letter == b"O":
                if len(token) >= MAX_OPAQUE_TOKEN:
                    return None
                echoed.append(b" O" + token)
            elif letter == b"k":
                echoed.append(echo_key(self.key, is_binary=self.is_binary))
        return b"".join(echoed)


def line(code: bytes, rest: bytes | None) -> bytes:
    """Return a header line; the error line for an opaque that is too long if *rest* is None."""
    return OPAQUE_TOO_LONG if rest is None else code + rest + b"\r\n"


# --- mg --------------------------------------------------------------------------------------------------------------


def run_mg(request: Request) -> bytes:
    """Return the reply to ``mg``: get, touch, vivify and recache."""
    flags, store, now = request.flags, request.store, request.now
    item = request.find()
    is_new = item is None and flags.has(b"N")
    if is_new:
        item = StoredItem(request.key, b"", 0, None, now)
        store.link(item, request.new_cas)
    if item is None:
        return _missed(request)
    if not (flags.delays_bump or flags.has(b"u")):
        item.fetched = True
        store.bump(item, now)
    returned, won = _returned(request, item, is_new=is_new)
    if returned is None:
        return OPAQUE_TOO_LONG
    marks = _marks(store, item, won=won)
    has_value = flags.has(b"v") and flags.numbers.get(b"C") != item.cas
    if flags.delays_bump and not flags.has(b"u"):
        item.fetched = True
        store.bump(item, now)
    if flags.has(b"T"):
        store.counts.touch_hits += 1
    else:
        store.counts.get_hits += 1
    if not has_value:
        return b"HD" + returned + marks + b"\r\n"
    return b"".join((b"VA %d" % item.size, returned, marks, b"\r\n", item.value, b"\r\n"))


def _missed(request: Request) -> bytes:
    flags, counts = request.flags, request.store.counts
    if flags.has(b"T"):
        counts.touch_misses += 1
    else:
        counts.get_misses += 1
    echoed = request.echo()
    return b"" if flags.has(b"q") and echoed is not None else line(b"EN", echoed)


def _returned(request: Request, item: StoredItem, *, is_new: bool) -> tuple[bytes | None, bool]:
    """Execute the flags from left to right; return the return flags (None: the opaque is too long), and a win."""
    returned: list[bytes] = []
    won = False
    for letter, token in request.flags.order:
        reader = RETURN_FLAGS.get(letter)
        if reader is not None:
            returned.append(reader(item, request.now))
        elif letter == b"T":
            item.expires = request.expiry(b"T")
        elif letter == b"N":
            item.expires = request.expiry(b"N") if is_new else item.expires
            won = won or is_new
        elif letter == b"R":
            won = won or (not is_new and _recaches(request, item))
        elif letter == b"O":
            if len(token) >= MAX_OPAQUE_TOKEN:
                return None, won
            returned.append(b" O" + token)
    return b"".join(returned), won


RETURN_FLAGS: Final[dict[bytes, Callable[[StoredItem, float], bytes]]] = {
    b"s": lambda item, _: b" s%d" % item.size,
    b"t": lambda item, now: b" t%d" % item.seconds_left(now),
    b"c": lambda item, _: b" c%d" % item.cas,
    b"f": lambda item, _: b" f%d" % item.flags,
    b"l": lambda item, now: b" l%d" % max(now - item.used, 0),
    b"h": lambda item, _: b" h%d" % item.fetched,
    b"k": lambda item, _: echo_key(item.key, is_binary=item.is_binary),
}


def _recaches(request: Request, item: StoredItem) -> bool:
    """Return whether less than the token of R is left of *item*, and no reader has got W."""
    before = request.expiry(b"R")
    if item.won or item.expires is None or before is None:
        return False
    signed = [(left + 2**31) % 2**32 for left in (item.seconds_left(request.now), _seconds_until(before, request.now))]
    return signed[0] < signed[1]


def _seconds_until(time: float, now: float) -> int:
    return StoredItem(b"", b"", 0, time, now).seconds_left(now)


def _marks(store: Store, item: StoredItem, *, won: bool) -> bytes:
    """Return Z, X and W, and note a win. The first reader of a stale item wins; of several readers only one does."""
    wins = won or (item.stale and not item.won)
    marks = b" Z" * item.won + b" X" * item.stale + b" W" * wins
    if wins:
        store.mark_won(item)
    return marks


# --- ms --------------------------------------------------------------------------------------------------------------

_MODES: Final = frozenset((b"", b"E", b"A", b"P", b"R", b"S"))


def refusal_of_store(request: Request, size: int, max_value_size: int) -> bytes | None:
    """Return the error line for an ``ms`` of *size* bytes that is refused before its data block; None if it is not."""
    flags, store = request.flags, request.store
    if flags.mode not in _MODES:
        return b"CLIENT_ERROR invalid mode for ms M token"
    if request.echo() is None:
        return OPAQUE_TOO_LONG.removesuffix(b"\r\n")
    if size <= max_value_size and store.fits(request.key, flags.numbers.get(b"F", 0), size):
        return None
    store.counts.store_too_large += 1
    old = request.find()
    if old is not None:  # a stale value must not survive a failed write
        store.unlink(old)
    return TOO_LARGE


def run_ms(request: Request, body: bytes) -> bytes:
    """Return the reply to ``ms`` with the data block *body*."""
    flags, store = request.flags, request.store
    store.counts.cmd_set += 1
    old = request.find()
    code = _refused(request, old)
    new: StoredItem | None = None
    if code is None:
        new = _stored(request, old, body)
        code = b"NS" if new is None else b"HD"
    elif old is not None and flags.mode == b"E":
        store.bump(old, old.used)  # memcached moves it to the head of its LRU
    if code == b"HD" and flags.has(b"q"):
        return b""
    return line(code, _stored_flags(request, new, len(body)))


def _refused(request: Request, old: StoredItem | None) -> bytes | None:
    """Return the code with which the store is refused; None if it is not."""
    flags, counts = request.flags, request.store.counts
    mode, compared = flags.mode, flags.numbers.get(b"C")
    if mode == b"E":
        return None if old is None else b"NS"
    grows = mode in (b"A", b"P")
    if old is None:
        if compared is not None and not grows:
            counts.cas_misses += 1
            return b"NF"
        return b"NS" if mode == b"R" or (grows and not flags.has(b"N")) else None
    if compared is None or (grows and compared == 0):  # 0 is no CAS for append and prepend
        return None
    if compared == old.cas or (0 < compared < old.cas and flags.has(b"I") and not grows):
        counts.cas_hits += 1
        return None
    counts.cas_badval += 1
    return b"EX"


def _stored(request: Request, old: StoredItem | None, body: bytes) -> StoredItem | None:
    """Store the new item and return it; None if it would be too large."""
    flags, store, now = request.flags, request.store, request.now
    if flags.mode in (b"A", b"P") and old is not None:
        value = old.value + body if flags.mode == b"A" else body + old.value
        if not store.fits(request.key, old.flags, len(value)):
            return None
        grown = StoredItem(request.key, value, old.flags, old.expires, now)
        store.link(grown, request.new_cas)
        return grown
    expires = request.expiry(b"N" if flags.mode in (b"A", b"P") else b"T")
    item = StoredItem(request.key, body, flags.numbers.get(b"F", 0), expires, now)
    item.is_binary = request.is_binary
    compared = flags.numbers.get(b"C")
    if old is not None and compared is not None and flags.mode != b"E" and flags.has(b"I") and compared < old.cas:
        item.expires, item.stale, item.won = old.expires, True, old.won
    store.link(item, request.new_cas)
    return item


def _stored_flags(request: Request, new: StoredItem | None, size: int) -> bytes | None:
    returned: list[bytes] = []
    for letter, token in request.flags.order:
        if letter == b"O":
            returned.append(b" O" + token)
        elif letter == b"k":
            returned.append(echo_key(request.key, is_binary=request.is_binary))
        elif letter == b"c":
            returned.append(b" c%d" % (0 if new is None else new.cas))
        elif letter == b"s":
            returned.append(b" s%d" % (size if new is None else new.size))
    return b"".join(returned)


# --- md --------------------------------------------------------------------------------------------------------------


def run_md(request: Request) -> bytes:
    """Return the reply to ``md``: delete, mark as stale, or drop the value."""
    flags, store = request.flags, request.store
    echoed = request.echo()
    if echoed is None:
        return OPAQUE_TOO_LONG
    item = request.find()
    if item is None:
        store.counts.delete_misses += 1
        return line(b"NF", echoed)
    compared = flags.numbers.get(b"C")
    if compared is not None and compared != item.cas:
        store.counts.delete_misses += 1
        return line(b"EX", echoed)
    if flags.has(b"x"):
        item = StoredItem(request.key, b"", flags.numbers.get(b"F", 0), request.expiry(b"T"), request.now)
        store.link(item, request.new_cas)
    if flags.has(b"I"):
        if flags.has(b"T"):
            item.expires = request.expiry(b"T")
        store.mark_stale(item, request.new_cas or store.next_cas())
    elif not flags.has(b"x"):
        store.unlink(item)
        store.counts.delete_hits += 1
    return b"" if flags.has(b"q") else line(b"HD", echoed)


# --- ma --------------------------------------------------------------------------------------------------------------

_DECREMENTS: Final = {b"": False, b"I": False, b"+": False, b"D": True, b"-": True}


def run_ma(request: Request) -> bytes:
    """Return the reply to ``ma``: increment, decrement, and create with an initial number."""
    flags, store = request.flags, request.store
    decrements = _DECREMENTS.get(flags.mode)
    if decrements is None:
        return b"CLIENT_ERROR invalid mode for ma M token\r\n"
    found = request.find()
    if found is None:
        if not flags.has(b"N"):
            _count_arithmetic(store, "misses", decrements=decrements)
            return line(b"NF", request.echo())
        number = flags.numbers.get(b"J", 0)
        item = StoredItem(request.key, b"%d" % number, 0, None, request.now)
        store.link(item, request.new_cas)
        return _counted(request, item, number, is_new=True)
    old = _number_in(found)
    if found.size == 0 or found.total_size > CHUNK_MAX:
        old = None
    elif flags.numbers.get(b"C", 0) not in (0, found.cas):
        return line(b"EX", request.echo())
    if old is None:
        return b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"
    _count_arithmetic(store, "hits", decrements=decrements)
    delta = flags.numbers.get(b"D", 1)
    number = max(old - delta, 0) if decrements else (old + delta) % U64
    return _counted(request, _changed(request, found, b"%d" % number), number, is_new=False)


def _count_arithmetic(store: Store, which: str, *, decrements: bool) -> None:
    name = f"{'decr' if decrements else 'incr'}_{which}"
    setattr(store.counts, name, getattr(store.counts, name) + 1)


def _number_in(item: StoredItem) -> int | None:
    # memcached parses the item up to its CRLF.
    return safe_strtoull(item.value + b"\r\n")


def _changed(request: Request, item: StoredItem, digits: bytes) -> StoredItem:
    """Store *digits* and return the item whose flags the reply shows.

    A number with more digits gets a new item. As in memcached, T and E change only the old one, which the reply shows.
    """
    store = request.store
    if len(digits) <= item.size:
        store.replace_value(item, digits.ljust(item.size), request.new_cas or store.next_cas())
        store.bump(item, request.now)
        return item
    store.link(StoredItem(item.key, digits, item.flags, item.expires, request.now))
    shown = StoredItem(item.key, digits, item.flags, item.expires, request.now)
    shown.cas = request.new_cas or store.items[item.key].cas if item.key in store.items else 0
    return shown


def _counted(request: Request, item: StoredItem, number: int, *, is_new: bool) -> bytes:
    flags, now = request.flags, request.now
    returned: list[bytes] = []
    for letter, token in flags.order:
        if letter in (b"c", b"t"):
            returned.append(RETURN_FLAGS[letter](item, now))
        elif letter == b"T" or (letter == b"N" and is_new):
            item.expires = request.expiry(letter)
        elif letter == b"O":
            if len(token) >= MAX_OPAQUE_TOKEN:
                return OPAQUE_TOO_LONG
            returned.append(b" O" + token)
        elif letter == b"k":
            returned.append(echo_key(request.key, is_binary=request.is_binary))
    if flags.has(b"q") and not is_new:
        return b""
    digits = b"%d" % number
    if not flags.has(b"v"):
        return line(b"HD", b"".join(returned))
    return b"".join((b"VA %d" % len(digits), *returned, b"\r\n", digits, b"\r\n"))


# --- me --------------------------------------------------------------------------------------------------------------


def debug(store: Store, key: bytes, now: float) -> bytes:
    """Return the reply to ``me``."""
    store.counts.cmd_meta += 1
    item = store.find(key, now)
    if item is None:
        return b"EN\r\n"
    # The sign of exp is that of 1.6.18; 1.6.24 changed it.
    expires = -1 if item.expires is None else -item.seconds_left(now)
    shown = echo_key(item.key, is_binary=item.is_binary)[2:].removesuffix(b" b" if item.is_binary else b"")
    return b"ME %b exp=%d la=%d cas=%d fetch=%b cls=%d size=%d\r\n" % (
        shown,
        expires,
        max(now - item.used, 0),
        item.cas,
        b"yes" if item.fetched else b"no",
        slab_class(item.total_size),
        item.total_size,
    )
