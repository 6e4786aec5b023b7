"""The items of the embedded server: a dict in order of use, a memory limit, expiry and CAS numbers.

Sizes are those of memcached's own structures, so limits and evictions are close to a real server's. It reads no clock:
its callers pass the time, in seconds since 1970. Its owner guards it with a lock.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final, TypeAlias, final

import attrs

__all__ = ["CHUNK_MAX", "Counts", "Hit", "Store", "StoredItem", "item_size", "slab_class"]

MAX_RELATIVE: Final = 60 * 60 * 24 * 30  # seconds; a larger TTL is a time since 1970
CHUNK_MAX: Final = 512 * 1024  # bytes; memcached stores a larger item in several chunks
HEADER: Final = 48 + 8  # bytes of memcached's item header and of the CAS number


@final
class StoredItem:
    """One item. ``expires`` and ``used`` are times; ``expires`` is None for an item without TTL.

    ``won``: a reader has got W, so later readers get Z. ``is_binary``: the key came as base64 and is returned as such.
    ``head`` is the key of its reply in `Store.hits`; empty without one. The store changes value, CAS number and marks.
    """

    __slots__ = (
        "cas",
        "expires",
        "fetched",
        "flags",
        "head",
        "is_binary",
        "key",
        "size",
        "stale",
        "used",
        "value",
        "won",
    )

    def __init__(self, key: bytes, value: bytes, flags: int, expires: float | None, now: float) -> None:
        self.key = key
        self.value = value
        self.size = len(value)
        self.flags = flags
        self.expires = expires
        self.used = now
        self.cas = 0
        self.head = b""
        self.fetched = self.stale = self.won = self.is_binary = False

    @property
    def total_size(self) -> int:
        """The bytes that memcached needs for the item."""
        return item_size(len(self.key), self.flags, self.size)

    def seconds_left(self, now: float) -> int:
        """Return the TTL as memcached writes it: -1 without TTL; a time in the past wraps to a large number."""
        return -1 if self.expires is None else math.ceil(self.expires - now) % 2**32


Hit: TypeAlias = tuple[bytes, bytes, StoredItem]
"""A reply to a plain ``mg``: the header up to the digits of the opaque, the value, and the item."""


def item_size(key_size: int, flags: int, value_size: int) -> int:
    """Return the bytes that memcached needs for an item."""
    return HEADER + key_size + 1 + (4 if flags else 0) + value_size + 2


def _classes() -> list[int]:
    """Return the chunk sizes of memcached's slab classes with default options (slabs.c, slabs_init)."""
    sizes: list[int] = []
    size = 96.0
    while len(sizes) < 62 and size < CHUNK_MAX / 1.25:
        whole = math.ceil(int(size) / 8) * 8
        sizes.append(whole)
        size = whole * 1.25
    return [*sizes, CHUNK_MAX]


SLAB_SIZES: Final = _classes()


def slab_class(total_size: int) -> int:
    """Return the number of the slab class of an item with *total_size* bytes; the last class for larger ones."""
    return next((number for number, size in enumerate(SLAB_SIZES, 1) if total_size <= size), len(SLAB_SIZES))


@final
@attrs.define
class Counts:
    """What the server counts, under the names of memcached's ``stats``."""

    get_hits: int = 0
    get_misses: int = 0
    get_expired: int = 0
    cmd_set: int = 0
    cmd_flush: int = 0
    cmd_meta: int = 0
    touch_hits: int = 0
    touch_misses: int = 0
    delete_hits: int = 0
    delete_misses: int = 0
    incr_hits: int = 0
    incr_misses: int = 0
    decr_hits: int = 0
    decr_misses: int = 0
    cas_hits: int = 0
    cas_misses: int = 0
    cas_badval: int = 0
    store_too_large: int = 0
    total_items: int = 0
    evictions: int = 0
    reclaimed: int = 0
    total_connections: int = 0
    curr_connections: int = 0
    bytes_read: int = 0
    bytes_written: int = 0


