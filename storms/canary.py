"""Canary values: each one says which key it belongs to, who wrote it, and how often. Pure.

The rest of a value follows from these, so a value of another key, a mixed one and a truncated one are all noticed.
"""

from __future__ import annotations

import random
from typing import Final

__all__ = ["ForeignValue", "canary", "check_canary"]

# Text that looks like replies: a parser that loses its place would take it for some.
_PATTERN: Final = b"\r\nEN\r\nHD O1\r\nVA 2 f0 O2\r\nxx\r\nMN\r\n"
_SIZES: Final = (0, 1, 10, 100, 1_000)
_MEDIUM: Final = 20_000  # bytes: several reads of the socket
_LARGE: Final = 300_000  # bytes: received into a buffer of its own


class ForeignValue(Exception):
    """A read returned a value that was never written to its key."""


def canary(key: str, writer: int, number: int, chance: random.Random) -> bytes:
    """Return a value for *key*, of a random size."""
    rarely = chance.random()
    size = _LARGE if rarely < 0.0005 else _MEDIUM if rarely < 0.01 else chance.choice(_SIZES)
    return _build(key, writer, number, size)


def check_canary(key: str, value: bytes | None) -> None:
    """Raise ForeignValue unless *value* is None or a canary of *key*."""
    if value is None:
        return
    named, *numbers = value[:100].split(b"|")[:4]
    if named != key.encode() or len(numbers) != 3 or not all(map(bytes.isdigit, numbers)):
        raise ForeignValue(key)
    writer, number, size = map(int, numbers)
    if size > _LARGE or value != _build(key, writer, number, size):
        raise ForeignValue(key)


def _build(key: str, writer: int, number: int, size: int) -> bytes:
    start = number % len(_PATTERN)
    filled = (_PATTERN * (size // len(_PATTERN) + 2))[start : start + size]
    return b"%b|%d|%d|%d|%b" % (key.encode(), writer, number, size, filled)
