"""Keys in requests and replies: base64 as memcached decodes it (base64.c), and the echo of a key. Pure."""

from __future__ import annotations

from base64 import b64encode
from typing import Final

__all__ = ["KEY_MAX", "decode_key", "echo_key"]

KEY_MAX: Final = 250  # bytes on the wire, before base64 is decoded

_ALPHABET: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_VALUES: Final = {character: value for value, character in enumerate(_ALPHABET)} | {ord("="): 0}


def decode_key(text: bytes) -> bytes:
    """Return the decoded key; empty if it cannot be decoded. Characters outside the alphabet are skipped."""
    characters = [character for character in text if character in _VALUES]
    if not characters or len(characters) % 4:
        return b""
    decoded = bytearray()
    for start in range(0, len(characters), 4):
        block = characters[start : start + 4]
        bits = 0
        for character in block:
            bits = bits << 6 | _VALUES[character]
        decoded += bits.to_bytes(3, "big")
        padding = block.count(ord("="))
        if padding > 2:
            return b""
        if padding:
            del decoded[-padding:]
            break
    return bytes(decoded)


def echo_key(key: bytes, *, is_binary: bool) -> bytes:
    """Return the return flag k: the raw key, or the key as base64 with the flag b."""
    return b" k" + b64encode(key) + b" b" if is_binary else b" k" + key
