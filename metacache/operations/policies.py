"""Decides whether a client raises errors and reports undecodable values, or returns a miss or a fallback instead.

Counts both, and logs undecodable values without key and value. `statistics` explains why threads lose no count.
"""

from __future__ import annotations

import enum
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
from metacache.logs import logger_of
from metacache.operations.statistics import Counts, count_one
from metacache.operations.tallies import TallyCounts
from metacache.serializers.frame import Cause, Undecodable

__all__ = ["MISS", "READ", "WRITE", "ErrorPolicy", "Kind", "Miss", "UndecodablePolicy"]


@final
class Miss(enum.Enum):
    """The type of `MISS`."""

    MISS = "miss"


MISS: Final = Miss.MISS
"""Means that there is no value, where None may be a stored value."""

_REASONS: Final[dict[Cause, str]] = {
    "foreign_flags": "its client flags are not metacache's; did another client write it?",
    "wire_id": "another serializer wrote it",
    "fingerprint": "it was written for another shape of the type",
    "compressor": "it is compressed: its compressor is not installed, or append or prepend needs plain bytes",
    "decompress": "it cannot be decompressed, or is larger than the limit",
    "decode": "its bytes cannot be decoded to the type",
}


_NO_COUNTS: Final[dict[Cause, int]] = dict.fromkeys(get_args(Cause), 0)


@final
class UndecodablePolicy:
    """Counts undecodable values by cause and logs each (wire_id, fingerprint) once. A strict policy raises an error."""

    __slots__ = ("_counts", "_logged", "_reads", "_strict")

    def __init__(self, *, strict: bool, reads: TallyCounts | None = None) -> None:
        self._strict = strict
        self._reads = reads  # of an observed client
        self._counts: dict[Cause, int] = _NO_COUNTS.copy()
        self._logged: set[tuple[int, int]] = set()

    @property
    def counts(self) -> Mapping[Cause, int]:
        """The number of undecodable values by cause. A live, read-only view."""
        return MappingProxyType(self._counts)

    def record(self, found: Undecodable) -> Miss:
        """Count and log *found*; return MISS. A strict policy raises DecodeError instead."""
        count_one(self._counts, found.cause)
        if self._reads is not None:
            self._reads.undecodable += 1
        writer = (found.wire_id, found.fingerprint)
        if writer not in self._logged:
            self._logged.add(writer)  # no other thread runs between the test and this line
            logger_of("metacache.serializers").warning(
                "undecodable value (wire_id %d, fingerprint %d): %s", *writer, _REASONS[found.cause]
            )
        if self._strict:
            raise DecodeError(f"the stored value cannot be decoded: {_REASONS[found.cause]}")
        return MISS


# Errors of servers, network and pools.
FAILURES: Final = (TransportError, PoolTimeout, ServerError, ClientError, ProtocolError, AuthenticationError)
# The failures that `on_error` may suppress. The others are faults of the program or of its settings: a miss would hide
# them.
SUPPRESSIBLE: Final = (TransportError, PoolTimeout, ServerError, ProtocolError)


@final
class Kind(enum.Enum):
    """The kinds of methods that `on_error` distinguishes."""

    READ = "read"
    WRITE = "write"


READ: Final = Kind.READ
WRITE: Final = Kind.WRITE

_SUPPRESSED: Final[Mapping[str, frozenset[Kind]]] = {
    "raise": frozenset(),
    "miss": frozenset((READ,)),
    "ignore": frozenset((READ, WRITE)),
}


@final
class ErrorPolicy:
    """Which errors a client suppresses, by its ``on_error``, and how many there were. Views share the counts."""

    __slots__ = ("_counts", "_names", "_suppressed")

    def __init__(self, on_error: str, counts: Counts, names: dict[str, int]) -> None:
        self._counts = counts
        self._names = names
        self._suppressed = _SUPPRESSED[on_error]

    def view(self, on_error: str) -> ErrorPolicy:
        """Return a policy for another ``on_error`` that shares the counts."""
        return ErrorPolicy(on_error, self._counts, self._names)

    @property
    def counts(self) -> Mapping[str, int]:
        """The number of suppressed errors by class name. A live, read-only view."""
        return MappingProxyType(self._names)

    def suppresses(self, kind: Kind, error: MetacacheError) -> bool:
        """Count *error*, which ended a call; return whether a method of *kind* returns its fallback instead.

        An exception of a signal handler or of another thread is neither counted nor suppressed.
        """
        if is_injected(error):
            return False
        self.count((error,))
        return self.suppresses_all(kind, (error,))

    def suppresses_too_large(self, error: MetacacheError) -> bool:
        """Return whether *error*, a computed value too large to store, is suppressed; count it if so."""
        if READ not in self._suppressed:
            return False
        count_one(self._names, type(error).__name__)
        return True

    def count_raised(self, error: MetacacheError) -> None:
        """Count *error* of a call that raises it whatever the policy is."""
        if not is_injected(error):
            self.count((error,))

    def count(self, errors: Iterable[MetacacheError]) -> None:
        """Count the *errors* that are failures of servers, network or pools."""
        number = len([error for error in errors if isinstance(error, FAILURES)])
        self._counts.add_errors(number)

    def suppresses_all(self, kind: Kind, errors: Collection[MetacacheError]) -> bool:
        """Return whether a method of *kind* suppresses all of *errors*; if so, count them as suppressed."""
        suppressible = [error for error in errors if isinstance(error, SUPPRESSIBLE)]
        if kind not in self._suppressed or len(suppressible) < len(errors):
            return False
        for error in suppressible:
            count_one(self._names, type(error).__name__)
        return True
