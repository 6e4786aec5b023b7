"""Replies that hold values, read as values and items. Pure. Replies without values are read in `answers`.

Knows return flags and the frame; knows no request. A placeholder of a lease (size 0, client flags 0, and W or Z) is
never a value: somebody is still computing it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final, Generic, NamedTuple, TypeVar, final

from metacache.errors import MetacacheError, ProtocolError, ServerError
from metacache.interrupts import call_each, fails_again, is_own
from metacache.operations.policies import MISS, Miss, UndecodablePolicy
from metacache.operations.results import Item
from metacache.operations.statistics import Counts
from metacache.protocol.keys import K
from metacache.protocol.replies import Reply, find_flag, return_flags
from metacache.protocol.windows import Replies
from metacache.serializers.frame import Frame, Undecodable

__all__ = [
    "ItemState",
    "Look",
    "Reader",
    "read_held",
]

T = TypeVar("T")
D = TypeVar("D")

# Header lines known to carry exactly the client's own flags; a few sizes come again and again.
KNOWN_LINES: Final = 4096


@final
class ItemState(NamedTuple, Generic[T]):
    """What an item holds and its CAS.

    ``value``: MISS when it is a placeholder or undecodable, so there is an item, but no T.
    """

    value: T | Miss
    cas: int
    is_placeholder: bool


@final
class Look(NamedTuple):
    """The facts about an item on which append and prepend decide.

    ``won``: this look consumed the win of a stale item. ``flags``: the return flags, for `Reader.can_grow`.
    """

    cas: int
    won: bool
    can_grow: bool
    flags: list[bytes]


@final
class Reader(Generic[T]):
    """Reads values of one client, and counts hits, misses and stale values."""

    __slots__ = ("_counts", "_known_lines", "_loads", "_own", "_policy", "frame")

    def __init__(self, frame: Frame[T], policy: UndecodablePolicy, counts: Counts) -> None:
        self.frame = frame
        self._policy = policy
        self._counts = counts
        self._loads = frame.loads
        self._own = b"f%d" % frame.flags
        self._known_lines: set[bytes] = set()

    def value(self, reply: Reply) -> T | None:
        """Return the value, None for a miss. The reply is that of ``mg … v f``."""
        tokens, data = reply
        if data is None:
            self._counts.misses += 1
            return None
        try:
            _, _, flags = tokens  # this way of counting them costs 180 instructions less than len
        except ValueError:
            flags = None  # marks of a stale item or a lease follow
        if flags == self._own:
            loads = self._loads
            try:
                value = loads(data)
            except Exception as error:
                if not fails_again(loads, data, error):
                    raise
                self._policy.meet(self.frame.undecodable("decode"))
                return None
            self._counts.hits += 1
            return value
        found = self.read(tokens[2:], data)
        return None if found is MISS else found

    def value_or(self, default: D) -> Callable[[Reply], T | D]:
        """Return a reading that gives *default* for a miss."""

        def read(reply: Reply) -> T | D:
            tokens, data = reply
            if data is None:
                self._counts.misses += 1
                return default
            value = self.read(tokens[2:], data)
            return default if value is MISS else value

        return read

    def values(self, keys: Collection[K], replies: Replies, errors: dict[K, MetacacheError]) -> dict[K, T]:
        """Return the values of a batch of ``mg … v f`` by key.

        Misses are left out, what is to be raised goes into *errors*.
        """
        if self._known_lines.issuperset(replies.headers):
            # All hits, for known lines have a value: no data is None.
            found = call_each(self._loads, replies.values)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
            if found is not None:
                self._counts.add_reads(len(found), 0)
                return dict(zip(keys, found, strict=True))
        return self._values_one_by_one(keys, replies, errors)

    def _values_one_by_one(self, keys: Collection[K], replies: Replies, errors: dict[K, MetacacheError]) -> dict[K, T]:
        known, loads = self._known_lines, self._loads
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
        if tokens[2:] == [self._own]:
            if len(self._known_lines) >= KNOWN_LINES:
                self._known_lines.clear()
            self._known_lines.add(header)
        return self.read(tokens[2:], data)

    def items(self, keys: Collection[K], replies: Replies, errors: dict[K, MetacacheError]) -> dict[K, Item[T]]:
        """Return the items of a batch of ``mg … v f c t h l``, as `values` does."""
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
        """Return the result of `decode`, and count it as a read."""
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
        """Return the value that *data* is by its return flags; MISS for a placeholder, and for what is undecodable."""
        if is_placeholder(flags, data):
            return MISS
        try:
            return self.frame.decode(_number(flags, b"f"), data)
        except Undecodable as found:
            return self._policy.meet(found)

    def item(self, reply: Reply) -> Item[T] | None:
        """Return the item, None for a miss. The reply is that of ``mg … v f c t h l``."""
        tokens, data = reply
        if data is None:
            self._counts.misses += 1
            return None
        return self.item_of(tokens[2:], data)

    def item_of(self, flags: list[bytes], data: bytes) -> Item[T] | None:
        """Return the item that *data* is by its return flags."""
        value = self.read(flags, data)
        if value is MISS:
            return None
        return Item(
            value=value,
            cas=_number(flags, b"c"),
            ttl=_ttl(flags),
            size=len(data),
            client_flags=_number(flags, b"f"),
            fetched_before=_number(flags, b"h") == 1,
            idle_seconds=_number(flags, b"l"),
            stale=b"X" in flags,
            won=b"W" in flags,
        )

    def held(self, reply: Reply) -> ItemState[T] | None:
        """Return what the item holds and its CAS; None when there is no item. The reply is that of ``mg … v f c``."""
        tokens, data = reply
        if data is None:
            return None
        flags = tokens[2:]
        return ItemState(self.decode(flags, data), _number(flags, b"c"), is_placeholder(flags, data))

    def renewed(self, reply: Reply) -> ItemState[T] | None:
        """Return the result of `held`, and count it as a read."""
        tokens, data = reply
        if data is None:
            self._counts.misses += 1
            return None
        flags = tokens[2:]
        return ItemState(self.read(flags, data), _number(flags, b"c"), is_placeholder(flags, data))

    def guarded(self, reply: Reply) -> ItemState[T] | None:
        """Return the result of `held`, with a CAS that can guard a write. Raises ServerError if there is no CAS."""
        found = self.held(reply)
        if found is not None:
            _require_cas(found.cas)
        return found

    def exists(self, reply: Reply) -> bool:
        """Return whether the item is a value that this client can read by its flags. The reply is that of ``mg … s f``.

        Raises DecodeError if it is not, in a strict client.
        """
        flags = [] if reply[0][0] == b"EN" else return_flags(reply)
        if not flags or _is_leased(flags):
            self._counts.misses += 1
            return False
        if not self._passes(self.frame.compressor_of, _number(flags, b"f")):
            return False
        self._count_hit(flags)
        return True

    def look(self, reply: Reply) -> Look | None:
        """Return the look of append and prepend; None when there is no item. The reply is that of ``mg … s f c``.

        Raises ServerError if there is no CAS. If the look did not win, raises as `can_grow` does; if it did, the win
        is given back first.
        """
        if reply[0][0] == b"EN":
            return None
        flags = return_flags(reply)
        cas = _number(flags, b"c")
        _require_cas(cas)
        won = b"W" in flags
        return Look(cas, won, not won and self.can_grow(flags), flags)

    def can_grow(self, flags: list[bytes]) -> bool:
        """Return whether the item is a fresh value that this client can read and that is not compressed.

        Raises DecodeError, in a strict client, if its client flags are the reason that it is not.
        """
        if _is_leased(flags):
            return False
        return self._passes(self.frame.check_plain, _number(flags, b"f")) and b"X" not in flags

    def _passes(self, check: Callable[[int], object], client_flags: int) -> bool:
        try:
            check(client_flags)
        except Undecodable as found:
            self._policy.meet(found)
            return False
        return True


def is_placeholder(flags: list[bytes], data: bytes) -> bool:
    """Return whether this is the empty item that ``mg N`` leaves while a client computes the value."""
    return not data and (b"W" in flags or b"Z" in flags) and find_flag(flags, b"f") == b"0"


def _is_leased(flags: list[bytes]) -> bool:
    """Return `is_placeholder` of a reply without value, by its size."""
    return _number(flags, b"s") == 0 and is_placeholder(flags, b"")


def _require_cas(cas: int) -> None:
    if not cas:
        raise ServerError("the server runs without CAS (-C), which this verb needs to guard other writers' values")


def read_held(reply: Reply) -> ItemState[None] | None:
    """Return the CAS of an item touched without reading it; None when there is none.

    The reply is that of ``mg … T s f c``.
    """
    if reply[0][0] == b"EN":
        return None
    flags = return_flags(reply)
    return ItemState(None, _number(flags, b"c"), _is_leased(flags))


def _number(flags: list[bytes], letter: bytes) -> int:
    token = find_flag(flags, letter)
    if token is None or not token.isdigit() or len(token) > 20:
        raise ProtocolError(f"the reply lacks the flag {letter.decode()}, or it is no number")
    return int(token)


def _ttl(flags: list[bytes]) -> int | None:
    if find_flag(flags, b"t") == b"-1":
        return None
    left = _number(flags, b"t")
    return 0 if left >= 2**31 else left  # an expired item shows a wrapped negative
