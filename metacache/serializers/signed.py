"""Sign values with HMAC-SHA-256: `Signed` wraps a serializer and refuses bytes that no holder of a key wrote.

A signed value is the 32 bytes of the code, followed by the bytes of the inner serializer. The code also covers the wire
id and the fingerprint of the inner serializer, which the 16 bits of the client flags cannot hold.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from typing import Final, Generic, TypeVar, final

from xxhash import xxh3_64_intdigest

from metacache.copying import refuse_copy
from metacache.errors import InvalidArgumentError, InvalidTypeError, SerializationError
from metacache.marks import override
from metacache.serializers.frame import check_serializer_ids, not_bytes_error
from metacache.serializers.interfaces import Serializer

__all__ = ["Signed"]

T = TypeVar("T")

MIN_KEY: Final = 16  # bytes
SIZE: Final = 32  # bytes of a code
# Begins what the code covers, so that a code which another program made with the same key is not valid here.
PURPOSE: Final = b"metacache signed value 1\0"


@final
class Signed(Generic[T]):
    """A serializer that signs the bytes of another one, for programs that share a memcached with others.

    Args:
        inner: the serializer of the values, for example ``load_serializer("msgspec", User)``.
        keys: secrets of at least 16 bytes each, for example from ``secrets.token_bytes(32)``. The first signs; every
            one verifies. To replace a key without misses: add the new one at the end in all programs, then move it to
            the front, then remove the old one once the values that it signed have expired.

    Bytes that no key signed are undecodable, and *inner* never sees them. So are values of another *inner* type.

    It does not hide values. A serializer does not see the key of the item: a program that can write to the memcached
    can copy a signed value to another key, or store an old one again. Put what a value belongs to into the value, and
    check it.

    Raises InvalidTypeError if *inner* is not a serializer or a key is not bytes. Raises InvalidArgumentError if there
    is no key, or if one is too short. No message, repr or attribute contains a key.
    """

    __slots__ = ("_codes", "_inner", "fingerprint")
    __reduce_ex__ = refuse_copy

    wire_id = 192

    def __init__(self, inner: Serializer[T], *, keys: Iterable[bytes]) -> None:
        _check_inner(inner)
        self._inner = inner
        ids = bytes((inner.wire_id, *inner.fingerprint.to_bytes(2, "big")))
        self.fingerprint: int = xxh3_64_intdigest(PURPOSE + ids) & 0xFFFF or 1
        # The started codes only, not the keys: a key can then be in no repr and in no dump of attributes.
        self._codes = tuple([hmac.new(key, PURPOSE + ids, "sha256") for key in _checked_keys(keys)])

    @override
    def __repr__(self) -> str:
        return f"<Signed {type(self._inner).__name__}: {len(self._codes)} keys>"

    def dumps(self, value: T, /) -> bytes:
        """Return the bytes of *value*, signed with the first key. Raises what the inner serializer raises."""
        data = self._inner.dumps(value)
        if type(data) is not bytes:
            raise not_bytes_error(data)
        return _code(self._codes[0], data) + data

    def loads(self, data: bytes, /) -> T:
        """Return the value. Raises SerializationError if no key signed *data*, before the inner serializer sees it."""
        code, signed = data[:SIZE], data[SIZE:]
        for started in self._codes:
            if hmac.compare_digest(code, _code(started, signed)):
                return self._inner.loads(signed)
        raise SerializationError("the value was not signed with one of these keys, or it is damaged")


def _code(started: hmac.HMAC, data: bytes) -> bytes:
    code = started.copy()  # threads share *started*
    code.update(data)
    return code.digest()


def _check_inner(inner: Serializer[T]) -> None:
    if isinstance(inner, type) or not all(hasattr(inner, name) for name in _SERIALIZER):
        given = "a class" if isinstance(inner, type) else type(inner).__name__
        raise InvalidTypeError(f"Signed takes a serializer, such as load_serializer(name, type), not {given}")
    check_serializer_ids(inner)


_SERIALIZER: Final = ("wire_id", "fingerprint", "dumps", "loads")


def _checked_keys(keys: Iterable[bytes]) -> tuple[bytes, ...]:
    """Return *keys*. Raises an error that says which key is invalid, by its position only."""
    if isinstance(keys, str | bytes | bytearray | memoryview) or not isinstance(keys, Iterable):
        raise InvalidTypeError(f"keys must be a list of bytes, not {type(keys).__name__}: write keys=[key]")
    checked = tuple(keys)
    if not checked:
        raise InvalidArgumentError("Signed needs at least one key, for example secrets.token_bytes(32)")
    for number, key in enumerate(checked, 1):
        if type(key) is not bytes:
            raise InvalidTypeError(f"key number {number} of Signed must be bytes, not {type(key).__name__}")
        if len(key) < MIN_KEY:
            raise InvalidArgumentError(
                f"key number {number} of Signed is shorter than {MIN_KEY} bytes; make one with secrets.token_bytes(32)"
            )
    return checked
