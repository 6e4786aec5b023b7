"""From a value to (client flags, bytes) and back: the 32 bits that say who wrote a value, and how.

    31-28  0b1011, which distinguishes them from the flags of other clients
    27-12  schema fingerprint, 0 = none
    11-8   compressor id, 0 = none
    7-0    wire_id of the serializer, never with a bit that makes another client run the value as code

Knows no key, no wire and no policy: what cannot be read raises `Undecodable`, and somebody else decides what that
means.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, Literal, TypeAlias, TypeVar, final

from metacache.errors import InvalidArgumentError, InvalidTypeError, SerializationError
from metacache.interrupts import fails_again
from metacache.serializers.builtin import is_own_int
from metacache.serializers.compression import check_decompresses, installed_compressor
from metacache.serializers.interfaces import Compressor, Serializer
from metacache.serializers.wire_ids import INT, PRIVATE, RULE, is_wire_id
from metacache.settings import check_whole

__all__ = ["Cause", "Frame", "Undecodable"]

T = TypeVar("T")

MAGIC: Final = 0b1011 << 28
Cause: TypeAlias = Literal["foreign_flags", "wire_id", "fingerprint", "compressor", "decompress", "decode"]


@final
class Undecodable(Exception):
    """The bytes are not a T of this client: why, and what the flags claimed."""

    def __init__(self, cause: Cause, wire_id: int = 0, fingerprint: int = 0) -> None:
        super().__init__(cause)
        self.cause: Cause = cause
        self.wire_id = wire_id
        self.fingerprint = fingerprint


@final
class Frame(Generic[T]):
    """Encodes and decodes the values of one serializer.

    Args:
        serializer: turns values into bytes.
        compressor: compresses what is stored; None stores it as it is.
        find_compressor: the compressor of an id met in a stored value, None when there is none; default: among the
            installed.
        reads_plain: flags 0 (of other clients, and of items that the server created) are readable too.

    ``flags`` are the client flags of an uncompressed value, ``loads`` reads one. Raises InvalidArgumentError when the
    serializer's wire_id is not one that a serializer may have, when it is private and the fingerprint is 0, or when the
    fingerprint or the compressor's id does not fit its bits; InvalidTypeError when one of them is not an int, or the
    compressor is not a Compressor.
    """

    __slots__ = ("_find_compressor", "_reads_plain", "compressor", "dumps", "flags", "loads", "serializer")

    def __init__(
        self,
        serializer: Serializer[T],
        *,
        compressor: Compressor | None = None,
        find_compressor: Callable[[int], Compressor | None] = installed_compressor,
        reads_plain: bool = False,
    ) -> None:
        _check_ids(serializer)
        if compressor is not None:
            _check_compressor(compressor)
        self.serializer = serializer
        self.compressor = compressor
        self.dumps = serializer.dumps
        self.loads = serializer.loads
        self.flags: int = MAGIC | serializer.fingerprint << 12 | serializer.wire_id
        self._find_compressor = find_compressor
        self._reads_plain = reads_plain

    def encode(self, value: T) -> tuple[int, bytes]:
        """Return the client flags and the bytes to store.

        Raises SerializationError, and ValueTooLargeError if the compressor does not decompress its own output.
        """
        try:
            data = self.dumps(value)
        except Exception as error:
            if not fails_again(self.dumps, value, error):
                raise
            raise refused(value, error) from None  # the cause may quote the value
        if type(data) is not bytes:
            raise not_bytes(data)
        if self.compressor is None or len(data) < self.compressor.min_size:
            return self.flags, data
        return self._compress(data, self.compressor)

    def _compress(self, data: bytes, compressor: Compressor) -> tuple[int, bytes]:
        try:
            small = compressor.compress(data)
        except Exception as error:
            if not fails_again(compressor.compress, data, error):
                raise
            raise SerializationError(f"the compressor failed ({type(error).__name__})") from None
        if type(small) is not bytes:
            raise SerializationError(f"the compressor made {type(small).__name__} of the value, not bytes")
        if len(small) >= len(data):
            return self.flags, data
        check_decompresses(compressor, data, small)
        return self.flags | compressor.compressor_id << 8, small

    def decode(self, flags: int, data: bytes) -> T:
        """Return the value that *data* is under the client flags *flags*. Raises Undecodable."""
        if flags == self.flags or (flags == 0 and self._reads_plain):
            return self._load(data)
        compressor = self.compressor_of(flags)
        return self._load(data if compressor is None else self._decompress(compressor, data))

    def compressor_of(self, flags: int) -> Compressor | None:
        """Return the compressor of values with the client flags *flags*; None if they are not compressed.

        Raises Undecodable when this client cannot read values with these flags.
        """
        if flags == 0 and self._reads_plain:
            return None
        if flags >> 28 != MAGIC >> 28 or flags > 0xFFFFFFFF:
            raise Undecodable("foreign_flags")
        wire_id, fingerprint, compressor_id = flags & 0xFF, flags >> 12 & 0xFFFF, flags >> 8 & 0xF
        if wire_id != self.serializer.wire_id:
            raise Undecodable("wire_id", wire_id, fingerprint)
        if fingerprint != self.serializer.fingerprint and self._compares(fingerprint):
            raise Undecodable("fingerprint", wire_id, fingerprint)
        return self._compressor(compressor_id) if compressor_id else None

    def check_plain(self, flags: int) -> None:
        """Raise Undecodable unless values with the client flags *flags* are this client's and not compressed."""
        if self.compressor_of(flags) is not None:
            raise Undecodable("compressor", self.serializer.wire_id, self.serializer.fingerprint)

    def _compares(self, fingerprint: int) -> bool:
        """Return whether the *fingerprint* of a stored value counts: both have one, or the wire_id is shared."""
        return (fingerprint != 0 and self.serializer.fingerprint != 0) or self.serializer.wire_id in PRIVATE

    def _load(self, data: bytes) -> T:
        try:
            return self.loads(data)
        except Exception as error:
            if not fails_again(self.loads, data, error):
                raise
            raise self.undecodable("decode") from None

    def undecodable(self, cause: Cause) -> Undecodable:
        """Return the Undecodable of a value with the flags of this client, for *cause*."""
        return Undecodable(cause, self.serializer.wire_id, self.serializer.fingerprint)

    def _compressor(self, compressor_id: int) -> Compressor:
        own = self.compressor is not None and self.compressor.compressor_id == compressor_id
        compressor = self.compressor if own else self._find_compressor(compressor_id)
        if compressor is None:
            raise self.undecodable("compressor")
        return compressor

    def _decompress(self, compressor: Compressor, data: bytes) -> bytes:
        try:
            return compressor.decompress(data)
        except Exception as error:
            if not fails_again(compressor.decompress, data, error):
                raise
            raise self.undecodable("decompress") from None


