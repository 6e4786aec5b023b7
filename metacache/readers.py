"""Replies read as results: values, items, numbers, what a store or delete came to. Pure.

Knows return flags and the frame; knows no request. A placeholder of a lease (size 0, client flags 0, and W or Z) is
never a value: somebody is still computing it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final, Generic, NamedTuple, TypeVar, final

from metacache.errors import MetacacheError, ProtocolError, ServerError
from metacache.policies import MISS, Miss, UndecodablePolicy
from metacache.protocol.keys import K
from metacache.protocol.replies import HD_REPLY, Reply, find_flag, return_flags
from metacache.protocol.windows import Replies
from metacache.results import DeleteResult, Item, Metadata, StoreResult
from metacache.serializers.frame import Frame, Undecodable

__all__ = [
    "EN_REPLY",
    "Held",
    "Look",
    "Reader",
    "read_delete",
    "read_deletes",
    "read_done",
    "read_held",
    "read_metadata",
    "read_number",
    "read_store",
    "read_stores",
]

T = TypeVar("T")
D = TypeVar("D")

EN_REPLY: Final[Reply] = ([b"EN"], None)
"""A miss, as the server would say it: what an error that is to be a miss is read as."""

# Header lines known to carry exactly the client's own flags; a few sizes come again and again.
KNOWN_LINES: Final = 4096


@final
class Held(NamedTuple, Generic[T]):
    """What an item holds and its CAS.

    ``value``: MISS when it is a placeholder or undecodable, so there is an item, but no T.
    """

    value: T | Miss
    cas: int
    is_placeholder: bool


@final
class Look(NamedTuple):
    """What append and prepend must know of an item before they change it.

    ``won``: this look consumed the win of a stale item. ``flags``: the return flags, for `Reader.can_grow`.
    """

    cas: int
    won: bool
    can_grow: bool
    flags: list[bytes]


@final
class Reader(Generic[T]):
    """Reads values of one client."""

    __slots__ = ("_frame", "_known_lines", "_loads", "_own", "_policy")

    def __init__(self, frame: Frame[T], policy: UndecodablePolicy) -> None:
        self._frame = frame
        self._policy = policy
        self._loads = frame.loads
        self._own = b"f%d" % frame.flags
        self._known_lines: set[bytes] = set()

    def value(self, reply: Reply) -> T | None:
        """Return the value, None for a miss. The reply is that of ``mg … v f``."""
        tokens, data = reply
        if data is None:
            return None
        try:
            if tokens[2] == self._own:
                loads = self._loads
                return loads(data)
        except Exception:
            pass  # whatever it was, the long way finds it again and tells it
        value = self.decode(tokens[2:], data)
        return None if value is MISS else value

    def value_or(self, default: D) -> Callable[[Reply], T | D]:
        """Return a reading that gives *default* for a miss."""

        def read(reply: Reply) -> T | D:
            tokens, data = reply
            value = MISS if data is None else self.decode(tokens[2:], data)
            return default if value is MISS else value

        return read

    def values(self, keys: Collection[K], replies: Replies, errors: dict[K, MetacacheError]) -> dict[K, T]:
        """Return the values of a batch of ``mg … v f`` by key.

        Misses are left out, what is to be raised goes into *errors*.
        """
        known, loads = self._known_lines, self._loads
        if known.issuperset(replies.headers):
            try:
                # All hits, for known lines have a value: no data is None.
                values = [
                    loads(data)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
                    for data in replies.values
                ]
                return dict(zip(keys, values, strict=True))
            except Exception:
                pass  # one of them; the loop finds out which
        results: dict[K, T] = {}
        for key, header, data in zip(keys, replies.headers, replies.values, strict=True):
            if data is None:
                continue
            if header in known:
                try:
                    results[key] = loads(data)
                    continue
                except Exception:
                    pass  # as in `value`
            try:
                value = self._value_of_line(header, data)
            except MetacacheError as error:
                errors[key] = error
                continue
            if value is not MISS:
                results[key] = value
        return results

    def _value_of_line(self, header: bytes, data: bytes) -> T | Miss:
        tokens = header.split(b" ")
        if tokens[2:] == [self._own]:
            if len(self._known_lines) >= KNOWN_LINES:
                self._known_lines.clear()
            self._known_lines.add(header)
        return self.decode(tokens[2:], data)

    def items(self, keys: Collection[K], replies: Replies, errors: dict[K, MetacacheError]) -> dict[K, Item[T]]:
        """Return the items of a batch of ``mg … v f c t h l``, as `values` does."""
        results: dict[K, Item[T]] = {}
        for key, header, data in zip(keys, replies.headers, replies.values, strict=True):
            if data is None:
                continue
            try:
                item = self.item_of(header.split(b" ")[2:], data)
            except MetacacheError as error:
                errors[key] = error
                continue
            if item is not None:
                results[key] = item
        return results

    def decode(self, flags: list[bytes], data: bytes) -> T | Miss:
        """Return the value that *data* is by its return flags; MISS for a placeholder, and for what is undecodable."""
        if is_placeholder(flags, data):
            return MISS
        try:
            return self._frame.decode(_number(flags, b"f"), data)
        except Undecodable as found:
            return self._policy.meet(found)

    def item(self, reply: Reply) -> Item[T] | None:
        """Return the item, None for a miss. The reply is that of ``mg … v f c t h l``."""
        tokens, data = reply
        return None if data is None else self.item_of(tokens[2:], data)

    def item_of(self, flags: list[bytes], data: bytes) -> Item[T] | None:
        """Return the item that *data* is by its return flags."""
        value = self.decode(flags, data)
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

    def held(self, reply: Reply) -> Held[T] | None:
        """Return what the item holds and its CAS; None when there is no item. The reply is that of ``mg … v f c``."""
        tokens, data = reply
        if data is None:
            return None
        flags = tokens[2:]
        return Held(self.decode(flags, data), _number(flags, b"c"), is_placeholder(flags, data))

    def guarded(self, reply: Reply) -> Held[T] | None:
        """Return what `held` returns, with a CAS that can guard a write. Raises ServerError if there is no CAS."""
        found = self.held(reply)
        if found is not None:
            _require_cas(found.cas)
        return found

    def exists(self, reply: Reply) -> bool:
        """Return whether the item is a value that this client can read by its flags. The reply is that of ``mg … s f``.

        Raises DecodeError if it is not, in a strict client.
        """
        if reply[0][0] == b"EN":
            return False
        flags = return_flags(reply)
        return not _is_leased(flags) and self._passes(self._frame.compressor_of, _number(flags, b"f"))

    def look(self, reply: Reply) -> Look | None:
        """Return what append and prepend must know; None when there is no item. The reply is that of ``mg … s f c``.

        Raises ServerError if there is no CAS, and as `can_grow` where the look did not win. Where it did, the win is
        given back first.
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
        return self._passes(self._frame.check_plain, _number(flags, b"f")) and b"X" not in flags

    def _passes(self, check: Callable[[int], object], client_flags: int) -> bool:
        try:
            check(client_flags)
        except Undecodable as found:
            self._policy.meet(found)
            return False
        return True