@final
class Store:
    """Items by key, the least recently used first.

    Args:
        memory_limit: bytes for all items. A new item evicts the least recently used ones.
        max_item_size: bytes of the largest item, with key and header.
        started: the time at which the server started.

    ``hits`` keeps the last reply of each item, by the request up to the opaque. Threads may read it without a lock, so
    a reply is one tuple that never changes. Each change of an item removes it.
    """

    __slots__ = ("_cas", "_flush_at", "counts", "hits", "items", "max_item_size", "memory_limit", "started", "used")

    def __init__(self, *, memory_limit: int, max_item_size: int, started: float) -> None:
        self.memory_limit = memory_limit
        self.max_item_size = max_item_size
        self.started = started
        self.items: OrderedDict[bytes, StoredItem] = OrderedDict()
        self.hits: dict[bytes, Hit] = {}
        self.used = 0
        self.counts = Counts()
        self._cas = 0
        self._flush_at = math.inf

    # --- items -------------------------------------------------------------------------------------------------------

    def find(self, key: bytes, now: float) -> StoredItem | None:
        """Return the item at *key*; None if there is none or it has expired."""
        item = self.items.get(key)
        if item is None or item.expires is None or item.expires > now:
            return item
        self.unlink(item)
        self.counts.get_expired += 1
        return None

    def link(self, item: StoredItem, cas: int | None = None) -> None:
        """Store *item* in place of the one with the same key, with a new CAS number or *cas*; evict if necessary."""
        self.unlink(item)
        item.cas = cas or self.next_cas()
        self.used += item.total_size
        self.items[item.key] = item
        self.counts.total_items += 1
        self.evict()

    def unlink(self, item: StoredItem) -> None:
        """Remove the item that has the key of *item*, if there is one."""
        old = self.items.pop(item.key, None)
        if old is not None:
            self._removed(old)

    def _removed(self, old: StoredItem) -> None:
        self.used -= old.total_size
        self.forget_hit(old)

    def all_items(self) -> list[StoredItem]:
        """Return all items, the least recently used first.

        A list: a get without the lock moves its item to the end, which ends an iteration over the dict with an error.
        """
        return list(self.items.values())

    def keep_hit(self, head: bytes, hit: Hit) -> None:
        """Keep *hit* as the reply to the request *head*, in place of the last reply of the item."""
        item = hit[2]
        self.forget_hit(item)
        item.head = head
        self.hits[head] = hit

    def forget_hit(self, item: StoredItem) -> None:
        """Remove the kept reply of *item*."""
        if item.head:
            self.hits.pop(item.head, None)
            item.head = b""

    def replace_value(self, item: StoredItem, value: bytes, cas: int) -> None:
        """Replace the value of *item* by one of the same size."""
        self.forget_hit(item)
        item.value, item.cas = value, cas

    def mark_stale(self, item: StoredItem, cas: int) -> None:
        """Mark *item* as stale: the next reader gets W."""
        self.forget_hit(item)
        item.stale, item.won, item.cas = True, False, cas

    def mark_won(self, item: StoredItem) -> None:
        """Note that a reader of *item* has got W."""
        self.forget_hit(item)
        item.won = True

    def clear(self) -> None:
        """Remove all items, and count CAS numbers from the beginning."""
        self._remove_all()
        self._cas = 0

    def _remove_all(self) -> None:
        self.hits.clear()
        self.items.clear()
        self.used = 0

    def evict(self) -> None:
        """Remove the least recently used items until the others fit into the memory limit."""
        while self.used > self.memory_limit and self.items:
            # One call: a get without the lock may move an item between two calls.
            _, old = self.items.popitem(last=False)
            self._removed(old)
            self.counts.evictions += 1

    def bump(self, item: StoredItem, now: float) -> None:
        """Make *item* the most recently used one."""
        if item.key in self.items:
            self.items.move_to_end(item.key)
        item.used = now

    def fits(self, key: bytes, flags: int, value_size: int) -> bool:
        """Return whether an item is small enough to be stored."""
        return item_size(len(key), flags, value_size) <= self.max_item_size

    def next_cas(self) -> int:
        """Return a new CAS number."""
        self._cas += 1
        return self._cas

    # --- times -------------------------------------------------------------------------------------------------------

    def expiry(self, seconds: int, now: float) -> float | None:
        """Return the time at which a TTL token of *seconds* ends (memcached.c, realtime); None for 0."""
        if seconds == 0:
            return None
        if seconds < 0 or MAX_RELATIVE < seconds <= self.started:
            return self.started - 1
        return float(seconds) if seconds > MAX_RELATIVE else now + seconds

    def flush(self, delay: int, now: float) -> None:
        """Remove all items that are stored before *delay* seconds from now, then."""
        self.counts.cmd_flush += 1
        self._flush_at = self.expiry(delay, now) or now if delay > 0 else now
        self.flush_if_due(now)

    def flush_if_due(self, now: float) -> None:
        """Remove all items if the time of a delayed flush has come."""
        if now >= self._flush_at:
            self._flush_at = math.inf
            self._remove_all()

    @property
    def has_delayed_flush(self) -> bool:
        """True until a delayed flush is done."""
        return self._flush_at != math.inf
