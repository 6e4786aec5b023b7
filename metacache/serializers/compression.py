"""Compressors: Zlib, and where the others are found. Knows bytes and limits; knows no type and no client flags."""

from __future__ import annotations

import functools
import logging
import zlib
from importlib.metadata import EntryPoint, entry_points
from typing import Final, final

import attrs

from metacache.serializers.protocols import Compressor
from metacache.settings import between

__all__ = ["ZLIB", "Zlib", "installed_compressor"]

GROUP: Final = "metacache.compressors"
MIB: Final = 1 << 20
logger = logging.getLogger("metacache.serializers")


@final
@attrs.frozen(kw_only=True)
class Zlib:
    """Compress with zlib.

    Args:
        min_size: values below so many bytes are stored as they are.
        max_decompressed_size: bytes at which inflating stops; what would become larger is undecodable.
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


@functools.cache
def installed_compressor(compressor_id: int) -> Compressor | None:
    """Return the compressor of that id among the installed ones, None when there is none."""
    return next(
        (found for found in map(_load, entry_points(group=GROUP)) if found and found.compressor_id == compressor_id),
        None,
    )


def _load(entry_point: EntryPoint) -> Compressor | None:
    try:
        compressor: Compressor = entry_point.load()
    except Exception as error:
        logger.warning("compressor %r cannot be loaded (%s)", entry_point.name, type(error).__name__)
        return None
    return compressor