def is_placeholder(flags: list[bytes], data: bytes) -> bool:
    """Tell whether this is what ``mg N`` leaves while somebody computes the value."""
    return not data and (b"W" in flags or b"Z" in flags) and find_flag(flags, b"f") == b"0"


def _is_leased(flags: list[bytes]) -> bool:
    """Return `is_placeholder` of a reply without value, by its size."""
    return _number(flags, b"s") == 0 and is_placeholder(flags, b"")


def _require_cas(cas: int) -> None:
    if not cas:
        raise ServerError("the server runs without CAS (-C), which this verb needs to guard what others store")


def read_held(reply: Reply) -> Held[None] | None:
    """Return the CAS of an item touched without reading it; None when there is none.

    The reply is that of ``mg … T s f c``.
    """
    if reply[0][0] == b"EN":
        return None
    flags = return_flags(reply)
    return Held(None, _number(flags, b"c"), _is_leased(flags))


STORED: Final = StoreResult.STORED  # an enum member looked up in its class costs 400 instructions
_STORED: Final = {
    b"HD": STORED,
    b"NS": StoreResult.NOT_STORED,
    b"EX": StoreResult.EXISTS,
    b"NF": StoreResult.NOT_FOUND,
}
_DELETED: Final = {b"HD": DeleteResult.DELETED, b"NF": DeleteResult.NOT_FOUND, b"EX": DeleteResult.EXISTS}


def read_store(reply: Reply) -> StoreResult:
    """Return what an ms came to."""
    return STORED if reply is HD_REPLY else _STORED[reply[0][0]]


def read_delete(reply: Reply) -> DeleteResult:
    """Return what an md came to."""
    return _DELETED[reply[0][0]]


def read_stores(keys: Collection[K], replies: Replies, _: object) -> dict[K, StoreResult]:
    """Return what the ms of a batch came to, by key."""
    return _by_code(keys, replies, _STORED)


def read_deletes(keys: Collection[K], replies: Replies, _: object) -> dict[K, DeleteResult]:
    """Return what the md of a batch came to, by key."""
    return _by_code(keys, replies, _DELETED)


def _by_code(keys: Collection[K], replies: Replies, results: Mapping[bytes, T]) -> dict[K, T]:
    if replies.headers.count(b"HD") == len(keys):
        return dict.fromkeys(keys, results[b"HD"])
    return {key: results[header.split(b" ")[0]] for key, header in zip(keys, replies.headers, strict=True) if header}


def read_done(reply: Reply) -> bool:
    """Tell whether the item was there."""
    return reply[0][0] == b"HD"


def read_number(reply: Reply) -> int | None:
    """Return the number after ``ma … v``; None when the key was not found."""
    tokens, data = reply
    if tokens[0] == b"NS":
        raise ServerError("the number was not stored")
    if data is None:
        return None
    digits = data.strip(b" ")
    if not digits.isdigit() or len(digits) > 20:
        raise ProtocolError("the answer to an arithmetic command is no number")
    return int(digits)


def read_metadata(reply: Reply) -> Metadata | None:
    """Return what ``me`` tells; None when there is no item."""
    tokens, _ = reply
    if tokens[0] == b"EN":
        return None
    # A partition's first and third part are a pair, which pyright cannot count.
    told = dict(  # pyright: ignore[reportCallIssue]
        token.partition(b"=")[::2]  # pyright: ignore[reportArgumentType]
        for token in tokens[2:]
    )
    numbers = [told.get(name, b"") for name in (b"la", b"cas", b"cls", b"size")]
    if not all(number.isdigit() and len(number) <= 20 for number in numbers):
        raise ProtocolError("ME lacks a part, or a part is no number")
    idle_seconds, cas, slab_class, item_size = map(int, numbers)
    return Metadata(
        idle_seconds=idle_seconds,
        cas=cas,
        fetched_before=told.get(b"fetch") == b"yes",
        slab_class=slab_class,
        item_size=item_size,
    )


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
