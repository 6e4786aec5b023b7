"""Decode MessagePack to show it: to values that JSON has, with other types written as text. Pure.

The command line shows items of any writer, also where no MessagePack library is installed. The format is that of
https://github.com/msgpack/msgpack/blob/master/spec.md.
"""

from __future__ import annotations

import math
import struct
from typing import Final, TypeAlias, final

__all__ = ["NotMessagePack", "Shown", "decode"]

# What `json.dumps` takes.
Shown: TypeAlias = "bool | int | float | str | list[Shown] | dict[str, Shown] | None"

DEEPEST: Final = 200  # nested containers


@final
class NotMessagePack(ValueError):
    """The bytes are not one complete MessagePack value."""


def decode(data: bytes) -> Shown:
    """Return the value that *data* encodes. Bytes become hexadecimal text, NaN text. Raises NotMessagePack."""
    decoder = _Decoder(data)
    value = decoder.value(DEEPEST)
    if not decoder.is_at_end:
        raise NotMessagePack("other bytes follow the value")
    return value


# Type bytes with a number of fixed size behind them.
_NUMBERS: Final = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i",
    0xD3: ">q",
}  # fmt: skip
_CONSTANTS: Final[dict[int, bool | None]] = {0xC0: None, 0xC2: False, 0xC3: True}
# Type bytes with a length behind them: its format, and the kind of what follows.
_SIZED: Final = {
    0xC4: (">B", "bin"), 0xC5: (">H", "bin"), 0xC6: (">I", "bin"), 0xC7: (">B", "ext"), 0xC8: (">H", "ext"),
    0xC9: (">I", "ext"), 0xD9: (">B", "str"), 0xDA: (">H", "str"), 0xDB: (">I", "str"), 0xDC: (">H", "array"),
    0xDD: (">I", "array"), 0xDE: (">H", "map"), 0xDF: (">I", "map"),
}  # fmt: skip
_FIXED_EXT: Final = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}


@final
class _Decoder:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_at_end(self) -> bool:
        return self._at == len(self._data)

    def _take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise NotMessagePack("the value is cut off")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def _number(self, layout: str) -> int | float:
        (number,) = struct.unpack(layout, self._take(struct.calcsize(layout)))
        return number if isinstance(number, int) else float(number)

    def value(self, depth: int) -> Shown:
        """Return the value at the position. *depth*: how many more containers may be nested."""
        first = self._take(1)[0]
        if first < 0x80:
            return first
        if first >= 0xE0:
            return first - 0x100
        if first in _CONSTANTS:
            return _CONSTANTS[first]
        if first in _NUMBERS:
            number = self._number(_NUMBERS[first])
            return number if math.isfinite(number) else repr(number)  # JSON has no NaN and no infinity
        if first in _FIXED_EXT:
            return self._sized("ext", _FIXED_EXT[first], depth)
        if first in _SIZED:
            layout, kind = _SIZED[first]
            return self._sized(kind, int(self._number(layout)), depth)
        if first < 0xC0:
            kind, size = ("str", first & 0x1F) if first >= 0xA0 else (("map", "array")[first >= 0x90], first & 0x0F)
            return self._sized(kind, size, depth)
        raise NotMessagePack("0xc1 is never used")

    def _sized(self, kind: str, size: int, depth: int) -> Shown:
        if kind == "str":
            return self._take(size).decode(errors="backslashreplace")
        if kind == "bin":
            return f"0x{self._take(size).hex()}"
        if kind == "ext":
            (code,) = struct.unpack(">b", self._take(1))
            return {"ext": int(code), "data": f"0x{self._take(size).hex()}"}
        if depth == 0:
            raise NotMessagePack(f"more than {DEEPEST} containers are nested")
        # Each element takes at least one byte, so a wrong size fails before it costs memory.
        if kind == "array":
            return [self.value(depth - 1) for _ in range(size)]
        return {_name(self.value(depth - 1)): self.value(depth - 1) for _ in range(size)}


def _name(key: Shown) -> str:
    return key if isinstance(key, str) else repr(key)
