"""Turns replies with a stored value, or with its return flags, into values, items and states of items. No I/O.

`Reader` counts what it reads and remembers header lines. `answers` reads the other replies. A lease placeholder
(size 0, client flags 0, and W or Z) is never returned as a value: another client is still computing the value.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final, Generic, NamedTuple, TypeVar, cast, final

from metacache.acceleration import found_values
from metacache.errors import MetacacheError, ServerError
from metacache.interrupts import fails_again, is_own, map_or_none
from metacache.operations.policies import MISS, Miss, UndecodablePolicy
from metacache.operations.results import Item
from metacache.operations.tallies import ReadCounts
from metacache.protocol.keys import K
from metacache.protocol.replies import Reply, find_flag, flag_number, flag_ttl, return_flags
from metacache.protocol.windows import Replies
from metacache.serializers.frame import Frame, Undecodable

__all__ = [
    "ItemState",
    "Precheck",
    "Reader",
    "read_touch",
]

T = TypeVar("T")
D = TypeVar("D")

# How many header lines a reader remembers as "has exactly the client's own flags". Lines repeat, because sizes repeat.
MAX_KNOWN_LINES: Final = 4096


@final
class ItemState(NamedTuple, Generic[T]):
    """The value and the CAS of an existing item.

    ``value``: MISS if the item is a lease placeholder or cannot be decoded.
    """

    value: T | Miss
    cas: int
    is_placeholder: bool


@final
class Precheck(NamedTuple):
    """What append and prepend need to know of an item before they extend it.

    ``won``: the precheck consumed the win flag of a stale item. ``flags``: the return flags, for `Reader.can_extend`.
    """

    cas: int
    won: bool
    can_extend: bool
    flags: list[bytes]


@final
class Reader(Generic[T]):
    """Reads the values of one client, and counts hits, misses and stale values.

    ``own`` is the return flag of the values that this client writes, and ``loads`` decodes them.
    """

    __slots__ = ("_counts", "_is_raw", "_known_lines", "_policy", "frame", "loads", "own")

    def __init__(self, frame: Frame[T], policy: UndecodablePolicy, counts: ReadCounts) -> None:
        self.frame = frame
        self._policy = policy
        self._counts = counts
        self.loads = frame.loads
        self._is_raw = frame.is_raw
        self.own = b"f%d" % frame.flags
        self._known_lines: set[bytes] = set()

    def value(self, reply: Reply) -> T | None:
        """Return the value in a reply to ``mg … v f``; None on a miss."""
        tokens, data = reply
        if data is None:
            self._counts.misses += 1
            return None
        try:
            _, _, flags = tokens  # unpacking costs 180 instructions less than a comparison of len(tokens)
        except ValueError:
            flags = None  # the marks W, X or Z follow
        if flags == self.own:
            if self._is_raw:
                self._counts.hits += 1
                return data  # type: ignore[return-value]  # pyright: ignore[reportReturnType]  # T is bytes
            loads = self.loads
            try:
                value = loads(data)
            except Exception as error:
                if not fails_again(loads, data, error):
                    raise
                self._policy.record(self.frame.undecodable("decode"))
                return None
            self._counts.hits += 1
            return value
        found = self.read(tokens[2:], data)
        return None if found is MISS else found

    def value_or(self, default: D) -> Callable[[Reply], T | D]:
        """Return a function like `value` that returns *default* on a miss."""

        def read(reply: Reply) -> T | D:
            tokens, data = reply
            if data is None:
                self._counts.misses += 1
                return default
            value = self.read(tokens[2:], data)
            return default if value is MISS else value

        return read

    def values(self, keys: Collection[K], replies: Replies, errors: dict[K, MetacacheError]) -> dict[K, T]:
        """Return the values in the replies to a batch of ``mg … v f``, by key.

        Leaves out misses. Adds an error of a strict policy, and of a broken reply, to *errors*.
        """
        if found_values is not None:
            raw: dict[K, bytes] | None = found_values(keys, replies.headers, replies.values, self._known_lines)
            results = None if raw is None else self._loaded(raw)
            if results is not None:
                misses = len(replies.headers) - len(results) and replies.headers.count(b"EN")
                self._counts.add_reads(len(results), misses)
                return results
        if self._known_lines.issuperset(replies.headers):
            # cast: known lines are lines of values, so no data block is None and all keys are hits.
            values = cast("list[bytes]", replies.values)
            # cast: the values of a client whose frame is raw are bytes.
            found = cast("list[T]", values) if self._is_raw else map_or_none(self.loads, values)
            if found is not None:
                self._counts.add_reads(len(found), 0)
                return dict(zip(keys, found, strict=True))
        return self._values_one_by_one(keys, replies, errors)

    def _loaded(self, raw: dict[K, bytes]) -> dict[K, T] | None:
        """Return the decoded values of *raw*; None if one cannot be decoded."""
        if self._is_raw:
            return cast("dict[K, T]", raw)  # cast: the values of a client whose frame is raw are bytes
        loaded = map_or_none(self.loads, raw.values())
        return None if loaded is None else dict(zip(raw, loaded, strict=True))

    def _values_one_by_one(self, keys: Collection[K], replies: Replies, errors: dict[K, MetacacheError]) -> dict[K, T]:
        known, loads = self._known_lines, self.loads
        results: dict[K, T] = {}
        hits = 0
        for key, header, data in zip(keys, replies.headers, replies.values, strict=True):
            if data is None:
                continue
            if header in known:
                try:
                    value = loads(data)
                except Exception as error:
                    if not fails_again(loads, data, error):
                        raise
                else:
                    results[key] = value
                    hits += 1
                    continue
            try:
                found = self._value_of_line(header, data)
            except MetacacheError as error:
                if not is_own(error):
                    raise
                errors[key] = error
                continue
            if found is not MISS:
                results[key] = found
        self._counts.add_reads(hits, replies.headers.count(b"EN"))
        return results

    def _value_of_line(self, header: bytes, data: bytes) -> T | Miss:
        tokens = header.split(b" ")
        if tokens[2:] == [self.own]:
            if len(self._known_lines) >= MAX_KNOWN_LINES:
                self._known_lines.clear()
            self._known_lines.add(header)
        return self.read(tokens[2:], data)

    def items(self, keys: Collection[K], replies: Replies, errors: dict[K, MetacacheError]) -> dict[K, Item[T]]:
        """Return the items in the replies to a batch of ``mg … v f c t h l``, by key, as `values` does."""
        results: dict[K, Item[T]] = {}
        for key, header, data in zip(keys, replies.headers, replies.values, strict=True):
            if data is None:
                continue
            try:
                item = self.item_of(header.split(b" ")[2:], data)
            except MetacacheError as error:
                if not is_own(error):
                    raise
                errors[key] = error
                continue
            if item is not None:
                results[key] = item
        self._counts.add_reads(0, replies.headers.count(b"EN"))
        return results

    def read(self, flags: list[bytes], data: bytes) -> T | Miss:
        """Return the result of `decode`; count a hit or a miss."""
        value = self.decode(flags, data)
        if value is not MISS:
            self._count_hit(flags)
        elif is_placeholder(flags, data):
            self._counts.misses += 1
        return value

    def _count_hit(self, flags: list[bytes]) -> None:
        self._counts.hits += 1
        if b"X" in flags:
            self._counts.stale += 1

    def decode(self, flags: list[bytes], data: bytes) -> T | Miss:
        """Return the decoded value; MISS if it is a lease placeholder or cannot be decoded."""
        if is_placeholder(flags, data):
            return MISS
        try:
            return self.frame.decode(flag_number(flags, b"f"), data)
        except Undecodable as found:
            return self._policy.record(found)

    def item(self, reply: Reply) -> Item[T] | None:
        """Return the item in a reply to ``mg … v f c t h l``; None on a miss."""
        tokens, data = reply
        if data is None:
            self._counts.misses += 1
            return None
        return self.item_of(tokens[2:], data)

    def item_of(self, flags: list[bytes], data: bytes) -> Item[T] | None:
        """Return the item for these return flags and this data block; None if it has no decodable value."""
        value = self.read(flags, data)
        if value is MISS:
            return None
        return Item(
            value=value,
            cas=flag_number(flags, b"c"),
            ttl=flag_ttl(flags),
            size=len(data),
            client_flags=flag_number(flags, b"f"),
            fetched_before=flag_number(flags, b"h") == 1,
            idle_seconds=flag_number(flags, b"l"),
            stale=b"X" in flags,
            won=b"W" in flags,
        )

    def state(self, reply: Reply) -> ItemState[T] | None:
        """Return the state of the item in a reply to ``mg … v f c``; None if there is no item."""
        tokens, data = reply
        if data is None:
            return None
        flags = tokens[2:]
        return ItemState(self.decode(flags, data), flag_number(flags, b"c"), is_placeholder(flags, data))

    def touched_state(self, reply: Reply) -> ItemState[T] | None:
        """Return the result of `state`; count a hit or a miss, because `get_and_touch` is a read."""
        tokens, data = reply
        if data is None:
            self._counts.misses += 1
            return None
        flags = tokens[2:]
        return ItemState(self.read(flags, data), flag_number(flags, b"c"), is_placeholder(flags, data))

    def guarded_state(self, reply: Reply) -> ItemState[T] | None:
        """Return the result of `state`. Raises ServerError if the item has no CAS, which could guard no write."""
        found = self.state(reply)
        if found is not None:
            _require_cas(found.cas)
        return found

    def exists(self, reply: Reply) -> bool:
        """Return whether the reply to ``mg … s f`` shows a value whose client flags this client can read.

        A strict policy raises DecodeError if it cannot.
        """
        flags = [] if reply[0][0] == b"EN" else return_flags(reply)
        if not flags or _is_placeholder_by_size(flags):
            self._counts.misses += 1
            return False
        if not self._passes(self.frame.compressor_of, flag_number(flags, b"f")):
            return False
        self._count_hit(flags)
        return True

    def precheck(self, reply: Reply) -> Precheck | None:
        """Return the precheck in a reply to ``mg … s f c``; None if there is no item.

        Raises ServerError if the item has no CAS. If the precheck consumed the win flag, the caller releases the flag
        before it calls `can_extend`, which may raise.
        """
        if reply[0][0] == b"EN":
            return None
        flags = return_flags(reply)
        cas = flag_number(flags, b"c")
        _require_cas(cas)
        won = b"W" in flags
        return Precheck(cas, won, not won and self.can_extend(flags), flags)

    def can_extend(self, flags: list[bytes]) -> bool:
        """Return whether the item is a fresh, uncompressed value that this client can read.

        A strict policy raises DecodeError if the client flags show that this client cannot read it, or that it is
        compressed.
        """
        if _is_placeholder_by_size(flags):
            return False
        return self._passes(self.frame.check_plain, flag_number(flags, b"f")) and b"X" not in flags

    def _passes(self, check: Callable[[int], object], client_flags: int) -> bool:
        try:
            check(client_flags)
        except Undecodable as found:
            self._policy.record(found)
            return False
        return True


def is_placeholder(flags: list[bytes], data: bytes) -> bool:
    """Return whether this is the empty item that ``mg N`` creates while a client computes the value."""
    return not data and (b"W" in flags or b"Z" in flags) and find_flag(flags, b"f") == b"0"


def _is_placeholder_by_size(flags: list[bytes]) -> bool:
    """Return whether a reply without value is that of a lease placeholder. *flags* must contain the size."""
    return flag_number(flags, b"s") == 0 and is_placeholder(flags, b"")


def _require_cas(cas: int) -> None:
    if not cas:
        raise ServerError("the server runs without CAS (-C), which this method needs to protect other writers' values")


def read_touch(reply: Reply) -> ItemState[None] | None:
    """Return the state, without value, of the item in a reply to ``mg … T s f c``; None if there is no item."""
    if reply[0][0] == b"EN":
        return None
    flags = return_flags(reply)
    return ItemState(None, flag_number(flags, b"c"), _is_placeholder_by_size(flags))
