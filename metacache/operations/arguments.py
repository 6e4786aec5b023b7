"""Callers' arguments other than keys and values: checked, and turned into what the protocol takes.

Every function is pure and raises before anything is sent: InvalidArgumentError, or InvalidTypeError for a wrong type.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable
from datetime import timedelta
from typing import Final, Literal, TypeAlias, final

from metacache.errors import InvalidArgumentError, InvalidTypeError
from metacache.interrupts import is_own
from metacache.protocol.flags import I32_MAX, U64_MAX
from metacache.protocol.keys import K
from metacache.settings import shown

__all__ = ["DEFAULT", "Default", "Ttl", "exptime", "key_list", "seconds", "u64", "unsigned_cas"]

Ttl: TypeAlias = int | timedelta | None
"""Seconds to live, or a timedelta (a fraction of a second rounds up); None: never expires."""


@final
class Default(enum.Enum):
    """The type of `DEFAULT`: ``ttl: Ttl | Default = DEFAULT`` lets a function of yours forward what was left out."""

    DEFAULT = "default"


DEFAULT: Final[Literal[Default.DEFAULT]] = Default.DEFAULT
"""Stands for an argument that was left out, where None means something."""

# protocol.txt, "Expiration times": a larger number is read as a time since 1970.
MAX_RELATIVE: Final = 60 * 60 * 24 * 30


def seconds(ttl: int | timedelta, name: str = "ttl") -> int:
    """Return *ttl* as whole seconds, at least 1."""
    if isinstance(ttl, timedelta):
        whole = math.ceil(ttl.total_seconds())
    elif isinstance(ttl, bool) or not isinstance(ttl, int):
        raise InvalidTypeError(f"{name} is an int of seconds from now, a timedelta or None, not {type(ttl).__name__}")
    else:
        whole = ttl
    if whole < 1:
        raise InvalidArgumentError(
            f"{name} is at least one second, not {shown(whole)}; to never expire give None, to expire now delete"
        )
    return whole


def exptime(ttl: Ttl, now: float, name: str = "ttl") -> int:
    """Return the protocol's expiration time for *ttl* at *now* (``time.time()``).

    0 is never, up to 30 days are relative, what is beyond is absolute.
    """
    if ttl is None:
        return 0
    whole = seconds(ttl, name)
    if whole <= MAX_RELATIVE:
        return whole
    if int(now) + whole > I32_MAX:
        # A timestamp ends there too, whether it counts seconds, milliseconds or nanoseconds.
        hint = "" if isinstance(ttl, timedelta) else f"; {name} is seconds from now, not a timestamp"
        raise InvalidArgumentError(
            f"{name} of {shown(whole)} seconds ends after 2038-01-19, the last day that memcached can store{hint}"
        )
    return int(now) + whole


def u64(number: int, name: str) -> int:
    """Return *number* if it is an int between 0 and 2**64-1."""
    if isinstance(number, bool) or not isinstance(number, int):
        raise InvalidTypeError(f"{name} is an int, not {type(number).__name__}")
    if not 0 <= number <= U64_MAX:
        raise InvalidArgumentError(f"{name} is between 0 and 2**64-1, not {shown(number)}")
    return number


def unsigned_cas(cas: int) -> int:
    """Return *cas* if it can match an item."""
    if u64(cas, "cas") == 0:
        raise InvalidArgumentError(
            "cas 0 matches no item; if an item was read with it, its server runs without CAS (-C)"
        )
    return cas


def key_list(keys: Iterable[K]) -> list[K]:
    """Return *keys* without duplicates, in order.

    A bare str or bytes is refused: it would be a list of its characters.
    """
    if isinstance(keys, str | bytes):
        raise InvalidTypeError(f"keys is an iterable of keys, not one {type(keys).__name__}; write [key]")
    try:
        given = list(keys)
        # A set tells at half the price whether there is anything to do.
        return given if len(set(given)) == len(given) else list(dict.fromkeys(given))
    except TypeError as error:
        if not is_own(error):
            raise
        raise InvalidTypeError(f"keys is an iterable of str or bytes: {error}") from None
