"""What a client makes of trouble: undecodable values, and errors of servers and network in reads. Misses, or errors.

Knows causes and counts; never a key, never a value. Counts go up by one load and one store with no call between them,
so under the GIL no thread's count is lost.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, final, get_args

from metacache.errors import DecodeError, MetacacheError, PoolTimeout, ProtocolError, ServerError, TransportError
from metacache.serializers.frame import Cause, Undecodable

__all__ = ["MISS", "ErrorPolicy", "Miss", "UndecodablePolicy"]

logger = logging.getLogger("metacache.serializers")


@final
class Miss(enum.Enum):
    """The type of `MISS`."""

    MISS = "miss"


MISS: Final = Miss.MISS
"""Stands for no value, where None may be one."""

_TOLD: Final[dict[Cause, str]] = {
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
        self._counts[found.cause] += 1
        who = (found.wire_id, found.fingerprint)
        if who not in self._logged:
            self._logged.add(who)
            logger.warning("undecodable value (wire_id %d, fingerprint %d): %s", *who, _TOLD[found.cause])
        if self._strict:
            raise DecodeError(f"the stored value is none of this client's: {_TOLD[found.cause]}")
        return MISS


@final
class ErrorPolicy:
    """Which errors of a read are misses under ``on_error="miss"``, and how many there were, by class name."""

    __slots__ = ("_counts",)

    # Never Closed, Authentication or Invalid*: those are faults of the program, which a miss would hide.
    misses: Final = (TransportError, PoolTimeout, ServerError, ProtocolError)

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    @property
    def counts(self) -> Mapping[str, int]:
        """How many errors became misses, by class name; a live, read-only view."""
        return MappingProxyType(self._counts)

    def count(self, error: MetacacheError) -> None:
        """Count one error that becomes a miss."""
        name = type(error).__name__
        self._counts[name] = self._counts.get(name, 0) + 1
