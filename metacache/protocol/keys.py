"""Turns the keys of callers into the keys of requests, and refuses invalid keys. Pure.

The rules are those of protocol.txt ("Keys" and "Meta Commands").
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import Final, TypeAlias, TypeVar, cast, final

from metacache.errors import InvalidArgumentError, InvalidKeyError, InvalidKeyTypeError, InvalidTypeError
from metacache.interrupts import is_own

__all__ = ["MAX_BASE64_KEY", "MAX_KEY", "K", "Key", "KeyEncoder", "WireKey"]

Key: TypeAlias = str | bytes
K = TypeVar("K", bound=Key)

WireKey: TypeAlias = tuple[bytes, bytes, bytes]
"""(routing key, token on the wire, ``b" b"`` if the token is base64 else ``b""``)."""

MAX_KEY: Final = 250  # bytes on the wire, measured before the server decodes base64
MAX_BASE64_KEY: Final = 186  # raw bytes: 4 * ceil(186 / 3) = 248 <= 250

# A space or LF would end the key, and the server would read the rest as flags or as a command (injection). NUL ends the
# line on 1.6.18. Servers accept the other control bytes and DEL, but proxies do not. Bytes >= 0x80 are sent unchanged.
# This table changes each unsafe byte: LF into a space, the others into LF. It checks one key in half the time of a
# regex, and all keys of a batch together.
_CHANGE_UNSAFE: Final = bytes(
    0x20 if byte == 0x0A else 0x0A if byte <= 0x20 or byte == 0x7F else byte for byte in range(256)
)

# The token that replaces a long key begins with these bytes. A key of a caller that begins with them is hashed too:
# otherwise it could equal the token of another key.
HASH_MARK: Final = b"\0h"


@final
class KeyEncoder:
    """Encodes the keys of one client.

    Args:
        prefix: is put before every key; a str is encoded as UTF-8.
        hash_long: True: replaces a key that is too long by its SHA-256. False: refuses it.

    ``prefix`` is the prefix as bytes. ``text`` is the prefix as str; None if it needs base64.

    Raises InvalidArgumentError for a prefix that UTF-8 cannot encode or that leaves no room for a key, and
    InvalidTypeError for one that is not str or bytes.
    """

    __slots__ = ("_hash_long", "prefix", "text")

    def __init__(self, prefix: Key = b"", *, hash_long: bool = False) -> None:
        if not isinstance(prefix, str | bytes):
            raise InvalidTypeError(f"prefix is str or bytes, not {type(prefix).__name__}")
        try:
            self.prefix = prefix.encode() if isinstance(prefix, str) else bytes(prefix)
        except UnicodeEncodeError:
            raise InvalidArgumentError("prefix holds a lone surrogate, which UTF-8 cannot encode") from None
        limit = _limit(is_unsafe=_is_unsafe(self.prefix))
        if len(self.prefix) >= limit and not hash_long:
            raise InvalidArgumentError(
                f"prefix has {len(self.prefix)} bytes, and a key with its prefix has {limit} at most; shorten it or use"
                " long_keys='hash'"
            )
        self._hash_long = hash_long
        self.text = self._plain_text()

    def _plain_text(self) -> str | None:
        try:
            text = self.prefix.decode()
        except UnicodeDecodeError:
            return None
        return text if text.isprintable() and " " not in text else None

    def plain(self, key: Key) -> bytes | None:
        """Return the routing key of *key* if it is sent unchanged; None if `encode` must decide. Never raises.

        For a str, "printable and no space" is a little stricter than the rule of the table, and costs less.
        """
        if type(key) is str:
            text = self.text
            if text is not None and key and key.isprintable() and " " not in key:
                raw = (text + key).encode()
                if len(raw) <= MAX_KEY:
                    return raw
        elif type(key) is bytes and key:
            raw = self.prefix + key
            return raw if len(raw) <= MAX_KEY and raw.translate(_CHANGE_UNSAFE) == raw else None
        return None

    def plain_many(self, keys: Sequence[Key]) -> list[bytes] | None:
        """Return the routing keys of *keys*, at least one, if all have one type and are sent unchanged; else None.

        Never raises. It joins all keys with LF, which no key may contain, and checks the result. That runs in C and
        costs a tenth of `plain` for each key.
        """
        line = _joined(keys)
        if line is None or not all(keys):
            return None
        prefix = self.prefix
        if prefix:
            line = prefix + line.replace(b"\n", b"\n" + prefix)
        # Not `count`: it looks at each byte, and `in` calls memchr.
        if b"\n" in line.translate(_CHANGE_UNSAFE) or not _all_short(line):
            return None
        raws = line.split(b"\n")
        return raws if len(raws) == len(keys) else None

    def encode(self, key: Key) -> WireKey:
        """Return the wire key of *key*.

        Raises InvalidKeyError that names length and limit, InvalidKeyTypeError if *key* is neither str nor bytes.
        """
        raw = self.prefix + _to_bytes(key)
        unsafe = _is_unsafe(raw)
        limit = _limit(is_unsafe=unsafe)
        if self._hash_long and (len(raw) > limit or raw.startswith(HASH_MARK)):
            from hashlib import sha256  # late: it starts slowly, and few clients hash keys

            return raw, b64encode(HASH_MARK + sha256(raw).digest()), b" b"
        if len(raw) > limit:
            why = " (a key with a space or control byte is sent as base64)" if unsafe else ""
            raise InvalidKeyError(
                f"{len(raw)} bytes with the prefix, the limit is {limit}{why}; shorten it or use long_keys='hash'",
                key=key,
            )
        return (raw, b64encode(raw), b" b") if unsafe else (raw, raw, b"")


def _is_unsafe(raw: bytes) -> bool:
    """Return whether *raw* must be sent as base64."""
    return raw.translate(_CHANGE_UNSAFE) != raw


def _limit(*, is_unsafe: bool) -> int:
    """Return how many bytes a key may have."""
    return MAX_BASE64_KEY if is_unsafe else MAX_KEY


def _joined(keys: Sequence[Key]) -> bytes | None:
    """Return *keys* joined with LF; None unless all are str that UTF-8 can encode, or all are bytes."""
    # cast: join checks the types of the keys. It raises TypeError for any other type.
    try:
        return "\n".join(cast("Sequence[str]", keys)).encode()
    except (TypeError, UnicodeEncodeError) as error:
        if not is_own(error):
            raise
    if set(map(type, keys)) == {bytes}:  # bytes.join takes any buffer
        return b"\n".join(cast("Sequence[bytes]", keys))  # cast: the types were checked
    return None


def _all_short(line: bytes) -> bool:
    """Return whether no key in *line* is longer than a key may be.

    It jumps from one LF to the last LF within the length of a key, so it skips most of the keys.
    """
    start = 0
    while len(line) - start > MAX_KEY:
        end = line.rfind(b"\n", start, start + MAX_KEY + 1)
        if end < 0:
            return False
        start = end + 1
    return True


def _to_bytes(key: Key) -> bytes:
    if not isinstance(key, str | bytes):
        raise InvalidKeyTypeError(f"a key is str or bytes, not {type(key).__name__}")
    if not key:
        raise InvalidKeyError("the key is empty", key=key)
    try:
        return key.encode() if isinstance(key, str) else bytes(key)
    except UnicodeEncodeError as error:
        if not is_own(error):
            raise
        raise InvalidKeyError("the key holds a lone surrogate, which UTF-8 cannot encode", key=key) from None