def refused(value: object, error: Exception) -> SerializationError:
    """Return the error for a *value* that its serializer refused. It names types only."""
    if isinstance(error, SerializationError):
        return error
    return SerializationError(
        f"a value of {type(value).__name__} was refused by the serializer ({type(error).__name__})"
    )


def not_bytes(data: object) -> SerializationError:
    """Return the error for a serializer that made *data* of a value."""
    return SerializationError(f"the serializer made {type(data).__name__} of the value, not bytes")


def _check_ids(serializer: Serializer[T]) -> None:
    wire_id = serializer.wire_id
    check_whole("a serializer's wire_id", wire_id, 1, 255)
    check_whole("a fingerprint", serializer.fingerprint, 0, 0xFFFF)
    if not is_wire_id(wire_id) and not (wire_id == INT and is_own_int(serializer)):
        raise InvalidArgumentError(f"{type(serializer).__name__} has wire_id {wire_id}, but {RULE}")
    if wire_id in PRIVATE and serializer.fingerprint == 0:
        raise InvalidArgumentError(
            f"{type(serializer).__name__} has the private wire_id {wire_id}, which other serializers may have too, "
            "and no fingerprint: use fingerprint(type_, serializer=name)"
        )


def _check_compressor(compressor: Compressor) -> None:
    if isinstance(compressor, type) or not all(hasattr(compressor, name) for name in _COMPRESSOR):
        given = "a class" if isinstance(compressor, type) else type(compressor).__name__
        raise InvalidTypeError(f"compressor is a Compressor, as Zlib(), or None, not {given}")
    check_whole("a compressor_id", compressor.compressor_id, 1, 15)
    check_whole("a compressor's min_size", compressor.min_size, 0)


_COMPRESSOR = ("compressor_id", "min_size", "compress", "decompress")
