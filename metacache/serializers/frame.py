"""Convert a value to (client flags, bytes) and back. The 32 bits of the client flags say how a value was written:

    31-28  0b1011, which distinguishes metacache's values from those of other clients
    27-12  schema fingerprint, 0 = none
    11-8   compressor id, 0 = none
    7-0    wire_id of the serializer, never with the bit that makes other clients unpickle the value

A stored value that cannot be decoded raises `Undecodable`. The caller decides whether that is a miss or an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, Literal, TypeAlias, TypeVar, final

from metacache.errors import InvalidArgumentError, InvalidTypeError, SerializationError
from metacache.interrupts import fails_again
from metacache.serializers.interfaces import Compressor, Serializer
from metacache.serializers.plain import BytesSerializer, is_own_int
from metacache.serializers.wire_ids import INT, PRIVATE, RULE, is_wire_id
from metacache.settings import check_whole

__all__ = ["Cause", "Frame", "Undecodable", "check_serializer_ids", "not_bytes_error"]

T = TypeVar("T")

MAGIC: Final = 0b1011 << 28
Cause: TypeAlias = Literal["foreign_flags", "wire_id", "fingerprint", "compressor", "decompress", "decode"]


@final
class Undecodable(Exception):
    """Raised for a stored value that is not a T of this client. Has the cause, and the ids from the client flags."""

    def __init__(self, cause: Cause, wire_id: int = 0, fingerprint: int = 0) -> None:
        super().__init__(cause)
        self.cause: Cause = cause
        self.wire_id = wire_id
        self.fingerprint = fingerprint


@final
class Frame(Generic[T]):
    """Encodes and decodes the values of one serializer.

    Args:
        serializer: converts values to bytes and back.
        compressor: compresses values before they are stored; None stores them without compression.
        find_compressor: returns the compressor with an id, or None; left out: one of the installed compressors.
        reads_plain: also read values with the client flags 0, which other clients and the server itself write.

    ``flags`` are the client flags of an uncompressed value, and ``loads`` decodes one. ``is_raw`` is True if the bytes
    of a value are the value itself, so that callers on short paths need not call ``loads`` and ``dumps``.

    Raises InvalidArgumentError if the wire_id is not allowed, if a private wire_id comes with the fingerprint 0, or if
    the fingerprint or the compressor_id is out of range. Raises InvalidTypeError if one of these is not an int, or if
    *compressor* is not a Compressor.
    """

    __slots__ = ("_find_compressor", "_reads_plain", "compressor", "dumps", "flags", "is_raw", "loads", "serializer")

    def __init__(
        self,
        serializer: Serializer[T],
        *,
        compressor: Compressor | None = None,
        find_compressor: Callable[[int], Compressor | None] | None = None,
        reads_plain: bool = False,
    ) -> None:
        kind: type[object] = type(serializer)
        self.is_raw = kind is BytesSerializer
        if not self.is_raw:  # our own, and the usual one
            check_serializer_ids(serializer)
        if compressor is not None:
            _check_compressor(compressor)
        self.serializer = serializer
        self.compressor = compressor
        self.dumps = serializer.dumps
        self.loads = serializer.loads
        self.flags: int = MAGIC | serializer.fingerprint << 12 | serializer.wire_id
        self._find_compressor = find_compressor or _installed_compressor
        self._reads_plain = reads_plain

    def encode(self, value: T) -> tuple[int, bytes]:
        """Return the client flags and the bytes to store.

        Raises SerializationError if the serializer or the compressor fails. Raises ValueTooLargeError if the compressor
        does not decompress its own output.
        """
        try:
            data = self.dumps(value)
        except Exception as error:
            if not fails_again(self.dumps, value, error):
                raise
            raise dumps_error(value, error) from None  # the cause may quote the value
        if type(data) is not bytes:
            raise not_bytes_error(data)
        if self.compressor is None or len(data) < self.compressor.min_size:
            return self.flags, data
        return self._compress(data, self.compressor)

    def _compress(self, data: bytes, compressor: Compressor) -> tuple[int, bytes]:
        try:
            compressed = compressor.compress(data)
        except Exception as error:
            if not fails_again(compressor.compress, data, error):
                raise
            raise SerializationError(f"the compressor failed ({type(error).__name__})") from None
        if type(compressed) is not bytes:
            raise SerializationError(f"the compressor returned {type(compressed).__name__}, not bytes")
        if len(compressed) >= len(data):
            return self.flags, data
        from metacache.serializers.compression import check_decompresses  # late: few clients compress

        check_decompresses(compressor, data, compressed)
        return self.flags | compressor.compressor_id << 8, compressed

    def decode(self, flags: int, data: bytes) -> T:
        """Return the value that *data* encodes under the client flags *flags*. Raises Undecodable."""
        if flags == self.flags or (flags == 0 and self._reads_plain):
            return self._load(data)
        compressor = self.compressor_of(flags)
        return self._load(data if compressor is None else self._decompress(compressor, data))

    def compressor_of(self, flags: int) -> Compressor | None:
        """Return the compressor of values with the client flags *flags*, or None if they are not compressed.

        Raises Undecodable if this client cannot read values with these flags.
        """
        if flags == 0 and self._reads_plain:
            return None
        if flags >> 28 != MAGIC >> 28 or flags > 0xFFFFFFFF:
            raise Undecodable("foreign_flags")
        wire_id, fingerprint, compressor_id = flags & 0xFF, flags >> 12 & 0xFFFF, flags >> 8 & 0xF
        if wire_id != self.serializer.wire_id:
            raise Undecodable("wire_id", wire_id, fingerprint)
        if fingerprint != self.serializer.fingerprint and self._compares_fingerprint(fingerprint):
            raise Undecodable("fingerprint", wire_id, fingerprint)
        return self._compressor(compressor_id) if compressor_id else None

    def check_plain(self, flags: int) -> None:
        """Raise Undecodable if values with the client flags *flags* are compressed or not readable by this client."""
        if self.compressor_of(flags) is not None:
            raise Undecodable("compressor", self.serializer.wire_id, self.serializer.fingerprint)

    def _compares_fingerprint(self, fingerprint: int) -> bool:
        """Return whether to compare *fingerprint*: the value and this client have one, or the wire_id is private."""
        return (fingerprint != 0 and self.serializer.fingerprint != 0) or self.serializer.wire_id in PRIVATE

    def _load(self, data: bytes) -> T:
        try:
            return self.loads(data)
        except Exception as error:
            if not fails_again(self.loads, data, error):
                raise
            raise self.undecodable("decode") from None

    def undecodable(self, cause: Cause) -> Undecodable:
        """Return the Undecodable with *cause* for a value with the flags of this client."""
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


def dumps_error(value: object, error: Exception) -> SerializationError:
    """Return the error to raise if ``dumps`` raised *error* for *value*. The message names types only."""
    if isinstance(error, SerializationError):
        return error
    return SerializationError(
        f"the serializer refused a value of class {type(value).__name__} ({type(error).__name__})"
    )


def not_bytes_error(data: object) -> SerializationError:
    """Return the error to raise if ``dumps`` returned *data*, which is not bytes."""
    return SerializationError(f"the serializer returned {type(data).__name__}, not bytes")


def check_serializer_ids(serializer: Serializer[T]) -> None:
    """Raise InvalidArgumentError (InvalidTypeError) if *serializer* has an id or fingerprint that is not allowed."""
    wire_id = serializer.wire_id
    check_whole("a serializer's wire_id", wire_id, 1, 255)
    check_whole("a fingerprint", serializer.fingerprint, 0, 0xFFFF)
    if not is_wire_id(wire_id) and not (wire_id == INT and is_own_int(serializer)):
        raise InvalidArgumentError(f"{type(serializer).__name__} has wire_id {wire_id}, but {RULE}")
    if wire_id in PRIVATE and serializer.fingerprint == 0:
        raise InvalidArgumentError(
            f"{type(serializer).__name__} has the private wire_id {wire_id}, which other serializers may share, "
            "but no fingerprint: use fingerprint(type_, serializer=name)"
        )


def _installed_compressor(compressor_id: int) -> Compressor | None:
    from metacache.serializers.compression import installed_compressor  # late: few clients compress

    return installed_compressor(compressor_id)


def _check_compressor(compressor: Compressor) -> None:
    if isinstance(compressor, type) or not all(hasattr(compressor, name) for name in _COMPRESSOR):
        given = "a class" if isinstance(compressor, type) else type(compressor).__name__
        raise InvalidTypeError(f"compressor must be a Compressor, such as Zlib(), or None, not {given}")
    check_whole("a compressor_id", compressor.compressor_id, 1, 15)
    check_whole("a compressor's min_size", compressor.min_size, 0)


_COMPRESSOR = ("compressor_id", "min_size", "compress", "decompress")
