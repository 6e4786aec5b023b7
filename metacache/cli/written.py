"""Say what client flags mean: which client wrote the value, in which format, with which compressor. Pure.

metacache's own flags are those of `serializers/frame.py`, and the wire ids those of `serializers/README.md`. Other
flags are read as those of pymemcache and pylibmc, which use the low five bits.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, final

import attrs

from metacache.serializers.frame import MAGIC

__all__ = ["COMPRESSORS", "Format", "Written", "written_by"]

Format: TypeAlias = Literal["bytes", "text", "number", "json", "msgpack", "pickle"]

# serializers/README.md. The format says how to show a value; "bytes" may be anything.
_WIRE_IDS: Final[dict[int, tuple[str, Format]]] = {
    2: ("int", "number"),
    16: ("str", "text"),
    32: ("bytes", "bytes"),
    48: ("json", "json"),
    64: ("msgspec", "msgpack"),
    80: ("msgspec-json", "json"),
    112: ("orjson", "json"),
    144: ("attrs", "json"),
    160: ("django", "bytes"),
    176: ("pydantic", "json"),
    192: ("signed", "bytes"),
    224: ("private binary", "bytes"),
    240: ("private text", "text"),
}
COMPRESSORS: Final = {1: "zlib", 2: "zstd"}

# pymemcache/serde.py and pylibmc/_pylibmcmodule.h. (bit, meaning, format)
_COMPRESSED: Final = 8
_OTHERS: Final[tuple[tuple[int, str, Format], ...]] = (
    (1, "pickle", "pickle"),
    (2, "integer (pylibmc: bool)", "number"),
    (4, "long (pylibmc: int)", "number"),
    (16, "text", "text"),
)
_KNOWN_BITS: Final = 0b11111


@final
@attrs.frozen
class Written:
    """What client flags say of a value.

    Attributes:
        client: the client or clients that write such flags.
        serializer: the serializer's name, or the meaning of the flags.
        format: how the bytes are to be read after decompression.
        wire_id: metacache's wire id; None for another client.
        fingerprint: the fingerprint of the type; None if there is none.
        compressor: metacache's compressor id, also for other clients; 0: not compressed.
    """

    client: str
    serializer: str
    format: Format
    wire_id: int | None = None
    fingerprint: int | None = None
    compressor: int = 0

    @property
    def compressor_name(self) -> str | None:
        """The name of the compressor; None if the value is not compressed."""
        return COMPRESSORS.get(self.compressor, f"compressor {self.compressor}") if self.compressor else None


def written_by(flags: int) -> Written:
    """Return what the client flags *flags* say."""
    if flags >> 28 == MAGIC >> 28:
        wire_id = flags & 0xFF
        name, format_ = _WIRE_IDS.get(wire_id, ("unknown serializer", "text" if wire_id % 32 == 16 else "bytes"))
        return Written("metacache", name, format_, wire_id, flags >> 12 & 0xFFFF or None, flags >> 8 & 0xF)
    if flags == 0:
        return Written("any client", "no serializer", "bytes")
    if flags & ~_KNOWN_BITS:
        return Written("another client", "unknown flags", "bytes")
    names = ", ".join(name for bit, name, _ in _OTHERS if flags & bit) or "bytes"
    formats: list[Format] = [format_ for bit, _, format_ in _OTHERS if flags & bit]
    return Written("pymemcache or pylibmc", names, (*formats, "bytes")[0], compressor=1 if flags & _COMPRESSED else 0)
