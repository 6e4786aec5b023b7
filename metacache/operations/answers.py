"""Turns replies without a stored value into results: stores, deletes, numbers, metadata. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, TypeVar

from metacache.acceleration import count_lines
from metacache.errors import ProtocolError, ServerError
from metacache.operations.results import DeleteResult, Metadata, StoreResult
from metacache.protocol.keys import K
from metacache.protocol.replies import HD_REPLY, Reply
from metacache.protocol.windows import Replies

__all__ = [
    "read_delete",
    "read_deletes",
    "read_done",
    "read_metadata",
    "read_number",
    "read_store",
    "read_stores",
]

T = TypeVar("T")

STORED: Final = StoreResult.STORED  # an enum member looked up in its class costs 400 instructions
_STORED: Final = {
    b"HD": STORED,
    b"NS": StoreResult.NOT_STORED,
    b"EX": StoreResult.EXISTS,
    b"NF": StoreResult.NOT_FOUND,
}
_DELETED: Final = {b"HD": DeleteResult.DELETED, b"NF": DeleteResult.NOT_FOUND, b"EX": DeleteResult.EXISTS}


def read_store(reply: Reply) -> StoreResult:
    """Return the result of one ``ms``."""
    return STORED if reply is HD_REPLY else _STORED[reply[0][0]]


def read_delete(reply: Reply) -> DeleteResult:
    """Return the result of one ``md``."""
    return _DELETED[reply[0][0]]


def read_stores(keys: Collection[K], replies: Replies, _: object) -> dict[K, StoreResult]:
    """Return the results of a batch of ``ms``, by key."""
    return _by_code(keys, replies, _STORED)


def read_deletes(keys: Collection[K], replies: Replies, _: object) -> dict[K, DeleteResult]:
    """Return the results of a batch of ``md``, by key."""
    return _by_code(keys, replies, _DELETED)


def _count(lines: list[bytes], line: bytes) -> int:
    return lines.count(line) if count_lines is None else count_lines(lines, line)


def _by_code(keys: Collection[K], replies: Replies, results: Mapping[bytes, T]) -> dict[K, T]:
    if _count(replies.headers, b"HD") == len(keys):
        return dict.fromkeys(keys, results[b"HD"])
    return {key: results[header.split(b" ")[0]] for key, header in zip(keys, replies.headers, strict=True) if header}


def read_done(reply: Reply) -> bool:
    """Return whether the item exists."""
    return reply[0][0] == b"HD"


def read_number(reply: Reply) -> int | None:
    """Return the number in a reply to ``ma … v``; None if the key does not exist."""
    tokens, data = reply
    if tokens[0] == b"NS":
        raise ServerError("the server did not store the number")
    if data is None:
        return None
    digits = data.strip(b" ")
    if not digits.isdigit() or len(digits) > 20:
        raise ProtocolError("the reply to an arithmetic command is not a number")
    return int(digits)


def read_metadata(reply: Reply) -> Metadata | None:
    """Return the metadata in a reply to ``me``; None if there is no item."""
    tokens, _ = reply
    if tokens[0] == b"EN":
        return None
    # pyright does not see that [::2] of a partition is a pair.
    parts = dict(  # pyright: ignore[reportCallIssue]
        token.partition(b"=")[::2]  # pyright: ignore[reportArgumentType]
        for token in tokens[2:]
    )
    numbers = [parts.get(name, b"") for name in (b"la", b"cas", b"cls", b"size")]
    if not all(number.isdigit() and len(number) <= 20 for number in numbers):
        raise ProtocolError("the reply to me lacks la, cas, cls or size, or one of them is not a number")
    idle_seconds, cas, slab_class, item_size = map(int, numbers)
    return Metadata(
        idle_seconds=idle_seconds,
        cas=cas,
        fetched_before=parts.get(b"fetch") == b"yes",
        slab_class=slab_class,
        item_size=item_size,
    )
