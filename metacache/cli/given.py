"""Keys, TTLs and numbers as the user writes them, and bytes as JSON shows them. No I/O."""

from __future__ import annotations

import base64
import binascii
import os
from argparse import ArgumentTypeError
from typing import Final

from metacache.cli.messagepack import Shown
from metacache.errors import InvalidArgumentError, InvalidKeyError
from metacache.protocol.keys import Key

__all__ = ["count", "interval", "json_bytes", "key_of", "raw_of", "seconds_of"]


def key_of(argument: str, *, is_base64: bool) -> Key:
    """Return the key that the command line gives as *argument*. Raises InvalidKeyError for invalid base64.

    Bytes that are not UTF-8 arrive as surrogates. They become the bytes that the user gave.
    """
    if is_base64:
        try:
            return base64.b64decode(argument, validate=True)
        except binascii.Error:
            raise InvalidKeyError("the key is not valid base64") from None
    raw = os.fsencode(argument)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def count(text: str) -> int:
    """Return *text* as a number of at least 1. Raises ArgumentTypeError."""
    if not (text.isascii() and text.isdecimal() and int(text) >= 1):
        raise ArgumentTypeError("it is a whole number of at least 1")
    return int(text)


def interval(text: str) -> float:
    """Return *text* as seconds, from a hundredth to a day. Raises ArgumentTypeError, and ValueError if not a number."""
    seconds = float(text)
    if not 0.01 <= seconds <= 86400:
        raise ArgumentTypeError("it is from 0.01 to 86400 seconds")
    return seconds


def raw_of(key: Key) -> bytes:
    """Return the bytes of *key*."""
    return key.encode() if isinstance(key, str) else key


def json_bytes(name: str, raw: bytes) -> dict[str, Shown]:
    """Return *raw* for JSON: as text under *name* if it is UTF-8, else as base64 under ``<name>_base64``."""
    try:
        return {name: raw.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(raw).decode("ascii")}


def seconds_of(text: str) -> int | None:
    """Return the TTL that *text* gives: seconds, or a number with s, m, h or d; None for ``never``.

    Raises InvalidArgumentError for another text.
    """
    if text == "never":
        return None
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "s")
    if not (number.isascii() and number.isdigit() and len(number) <= 10):
        raise InvalidArgumentError("a TTL is a number of seconds, such as 300, 5m, 2h or 7d, or the word never")
    return int(number) * _UNITS[unit]


_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
