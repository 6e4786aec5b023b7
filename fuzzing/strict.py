"""A strict parser of requests, to read back what the client sends. Pure; it imports nothing of metacache.

It is written from protocol.txt ("Meta Commands"), and stricter than memcached: one space between two words, each flag
once, only the flags of the command, every number in its range, and nothing behind the last request.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from typing import Final, NamedTuple

# The numbers of a token: lowest and highest. None: the flag has no token.
I32: Final = (-1, 2**31 - 1)
U32: Final = (0, 2**32 - 1)
U64: Final = (0, 2**64 - 1)
FLAGS: Final[dict[bytes, dict[bytes, tuple[int, int] | None]]] = {
    b"mg": {
        **dict.fromkeys((b"b", b"k", b"v", b"s", b"t", b"c", b"f", b"h", b"l", b"u", b"q")),
        b"T": I32,
        b"N": I32,
        b"R": I32,
        b"E": U64,
        b"O": U32,
    },
    b"ms": {
        **dict.fromkeys((b"b", b"k", b"c", b"q", b"I")),
        b"T": I32,
        b"C": U64,
        b"F": U32,
        b"E": U64,
        b"O": U32,
    },
    b"md": {**dict.fromkeys((b"b", b"k", b"q", b"I")), b"T": I32, b"C": U64, b"E": U64, b"O": U32},
    b"ma": {
        **dict.fromkeys((b"b", b"k", b"v", b"t", b"c", b"q")),
        b"T": I32,
        b"N": I32,
        b"J": U64,
        b"D": U64,
        b"C": U64,
        b"E": U64,
        b"O": U32,
    },
    b"me": {b"b": None},
}
MODES: Final = {b"ms": b"EAPRS", b"ma": b"ID+-"}
LONGEST_LINE: Final = 2048  # bytes, with the line end
LONGEST_KEY: Final = 250  # bytes on the wire

_is_number = re.compile(rb"-?[0-9]{1,20}").fullmatch
_is_key = re.compile(rb"[\x21-\x7e\x80-\xff]{1,250}").fullmatch


class Sent(NamedTuple):
    """One request: its command, its key as the server stores it, its flags with their tokens, and its data block."""

    command: bytes
    key: bytes
    flags: dict[bytes, bytes]
    body: bytes | None


class NotStrict(AssertionError):
    """The bytes are not a sequence of correct requests."""


def parse(data: bytes) -> list[Sent]:
    """Return the requests in *data*. Raises NotStrict if anything is left, missing, doubled or out of range."""
    requests: list[Sent] = []
    while data:
        line, end, data = data.partition(b"\r\n")
        if not end or len(line) + 2 > LONGEST_LINE:
            raise NotStrict("a line has no end, or is too long")
        words = line.split(b" ")
        if len(words) < 2 or words[0] not in FLAGS:
            raise NotStrict("the line is not a meta command with a key")
        command, key, *flags = words
        body = None
        if command == b"ms":
            body, data = _body(flags, data)
            flags = flags[1:]
        requests.append(_sent(command, key, flags, body))
    return requests


def _body(words: list[bytes], data: bytes) -> tuple[bytes, bytes]:
    if not words or not words[0].isdigit():
        raise NotStrict("an ms has no length")
    size = int(words[0])
    if data[size : size + 2] != b"\r\n":
        raise NotStrict("a data block has another length than its line says")
    return data[:size], data[size + 2 :]


def _sent(command: bytes, key: bytes, words: list[bytes], body: bytes | None) -> Sent:
    if not _is_key(key):
        raise NotStrict("the key has a byte that ends it, or a wrong length")
    flags: dict[bytes, bytes] = {}
    for word in words:
        letter, token = word[:1], word[1:]
        if not letter or letter in flags:
            raise NotStrict("there are two spaces, or a flag twice")
        flags[letter] = token
        _check_token(command, letter, token)
    if b"b" in flags:
        if b"k" in flags:
            raise NotStrict("b and k stand together, so a reply could repeat a raw key")
        try:
            key = b64decode(key, validate=True)
        except binascii.Error:
            raise NotStrict("the key is not base64") from None
        if not key:
            raise NotStrict("the key is empty")
    return Sent(command, key, flags, body)


def _check_token(command: bytes, letter: bytes, token: bytes) -> None:
    if letter == b"M" and command in MODES:
        if len(token) != 1 or token not in MODES[command]:
            raise NotStrict("there is no such mode")
        return
    if letter not in FLAGS[command]:
        raise NotStrict("the command has no such flag")
    limits = FLAGS[command][letter]
    if limits is None:
        if token:
            raise NotStrict("a flag without token has one")
        return
    if not _is_number(token) or not limits[0] <= int(token) <= limits[1]:
        raise NotStrict("the number of a flag is out of its range")
