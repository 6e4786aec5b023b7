"""Whether a client raises or forgives undecodable values, and errors of servers, network and pools.

Knows causes and counts; never a key, never a value. Why no count is lost is written in `statistics`.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Final, final, get_args

from metacache.errors import (
    AuthenticationError,
    ClientError,
    DecodeError,
    MetacacheError,
    PoolTimeout,
    ProtocolError,
    ServerError,
    TransportError,
)
from metacache.interrupts import is_injected
from metacache.operations.statistics import Counts, count_one
from metacache.serializers.frame import Cause, Undecodable

__all__ = ["MISS", "READ", "WRITE", "ErrorPolicy", "Kind", "Miss", "UndecodablePolicy"]

logger = logging.getLogger("metacache.serializers")


@final
class Miss(enum.Enum):
    """The type of `MISS`."""

    MISS = "miss"


MISS: Final = Miss.MISS
"""Stands for no value, where None may be one."""

_REASONS: Final[dict[Cause, str]] = {
    "foreign_flags": "its client flags are not metacache's; was it written by another client?",
    "wire_id": "it was written by another serializer",
    "fingerprint": "it was written for another shape of the type",
    "compressor": "it is compressed: its compressor is not installed, or the verb (append, prepend) needs plain bytes",
    "decompress": "it does not decompress, or would exceed the limit",
    "decode": "its bytes do not decode to the type",
}


@final
class UndecodablePolicy:
    """Counts by cause, a log line once per (wire_id, fingerprint), and in strict clients an error."""

    __slots__ = ("_counts", "_logged", "_strict")

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._counts: dict[Cause, int] = dict.fromkeys(get_args(Cause), 0)
        self._logged: set[tuple[int, int]] = set()

    @property
    def counts(self) -> Mapping[Cause, int]:
        """How many values were met, by cause; a live, read-only view."""
        return MappingProxyType(self._counts)

    def meet(self, found: Undecodable) -> Miss:
        """Count and log *found*; return MISS, or raise DecodeError if strict."""
        count_one(self._counts, found.cause)
        writer = (found.wire_id, found.fingerprint)
        if writer not in self._logged:
            self._logged.add(writer)  # no other thread runs between the line above and this
            logger.warning("undecodable value (wire_id %d, fingerprint %d): %s", *writer, _REASONS[found.cause])
        if self._strict:
            raise DecodeError(f"the stored value cannot be decoded: {_REASONS[found.cause]}")
        return MISS


# Errors of servers, network and pools.
FAILURES: Final = (TransportError, PoolTimeout, ServerError, ClientError, ProtocolError, AuthenticationError)
# Those that `on_error` may forgive: never ones that a fault of the program causes, which a miss would hide.
FORGIVABLE: Final = (TransportError, PoolTimeout, ServerError, ProtocolError)


@final
class Kind(enum.Enum):
    """The kinds of verbs that `on_error` distinguishes."""

    READ = "read"
    WRITE = "write"


READ: Final = Kind.READ
WRITE: Final = Kind.WRITE

_FORGIVEN: Final[Mapping[str, frozenset[Kind]]] = {
    "raise": frozenset(),
    "miss": frozenset((READ,)),
    "ignore": frozenset((READ, WRITE)),
}


@final
class ErrorPolicy:
    """Which errors a client forgives, by its ``on_error``, and how many there were. Views share the counts."""

    __slots__ = ("_counts", "_forgiven", "_names")

    def __init__(self, on_error: str, counts: Counts, names: dict[str, int]) -> None:
        self._counts = counts
        self._names = names
        self._forgiven = _FORGIVEN[on_error]

    def view(self, on_error: str) -> ErrorPolicy:
        """Return a policy for another ``on_error`` that shares the counts."""
        return ErrorPolicy(on_error, self._counts, self._names)

    @property
    def counts(self) -> Mapping[str, int]:
        """How many errors were forgiven, by class name; a live, read-only view."""
        return MappingProxyType(self._names)

    def forgives(self, kind: Kind, error: MetacacheError) -> bool:
        """Count *error*, which ended a call; return whether a verb of *kind* returns its fallback instead.

        An exception of a signal handler or another thread is neither counted nor forgiven.
        """
        if is_injected(error):
            return False
        self.count((error,))
        return self.forgives_all(kind, (error,))

    def count_raised(self, error: MetacacheError) -> None:
        """Count *error*, which ended a call that always raises it."""
        if not is_injected(error):
            self.count((error,))

    def count(self, errors: Iterable[MetacacheError]) -> None:
        """Count those of *errors* that are failures of servers, network or pools."""
        number = len([error for error in errors if isinstance(error, FAILURES)])
        self._counts.add_errors(number)

    def forgives_all(self, kind: Kind, errors: Collection[MetacacheError]) -> bool:
        """Return whether a verb of *kind* forgives all of *errors*; count them as forgiven if so."""
        forgivable = [error for error in errors if isinstance(error, FORGIVABLE)]
        if kind not in self._forgiven or len(forgivable) < len(errors):
            return False
        for error in forgivable:
            count_one(self._names, type(error).__name__)
        return True
