"""Replies as values: their header lines, their flags, the opaques, and the shortcuts for one request at a time.

The grammar of replies is that of protocol.txt ("Meta Commands"). The parser is in `expectations`, the meaning of error
lines in `error_lines`. Two bounded tables keep parsed header lines, for all connections.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, cycle
from typing import Final, TypeAlias

from metacache.errors import ProtocolError
from metacache.protocol.blocks import LARGE_BLOCK, ReceivedBlock
from metacache.protocol.commands import Command

__all__ = [
    "HD_REPLY",
    "MAX_HEADER",
    "NO_OPAQUE",
    "OPAQUES",
    "Opaque",
    "Reply",
    "find_flag",
    "flag_number",
    "flag_ttl",
    "half_reply",
    "known_headers",
    "known_sizes",
    "opaques_from",
    "parse_size",
    "return_flags",
    "value_header",
    "whole_reply",
]

MAX_HEADER: Final = 2048  # bytes; the server builds a header in 1024, so a longer line is a broken stream


Reply: TypeAlias = tuple[list[bytes], bytes | None]
"""A reply that is not an error: the header split at spaces (its first token is the code), and the data block or None.

A plain tuple: each request makes one, and a class with an ``__init__`` costs 1,700 instructions more.
"""


HD_REPLY: Final[Reply] = ([b"HD"], None)

Opaque: TypeAlias = tuple[bytes, bytes, bytes, bytes]
"""The forms of one opaque.

