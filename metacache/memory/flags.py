"""The flags of a request as memcached parses them (proto_text.c, _meta_flag_preparse), from the table of the client.

A parsed set of flags does not depend on the key or the opaque, so `parse_flags` keeps the most recent ones. It parses
no reply and reads no clock.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final, final

import attrs

from metacache.memory.numbers import safe_strtol, safe_strtoul, safe_strtoull
from metacache.protocol.flags import REQUEST_FLAGS

__all__ = ["BAD_LINE", "DECODING", "MAX_OPAQUE_TOKEN", "RequestFlags", "parse_flags"]

BAD_LINE: Final = b"CLIENT_ERROR bad command line format"
DECODING: Final = b"CLIENT_ERROR error decoding key"
BAD_TOKEN: Final = b"CLIENT_ERROR bad token in command line format"
MAX_OPAQUE_TOKEN: Final = 32  # bytes, with the letter O

KNOWN: Final = frozenset(flag.letter for flag in REQUEST_FLAGS)


@final
@attrs.frozen
class RequestFlags:
    """The flags of one request.

    Attributes:
        order: the letter and the token of each flag, in the order of the request.
        numbers: the numbers of the flags with a numeric token, by letter.
        letters: all letters.
        mode: the letter of the M flag; empty without one.
        error: the error line if the flags are wrong.
        error_after_key: the error line if the key cannot be decoded.
        delays_bump: the reply shows the time of the last access before this request.
    """

    order: tuple[tuple[bytes, bytes], ...]
    numbers: dict[bytes, int]
    letters: frozenset[bytes]
    mode: bytes
    error: bytes | None
    error_after_key: bytes
    delays_bump: bool

    def has(self, letter: bytes) -> bool:
        """Return whether the request has the flag *letter*."""
        return letter in self.letters


# The parser of each numeric token, and its error line. Without one, the error line of an earlier flag stays.
_NUMERIC: Final[dict[bytes, tuple[Callable[[bytes], int | None], bytes | None]]] = {
    b"N": (safe_strtol, BAD_TOKEN),
    b"T": (safe_strtol, BAD_TOKEN),
    b"R": (safe_strtol, BAD_TOKEN),
    b"C": (safe_strtoull, BAD_TOKEN),
    b"E": (safe_strtoull, BAD_TOKEN),
    b"J": (safe_strtoull, b"CLIENT_ERROR invalid numeric initial value"),
    b"D": (safe_strtoull, b"CLIENT_ERROR invalid numeric delta value"),
    b"F": (safe_strtoul, None),
}
_LOCKING: Final = frozenset((b"N", b"T", b"R", b"l", b"h"))


@lru_cache(maxsize=1024)
def parse_flags(tokens: tuple[bytes, ...]) -> RequestFlags:
    """Return the flags of *tokens*, the words behind the key, or behind the size of an ms."""
    order: list[tuple[bytes, bytes]] = []
    numbers: dict[bytes, int] = {}
    seen: set[bytes] = set()
    mode, text, after_key = b"", None, DECODING
    is_wrong = False
    for token in tokens:
        letter, rest = token[:1], token[1:]
        fatal = _fatal(letter, seen)
        if fatal is not None:
            text = after_key = fatal
            is_wrong = True
            break
        seen.add(letter)
        order.append((letter, rest))
        problem: bytes | None = None
        if letter in _NUMERIC:
            parse, problem = _NUMERIC[letter]
            number = parse(rest)
            if number is not None:
                numbers[letter] = number
                continue
        elif letter == b"M" and len(rest) == 1:
            mode = rest
            continue
        elif letter == b"M":
            problem = b"CLIENT_ERROR incorrect length for M token"
        else:
            continue
        is_wrong = True
        text = problem or text
        after_key = problem if problem is not None and b"b" in seen else after_key
    error = (text or BAD_LINE) if is_wrong else None
    return RequestFlags(tuple(order), numbers, frozenset(seen), mode, error, after_key, not _LOCKING.isdisjoint(seen))


def _fatal(letter: bytes, seen: set[bytes]) -> bytes | None:
    """Return the error line for a flag at which memcached stops parsing."""
    if letter >= b"\x7f" or letter in seen:
        return b"CLIENT_ERROR duplicate flag"
    return None if letter in KNOWN else b"CLIENT_ERROR invalid flag"
