"""`Stampede`: how callers share one computation. `Plan`: the same for one time to live, in numbers of the protocol.

Pure: chance is passed in as a number between 0 and 1.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast, final

import attrs

from metacache.errors import InvalidArgumentError, InvalidTypeError
from metacache.operations.arguments import MAX_RELATIVE, Ttl, ttl_seconds
from metacache.settings import LONGEST_WAIT, check_seconds, number_text

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["FOREVER", "STAMPEDE", "Plan", "Stampede"]

# A lease of 1 second lasts 0.65 to 1.23 seconds: the server's clock ticks in whole seconds.
SHORTEST_LEASE: Final = 2
LARGEST_SHARE: Final = 0.5  # of the time to live, for refresh-ahead
LARGEST_JITTER: Final = 0.25
FOREVER: Final = math.inf

OnBusy: TypeAlias = Literal["compute", "raise"]

# Attribute[Any] in validators: attrs takes the attribute of a union for that of its first member.


def _lease(_: Stampede, field: attrs.Attribute[Any], value: object) -> None:  # Any: as above
    whole = _whole(field.name, value)
    if not SHORTEST_LEASE <= whole <= MAX_RELATIVE:
        raise InvalidArgumentError(
            f"Stampede.{field.name} is {SHORTEST_LEASE} seconds to 30 days, not {number_text(whole)} seconds"
        )


def _stale(_: Stampede, field: attrs.Attribute[Any], value: object) -> None:  # Any: as above
    whole = _whole(field.name, value)
    if not 0 <= whole <= MAX_RELATIVE:
        raise InvalidArgumentError(f"Stampede.{field.name} is 0 seconds to 30 days, not {number_text(whole)} seconds")


def _whole(name: str, value: object) -> int:
    if isinstance(value, timedelta):
        return math.ceil(value.total_seconds())
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidTypeError(f"Stampede.{name} is an int of seconds or a timedelta, not {type(value).__name__}")
    return value


def _wait(_: Stampede, field: attrs.Attribute[Any], value: object) -> None:  # Any: as above
    if value is not None:
        number = value.total_seconds() if isinstance(value, timedelta) else value
        check_seconds(f"Stampede.{field.name}", number, LONGEST_WAIT, may_be_zero=True)


def _ahead(_: Stampede, field: attrs.Attribute[Any], value: object) -> None:  # Any: as above
    if isinstance(value, timedelta):
        check_seconds(f"Stampede.{field.name}", value.total_seconds(), MAX_RELATIVE, may_be_zero=True)
        return
    _share(f"Stampede.{field.name}", value, LARGEST_SHARE, " of the ttl, or a timedelta")


def _jitter(_: Stampede, field: attrs.Attribute[float], value: object) -> None:
    _share(f"Stampede.{field.name}", value, LARGEST_JITTER, " of the ttl")


def _share(name: str, value: object, largest: float, of: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidTypeError(f"{name} is a share from 0 to {largest}{of}, not {type(value).__name__}")
    if not 0 <= value <= largest:
        raise InvalidArgumentError(f"{name} is a share from 0 to {largest}{of}, not {number_text(value)}")


def _on_busy(_: Stampede, field: attrs.Attribute[OnBusy], value: object) -> None:
    if value not in ("compute", "raise"):
        raise InvalidArgumentError(f"Stampede.{field.name} is 'compute' or 'raise', not {value!r}")


def _classes(_: Stampede, field: attrs.Attribute[tuple[type[Exception], ...]], value: object) -> None:
    classes = cast("tuple[object, ...]", value) if isinstance(value, tuple) else (None,)  # its members are checked here
    if not all(isinstance(each, type) and issubclass(each, Exception) for each in classes):
        raise InvalidTypeError(f"Stampede.{field.name} is a tuple of Exception classes")


def _background(_: Stampede, field: attrs.Attribute[Any], value: object) -> None:  # Any: as above
    if isinstance(value, bool):
        return
    from concurrent.futures import Executor  # late: a policy without an executor does not need it

    if not isinstance(value, Executor):
        raise InvalidTypeError(f"Stampede.{field.name} is a bool or an Executor, not {type(value).__name__}")


@final
@attrs.frozen(kw_only=True)
class Stampede:
    """How the callers of one key share one computation of its value.

    Attributes:
        lease: seconds that the computing caller has to store its value, 2 seconds to 30 days. A result that comes later
            is returned to its caller and not stored.
        wait: seconds that one call waits in all for another caller's value; None: two leases; 0: not at all.
        on_busy: when the wait is over: "compute" the value here, or "raise" BusyError.
        refresh_ahead: before the value expires, one caller computes it again while the others still get it. A share of
            the ttl from 0 to 0.5, or a timedelta, of which at most half of the ttl is used. 0: off.
        serve_stale: seconds for which an expired value is kept. While one caller computes, the others get the old
            value.
        stale_on: exceptions of the factory that an old value covers: it is returned, and the exception is logged.
        jitter: a share of the ttl from 0 to 0.25. Each store lives up to this much shorter, by chance, so that values
            that were stored together do not expire together.
        background: refresh an old value beside the caller, which gets the old one immediately. In the asyncio client
            True: a task that the client owns. In the blocking client an Executor, which stays the caller's.

    Raises InvalidArgumentError (InvalidTypeError) that names the attribute.
    """

    lease: int | timedelta = attrs.field(default=10, validator=_lease)
    wait: float | timedelta | None = attrs.field(default=None, validator=_wait)
    on_busy: OnBusy = attrs.field(default="compute", validator=_on_busy)
    refresh_ahead: float | timedelta = attrs.field(default=0.1, validator=_ahead)
    serve_stale: int | timedelta = attrs.field(default=0, validator=_stale)
    stale_on: tuple[type[Exception], ...] = attrs.field(default=(Exception,), validator=_classes)
    jitter: float = attrs.field(default=0.05, validator=_jitter)
    background: bool | Executor = attrs.field(default=False, validator=_background)


STAMPEDE: Final = Stampede()


@final
@attrs.frozen(kw_only=True)
class Plan:
    """A policy for one time to live, in whole seconds.

    Attributes:
        policy: the policy.
        lease: the N of an ask.
        wait: seconds that one call waits in all.
        fresh: seconds for which a stored value is fresh; infinity: it never expires.
        stale: seconds for which it is kept after that; 0 for a value that never expires.
        recache: the R of an ask: a reader of a value that has less than this left is to compute it again; 0: none.
        jitter: seconds by which a store may live shorter.
    """

    policy: Stampede
    lease: int
    wait: float
    fresh: float
    stale: int
    recache: int
    jitter: int

    @classmethod
    def of(cls, policy: Stampede, ttl: Ttl) -> Plan:
        """Return the plan of *policy* for values that live for *ttl*. Raises InvalidArgumentError for a bad *ttl*."""
        lease = _whole("lease", policy.lease)
        fresh = FOREVER if ttl is None else ttl_seconds(ttl)
        stale = 0 if ttl is None else _whole("serve_stale", policy.serve_stale)
        return cls(
            policy=policy,
            lease=lease,
            wait=_wait_seconds(policy.wait, lease),
            fresh=fresh,
            stale=stale,
            recache=_recache(policy.refresh_ahead, fresh, stale),
            jitter=0 if fresh == FOREVER else int(policy.jitter * fresh),
        )

    def life(self, chance: float) -> int | None:
        """Return the time to live of a store, in seconds; None: it never expires."""
        if self.fresh == FOREVER:
            return None
        return max(int(self.fresh) - round(self.jitter * chance), 1) + self.stale


def _wait_seconds(wait: float | timedelta | None, lease: int) -> float:
    if wait is None:
        return 2.0 * lease
    return wait.total_seconds() if isinstance(wait, timedelta) else float(wait)


def _recache(ahead: float | timedelta, fresh: float, stale: int) -> int:
    """Return the R of an ask. The server compares strictly: it hands out the win when less than R seconds are left."""
    if fresh == FOREVER:
        return 0  # the server never hands out the win of an item without a time to live
    early = ahead.total_seconds() if isinstance(ahead, timedelta) else ahead * fresh
    whole = stale + int(min(early, fresh / 2))
    # A larger number than 30 days would be read as a time since 1970.
    return min(whole + 1, MAX_RELATIVE) if whole else 0
