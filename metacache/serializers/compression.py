"""Compressors: Zlib, and where the others are found. Knows bytes and limits; knows no type and no client flags."""

from __future__ import annotations

import functools
import logging
import zlib
from importlib.metadata import EntryPoint
from typing import Final, cast, final

import attrs

from metacache.entry_points import PluginGroup
from metacache.errors import SerializationError, ValueTooLargeError
from metacache.interrupts import fails_again, is_own
from metacache.serializers.interfaces import Compressor
from metacache.settings import between

__all__ = ["ZLIB", "Zlib", "check_decompresses", "installed_compressor"]

COMPRESSORS: Final = PluginGroup("metacache.compressors", "compressor", SerializationError, SerializationError)
MIB: Final = 1 << 20
logger = logging.getLogger("metacache.serializers")


@final
@attrs.frozen(kw_only=True)
class Zlib:
    """Compress with zlib.

    Args:
        min_size: values below this number of bytes are stored as they are.
        max_decompressed_size: bytes at which inflating stops. A larger value that would be stored compressed is refused
            (ValueTooLargeError); a stored one is undecodable. It is the limit of the client that reads, so give it to
            every client; those without a `Zlib` of their own have the default.
        level: 1 (fast) to 9 (small).

    Raises InvalidArgumentError (InvalidTypeError for a wrong type) that names the field.
    """

    min_size: int = attrs.field(default=1024, validator=between(0))
    max_decompressed_size: int = attrs.field(default=64 * MIB, validator=between(1))
    level: int = attrs.field(default=6, validator=between(1, 9))
    compressor_id: int = attrs.field(default=1, init=False)

    def compress(self, data: bytes, /) -> bytes:
        """Return *data* compressed."""
        return zlib.compress(data, self.level)

    def decompress(self, data: bytes, /) -> bytes:
        """Return what was compressed; raise if it exceeds the limit, is unfinished, damaged or followed by more."""
        stream = zlib.decompressobj()
        inflated = stream.decompress(data, self.max_decompressed_size + 1)
        if len(inflated) > self.max_decompressed_size:
            raise ValueError(f"inflates to more than {self.max_decompressed_size} bytes")
        if not stream.eof or stream.unused_data:
            raise ValueError("the zlib stream is unfinished or followed by other bytes")
        return inflated


ZLIB: Final = Zlib()
"""What the entry point names: reads zlib values for clients that compress otherwise or not at all."""


def check_decompresses(compressor: Compressor, data: bytes, small: bytes) -> None:
    """Raise unless *compressor* decompresses *small*, which it made of *data*, to *data* again.

    ValueTooLargeError if it refuses, or stops early, as at a limit; SerializationError if it returns something else.
    """
    # zlib returns its input unchanged, so only the limit decides; to decompress would cost 16 to 57 % of compressing.
    if isinstance(compressor, Zlib):
        if len(data) > compressor.max_decompressed_size:
            raise _too_large(compressor, data)
        return
    again = _decompressed(compressor, data, small)
    if type(again) is not bytes or (again != data and not data.startswith(again)):
        raise SerializationError(f"{_name(compressor)}.decompress does not return the compressed value")
    if again != data:
        raise _too_large(compressor, data)


def _decompressed(compressor: Compressor, data: bytes, small: bytes) -> bytes:
    try:
        return compressor.decompress(small)
    except Exception as error:
        if not fails_again(compressor.decompress, small, error):
            raise
        raise _too_large(compressor, data) from None


def _too_large(compressor: Compressor, data: bytes) -> ValueTooLargeError:
    return ValueTooLargeError(
        f"{_name(compressor)} compresses these {len(data)} bytes but does not decompress them; store less, or raise "
        "its limit (Zlib: max_decompressed_size) in all clients of the key"
    )


def _name(compressor: Compressor) -> str:
    return type(compressor).__name__


@functools.cache
def installed_compressor(compressor_id: int) -> Compressor | None:
    """Return the compressor of that id among the installed ones, None when there is none."""
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
