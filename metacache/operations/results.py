"""The results of methods that return more than a plain value. Enums, and frozen classes that hide values in reprs."""

from __future__ import annotations

import enum
from typing import Generic, TypeVar, final

import attrs

from metacache.errors import MetacacheError
from metacache.marks import override
from metacache.observe import Source
from metacache.protocol.keys import K

__all__ = ["Computed", "DeleteResult", "Item", "Metadata", "Outcomes", "Source", "StoreResult"]

T = TypeVar("T")


@final
class StoreResult(enum.Enum):
    """The result of a store. Truthy if the value was stored."""

    STORED = "stored"
    NOT_STORED = "not_stored"
    """`add` found the key, `replace` did not find it, or `append` or `prepend` found no item that they can extend."""
    EXISTS = "exists"
    """`compare_and_set` found another CAS: another writer stored in between."""
    NOT_FOUND = "not_found"
    """`compare_and_set` found no item."""
    FAILED = "failed"
    """A server, the network or a pool failed, with ``on_error="ignore"``. The value may be stored or not."""

    def __bool__(self) -> bool:
        return self is StoreResult.STORED


@final
class DeleteResult(enum.Enum):
    """The result of a delete. Truthy if the item was deleted."""

    DELETED = "deleted"
    NOT_FOUND = "not_found"
    EXISTS = "exists"
    """The item has another CAS than ``cas=``: another writer stored in between. It is not deleted."""
    FAILED = "failed"
    """A server, the network or a pool failed, with ``on_error="ignore"``. The item may be deleted or not."""

    def __bool__(self) -> bool:
        return self is DeleteResult.DELETED


@final
@attrs.frozen
class Item(Generic[T]):
    """A stored value and its metadata.

    Attributes:
        value: the T.
        cas: the CAS, for `compare_and_set`; 0 if the server runs without CAS (``memcached -C``).
        ttl: the seconds that are left; None: the item never expires.
        size: the size of the stored bytes, after compression.
        client_flags: the 32 bits that are stored with the value.
        fetched_before: True if the item was read before this read.
        idle_seconds: seconds since the item was last read or written.
        stale: True if `invalidate` marked the item.
        won: True if this read got the win flag: its caller should store a fresh value. Other readers get the stale one.
    """

    value: T = attrs.field(repr=False)  # values stay out of reprs, and so out of logs
    cas: int
    ttl: int | None
    size: int
    client_flags: int
    fetched_before: bool
    idle_seconds: int
    stale: bool
    won: bool


@final
@attrs.frozen
class Metadata:
    """The metadata of an item, which `inspect` returns without reading the item.

    Attributes:
        idle_seconds: seconds since the item was last read or written.
        cas: the CAS; 0 if the server runs without CAS (``memcached -C``).
        fetched_before: True if the item was ever read.
        slab_class: the number of its slab class.
        item_size: bytes that the item takes in the server, with header and key.
    """

    idle_seconds: int
    cas: int
    fetched_before: bool
    slab_class: int
    item_size: int


@final
@attrs.frozen(repr=False)
class Outcomes(Generic[K, T]):
    """The results and the errors of a batch, by key. A key that a read did not find is in neither of them."""

    results: dict[K, T]
    errors: dict[K, MetacacheError]

    @override
    def __repr__(self) -> str:
        return f"<Outcomes: {self}>"  # numbers only: values stay out of reprs

    @override
    def __str__(self) -> str:
        return f"{len(self.results)} results, {len(self.errors)} errors"


@final
@attrs.frozen
class Computed(Generic[T]):
    """A value, and where it came from.

    Attributes:
        value: the T.
        source: see `Source`.
    """

    value: T = attrs.field(repr=False)  # a repr never shows a value
    source: Source
