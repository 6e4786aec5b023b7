"""What verbs return beside plain values. Frozen; knows nothing of how they came about."""

from __future__ import annotations

import enum
from typing import Generic, TypeVar, final

import attrs
from typing_extensions import override

from metacache.errors import MetacacheError
from metacache.protocol.keys import K

__all__ = ["DeleteResult", "Item", "Metadata", "Outcomes", "StoreResult"]

T = TypeVar("T")


@final
class StoreResult(enum.Enum):
    """What became of a store. True as a bool when the value was stored."""

    STORED = "stored"
    NOT_STORED = "not_stored"
    """`add` found the key, `replace` did not, `append` or `prepend` found nothing that they can extend."""
    EXISTS = "exists"
    """`compare_and_set` found another CAS: somebody else stored meanwhile."""
    NOT_FOUND = "not_found"
    """`compare_and_set` found no item."""
    FAILED = "failed"
    """With ``on_error="ignore"``: a server, the network or a pool failed. The value may be stored or not."""

    def __bool__(self) -> bool:
        return self is StoreResult.STORED


@final
class DeleteResult(enum.Enum):
    """What became of a delete. True as a bool when the item was deleted."""

    DELETED = "deleted"
    NOT_FOUND = "not_found"
    EXISTS = "exists"
    """With ``cas=``: somebody else stored meanwhile; the item is still there."""
    FAILED = "failed"
    """With ``on_error="ignore"``: a server, the network or a pool failed. The item may be deleted or not."""

    def __bool__(self) -> bool:
        return self is DeleteResult.DELETED


@final
@attrs.frozen
class Item(Generic[T]):
    """A value with what the server knows of it.

    Attributes:
        value: the T.
        cas: its CAS, for `compare_and_set`; 0 when the server runs without CAS (``memcached -C``).
        ttl: seconds it has left, None: it never expires.
        size: bytes as stored (compressed, if it is).
        client_flags: the 32 bits stored beside it.
        fetched_before: whether anybody read it before this read.
        idle_seconds: seconds since it was last read or written.
        stale: `invalidate` marked it.
        won: this reader is the one that is to store a fresh value; the others get the stale one meanwhile.
    """

    value: T = attrs.field(repr=False)  # a repr never shows a value
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
    """What `me` tells of an item without reading it.

    Attributes:
        idle_seconds: seconds since it was last read or written.
        cas: its CAS, 0 when the server runs without.
        fetched_before: whether anybody ever read it.
        slab_class: the number of the slab class it lies in.
        item_size: bytes it takes in the server, header and key included.
    """

    idle_seconds: int
    cas: int
    fetched_before: bool
    slab_class: int
    item_size: int


@final
@attrs.frozen(repr=False)
class Outcomes(Generic[K, T]):
    """A batch key by key: what succeeded in ``results``, what failed in ``errors``.

    A key that was just not found is in neither.
    """

    results: dict[K, T]
    errors: dict[K, MetacacheError]

    @override
    def __repr__(self) -> str:
        return f"<Outcomes: {self}>"  # counts: a repr never shows a value

    @override
    def __str__(self) -> str:
        return f"{len(self.results)} results, {len(self.errors)} errors"
