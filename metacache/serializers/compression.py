"""Compress and decompress encoded values: `Zlib`, and the compressors that entry points name.

Works on bytes and size limits. The client flags belong to `frame`, the types of values to the serializers.
"""

from __future__ import annotations

import functools
import logging
import zlib
from typing import TYPE_CHECKING, Final, cast, final

import attrs

from metacache.entry_points import PluginGroup
from metacache.errors import SerializationError, ValueTooLargeError
from metacache.interrupts import fails_again, is_own
from metacache.serializers.interfaces import Compressor
from metacache.settings import between

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["ZLIB", "Zlib", "check_decompresses", "installed_compressor"]

COMPRESSORS: Final = PluginGroup("metacache.compressors", "compressor", SerializationError, SerializationError)
MIB: Final = 1 << 20
logger = logging.getLogger("metacache.serializers")


@final
@attrs.frozen(kw_only=True)
class Zlib:
    """Compresses values with zlib.

    Args:
        min_size: bytes; smaller values are stored without compression.
        max_decompressed_size: bytes; decompression stops there. A write that would compress a larger value raises
            ValueTooLargeError. A stored value that exceeds the limit of the reading client is undecodable. So give all
            clients of a key the same limit; a client without a `Zlib` of its own has the default.
        level: 1 (fastest) to 9 (smallest result).

    Raises InvalidArgumentError (InvalidTypeError for a wrong type), which names the argument.
    """

    min_size: int = attrs.field(default=1024, validator=between(0))
    max_decompressed_size: int = attrs.field(default=64 * MIB, validator=between(1))
    level: int = attrs.field(default=6, validator=between(1, 9))
    compressor_id: int = attrs.field(default=1, init=False)

    def compress(self, data: bytes, /) -> bytes:
        """Return *data* compressed."""
        return zlib.compress(data, self.level)

    def decompress(self, data: bytes, /) -> bytes:
        """Return the original bytes. Raises if they exceed the limit, or if *data* is not one complete zlib stream."""
        stream = zlib.decompressobj()
        inflated = stream.decompress(data, self.max_decompressed_size + 1)
        if len(inflated) > self.max_decompressed_size:
            raise ValueError(f"the value has more than {self.max_decompressed_size} bytes when decompressed")
        if not stream.eof or stream.unused_data:
            raise ValueError("the zlib stream is truncated or followed by other bytes")
        return inflated


ZLIB: Final = Zlib()
"""The object that the entry point names. It reads zlib values for clients without a `Zlib` of their own."""


def check_decompresses(compressor: Compressor, data: bytes, compressed: bytes) -> None:
    """Check that *compressor* decompresses *compressed*, its own output for *data*, to *data*.

    Raises ValueTooLargeError if it fails or returns only the beginning of *data*, as at a limit. Raises
    SerializationError if it returns other bytes.
    """
    # zlib is lossless, so only the limit matters. Decompression would cost 6 to 40 % of the time of compression.
    if isinstance(compressor, Zlib):
        if len(data) > compressor.max_decompressed_size:
            raise _too_large(compressor, data)
        return
    decompressed = _decompressed(compressor, data, compressed)
    if type(decompressed) is not bytes or (decompressed != data and not data.startswith(decompressed)):
        raise SerializationError(f"{_name(compressor)}.decompress does not return the bytes that were compressed")
    if decompressed != data:
        raise _too_large(compressor, data)


def _decompressed(compressor: Compressor, data: bytes, compressed: bytes) -> bytes:
    try:
        return compressor.decompress(compressed)
    except Exception as error:
        if not fails_again(compressor.decompress, compressed, error):
            raise
        raise _too_large(compressor, data) from None


def _too_large(compressor: Compressor, data: bytes) -> ValueTooLargeError:
    return ValueTooLargeError(
        f"{_name(compressor)} compresses these {len(data)} bytes but does not decompress them; store a smaller value, "
        "or raise the limit (Zlib: max_decompressed_size) in all clients of the key"
    )


def _name(compressor: Compressor) -> str:
    return type(compressor).__name__


@functools.cache
def installed_compressor(compressor_id: int) -> Compressor | None:
    """Return the installed compressor with that id, or None."""
    for entry_point in COMPRESSORS.installed():
        compressor = _load(entry_point)
        if compressor is not None and compressor.compressor_id == compressor_id:
            return compressor
    return None


def _load(entry_point: EntryPoint) -> Compressor | None:
    try:
        # The boundary: an entry point names any object.
        return cast("Compressor", COMPRESSORS.load(entry_point))
    except SerializationError as error:
        if not is_own(error):
            raise
        cause = type(error.__cause__).__name__
        logger.warning("compressor %r cannot be loaded (%s)", entry_point.name, cause)
        return None