Behind a request line (``b" O7\\r\\n"``), as the token of a reply (``b"O7"``), as the most common reply
(``b"HD O7\\r\\n"``), and behind a header line (``b" O7"``).
"""

# Each connection takes opaques from this table in turn. A ready one costs 300 instructions, formatting one 1,200. More
# opaques than requests in flight on one connection are enough to notice a reply in a wrong place.
# One call formats all of the tokens, and the other forms are joined from them.
_COUNT: Final = 2048
OPAQUES: Final[tuple[Opaque, ...]] = tuple(
    [
        (b" " + token + b"\r\n", token, b"HD " + token + b"\r\n", b" " + token)
        for token in (b"O%d " * _COUNT % tuple(range(_COUNT))).split()
    ]
)
# The table in parts, and behind each part those that follow it in turn. A new connection begins within a part, and
# copies the rest of that part only. A copy of half of the table would take 15,000 instructions.
_PART: Final = 64
_PARTS: Final = [OPAQUES[start : start + _PART] for start in range(0, _COUNT, _PART)]
_TURNS: Final = [(part, _PARTS[at:] + _PARTS[:at]) for at, part in enumerate(_PARTS, 1)]
NO_OPAQUE: Final[Opaque] = (b"\r\n", b"", b"HD\r\n", b"")


def opaques_from(first: int) -> Iterator[Opaque]:
    """Return an endless iterator over OPAQUES, which begins with the one at *first* (modulo their number).

    Only C code runs when it is advanced, so that no signal handler's exception can end it.
    """
    part, later = _TURNS[first // _PART % len(_TURNS)]
    return chain(part[first % _PART :], chain.from_iterable(cycle(later)))


def find_flag(tokens: list[bytes], letter: bytes) -> bytes | None:
    """Return the rest of the first of *tokens* that begins with *letter*; None if there is none.

    *tokens*: the return flags only (`return_flags`). A size or a code is not a flag.
    """
    for token in tokens:
        if token[:1] == letter:
            return token[1:]
    return None


def return_flags(reply: Reply) -> list[bytes]:
    """Return the return flags of *reply*: its tokens without the code, and without the size of a VA."""
    tokens, _ = reply
    return tokens[2:] if tokens[0] == b"VA" else tokens[1:]


def flag_number(tokens: list[bytes], letter: bytes) -> int:
    """Return the number of the return flag *letter*. Raises ProtocolError if it is missing or not a number."""
    token = find_flag(tokens, letter)
    if token is None or not token.isdigit() or len(token) > 20:
        raise ProtocolError(f"the reply lacks the flag {letter.decode()}, or the flag is not a number")
    return int(token)


def flag_ttl(tokens: list[bytes]) -> int | None:
    """Return the TTL in the return flags, in seconds; None if the item never expires. Raises as `flag_number`."""
    if find_flag(tokens, b"t") == b"-1":
        return None
    left = flag_number(tokens, b"t")
    return 0 if left >= 2**31 else left  # the server sends the negative TTL of an expired item as an unsigned number


def parse_size(code: bytes, digits: bytes, limit: int) -> int:
    """Return the size of a data block, which a header line of *code* gives as *digits*.

    Raises ProtocolError when the size is missing, has other characters than ASCII digits (``int`` would take ``+3``,
    ``1_0`` and ``٣``), or is above *limit*.
    """
    if not digits.isdigit() or len(digits) > 10:
        raise ProtocolError(f"{code.decode()} with a malformed size; the connection is closed")
    size = int(digits)
    if size > limit:
        raise ProtocolError(f"{code.decode()} announces {size} bytes, the limit is {limit} (Settings.max_reply_size)")
    return size


# --- the shortcuts for one request at a time --------------------------------------------------------------------------

# Parsed header lines without opaque. The same few sizes and flags repeat. A look-up costs 400 instructions, parsing a
# line 8,500: 29 % of a get, 59 % of a get_many.
known_headers: Final[dict[bytes, tuple[int, list[bytes]]]] = {}
known_sizes: Final[dict[bytes, int]] = {}
KNOWN_HEADERS: Final = 4096  # lines kept
LONGEST_KNOWN: Final = 64  # bytes of a line that is kept
LONGEST_PLAIN: Final = 1024  # bytes of a line; with an opaque it is still below MAX_HEADER


def value_header(header: bytes) -> tuple[int, list[bytes]]:
    """Return (size, tokens) of a VA header without opaque; (-1, tokens) of any other line. Keeps the result."""
    tokens = header.split(b" ")
    is_value = tokens[0] == b"VA" and len(tokens) > 1 and len(tokens[1]) <= 10 and tokens[1].isdigit()
    # With an opaque, it has two of them, or the wrong one: the parser decides.
    is_plain = is_value and b"\n" not in header and b" O" not in header and len(header) <= LONGEST_PLAIN
    if len(known_headers) >= KNOWN_HEADERS:
        known_headers.clear()
        known_sizes.clear()
    parsed = (int(tokens[1]) if is_plain else -1, tokens)
    if len(header) <= LONGEST_KNOWN:
        known_headers[header], known_sizes[header] = parsed, parsed[0]
    return parsed


def whole_reply(data: bytes, suffix: bytes, command: Command, limit: int) -> Reply | None:
    """Return the reply to the only request in flight if *data* is certainly the whole reply; else None.

    Saves 65 % of a get and 60 % of a set. The parser reads all other replies: W, X or Z after the opaque, half a reply,
    an error line. A test checks that both give the same answers.
    """
    header, found, rest = data.partition(suffix)
    if not rest:
        return ([header], None) if found and header in command.whole else None
    try:
        size, tokens = known_headers[header]
    except KeyError:  # of the look-up: no Python code runs in it, so no signal handler does either
        size, tokens = value_header(header)
    value = rest.removesuffix(b"\r\n")
    return (tokens, value) if len(value) == size <= limit and len(rest) == size + 2 and command.has_value else None


def half_reply(data: bytes, suffix: bytes, command: Command, limit: int) -> tuple[list[bytes], ReceivedBlock] | None:
    """Return the header and the data block if *data* is certainly the first part of a large value; else None.

    Takes the arguments of `whole_reply`. Saves 35,000 instructions of a get of 100 KB, which takes 70,000 with it. A
    test checks that the parser gives the same answers.
    """
    end = data.find(suffix, 0, LONGEST_PLAIN)
    if end < 0 or not command.has_value:
        return None
    header = data[:end]
    size, tokens = known_headers.get(header) or value_header(header)
    start = end + len(suffix)
    if not LARGE_BLOCK <= size <= limit or len(data) >= start + size + 2:
        return None
    return tokens, ReceivedBlock(size + 2, memoryview(data)[start:])
