"""Checks arguments other than keys and values, and converts them to what the protocol takes. Pure.

The functions run before anything is sent. They raise InvalidArgumentError, or InvalidTypeError for a wrong type.
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
from metacache.settings import number_text

__all__ = ["DEFAULT", "Default", "Ttl", "check_cas", "distinct_keys", "exptime", "listed_keys", "ttl_seconds", "u64"]

Ttl: TypeAlias = int | timedelta | None
"""A TTL: seconds, or a timedelta (a fraction of a second is rounded up); None: the item never expires."""


@final
class Default(enum.Enum):
    """The type of `DEFAULT`. A wrapper with ``ttl: Ttl | Default = DEFAULT`` forwards an argument that was left out."""

    DEFAULT = "default"


DEFAULT: Final[Literal[Default.DEFAULT]] = Default.DEFAULT
"""The default of an argument for which None is a valid value."""

# protocol.txt, "Expiration times": a larger number is read as a time since 1970.
MAX_RELATIVE: Final = 60 * 60 * 24 * 30


def ttl_seconds(ttl: int | timedelta, name: str = "ttl") -> int:
    """Return *ttl* as whole seconds, at least 1."""
    if isinstance(ttl, timedelta):
        whole = math.ceil(ttl.total_seconds())
    elif isinstance(ttl, bool) or not isinstance(ttl, int):
        raise InvalidTypeError(f"{name} is an int of seconds from now, a timedelta or None, not {type(ttl).__name__}")
    else:
        whole = ttl
    if whole < 1:
        raise InvalidArgumentError(
            f"{name} is at least one second, not {number_text(whole)}; None never expires; to expire an item, delete it"
        )
    return whole


def exptime(ttl: Ttl, now: float, name: str = "ttl") -> int:
    """Return the protocol's expiration time for *ttl* at *now* (``time.time()``).

    0 means never. Up to 30 days the number is relative to now, beyond that it is a time since 1970.
    """
    if ttl is None:
        return 0
    whole = ttl_seconds(ttl, name)
    if whole <= MAX_RELATIVE:
        return whole
    if int(now) + whole > I32_MAX:
        # The caller may have passed a timestamp, in seconds, milliseconds or nanoseconds: it is too large as well.
        hint = "" if isinstance(ttl, timedelta) else f"; {name} is seconds from now, not a timestamp"
        raise InvalidArgumentError(
            f"{name} of {number_text(whole)} seconds ends after 2038-01-19, the last day that memcached supports{hint}"
        )
    return int(now) + whole


def u64(number: int, name: str) -> int:
    """Return *number*. Raises unless it is an int from 0 to 2**64-1."""
    if isinstance(number, bool) or not isinstance(number, int):
        raise InvalidTypeError(f"{name} is an int, not {type(number).__name__}")
    if not 0 <= number <= U64_MAX:
        raise InvalidArgumentError(f"{name} is from 0 to 2**64-1, not {number_text(number)}")
    return number


def check_cas(cas: int) -> int:
    """Return *cas*. Raises unless it is an int from 1 to 2**64-1, for no item matches 0."""
    if u64(cas, "cas") == 0:
        raise InvalidArgumentError("cas 0 matches no item; if `get_item` returned 0, the server runs without CAS (-C)")
    return cas


def listed_keys(keys: Iterable[K]) -> list[K]:
    """Return *keys* as a new list. Raises InvalidTypeError for a single str or bytes, and if it is not iterable."""
    if isinstance(keys, str | bytes):
        raise InvalidTypeError(f"keys is an iterable of keys, not one {type(keys).__name__}; write [key]")
    try:
        return list(keys)
    except TypeError as error:
        if not is_own(error):
            raise
        raise _not_keys(error) from None


def distinct_keys(given: list[K]) -> list[K]:
    """Return the *given* keys without duplicates, in order. Raises InvalidTypeError if one cannot be hashed."""
    try:
        # A set shows at half the cost of dict.fromkeys whether there are duplicates.
        return given if len(set(given)) == len(given) else list(dict.fromkeys(given))
    except TypeError as error:
        if not is_own(error):
            raise
        raise _not_keys(error) from None


def _not_keys(error: TypeError) -> InvalidTypeError:
    return InvalidTypeError(f"keys is an iterable of str or bytes: {error}")
