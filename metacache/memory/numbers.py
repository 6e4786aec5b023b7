"""Numbers as memcached parses them: with C's strtol family, which accepts white space, signs and wrapped values. Pure.

The names are those of memcached's util.c. Each function returns None where the C function fails.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["safe_strtol", "safe_strtoul", "safe_strtoull"]

_leading = re.compile(rb"\s*([+-]?)([0-9]+)(?=[\s\0]|\Z)").match

LONG_MAX: Final = 2**63 - 1
U64: Final = 2**64
U32: Final = 2**32
I32: Final = 2**31


def safe_strtol(text: bytes) -> int | None:
    """Return the signed number at the beginning of *text*, wrapped to 32 bits."""
    found = _leading(text)
    if not found:
        return None
    number = _digits(found[2])
    number = -number if found[1] == b"-" else number
    return (number + I32) % U32 - I32 if -LONG_MAX - 1 <= number <= LONG_MAX else None


def safe_strtoull(text: bytes) -> int | None:
    """Return the unsigned 64-bit number at the beginning of *text*. A small negative number wraps."""
    found = _leading(text)
    if not found:
        return None
    number = _digits(found[2])
    if number >= U64:
        return None
    number = -number % U64 if found[1] == b"-" else number
    # memcached looks for a minus only if the number is in the upper half, and then up to the first NUL.
    return None if number > LONG_MAX and b"-" in text.partition(b"\0")[0] else number


def safe_strtoul(text: bytes) -> int | None:
    """Return the unsigned number at the beginning of *text*, wrapped to 32 bits."""
    number = safe_strtoull(text)
    return None if number is None else number % U32


def _digits(text: bytes) -> int:
    """Return the number. Too many digits give a number that every caller refuses; `int` would take seconds or raise."""
    digits = text.lstrip(b"0")
    return int(digits or b"0") if len(digits) <= 20 else U64
