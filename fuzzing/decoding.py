"""Targets of the serializers: any bytes with any client flags are a T, which can be stored again, or undecodable."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final

from fuzzing.cursor import Cursor
from fuzzing.records import Invoice, Order
from metacache.serializers import difference, load_serializer
from metacache.serializers.compression import Zlib
from metacache.serializers.frame import Frame, Undecodable

LARGEST: Final = 1 << 20  # bytes of a decompressed value

# A serializer's name, and the type that it decodes. Any: types of all kinds, which `load_serializer` checks.
TYPES: Final[dict[str, Any]] = {
    "json": dict[str, list[float] | str | bool | None],
    "msgspec": Order,
    "msgspec-json": Order,
    "orjson": Order,
    "attrs": Invoice,
    "pydantic": Order,
    "int": int,
    "str": str,
}


@cache
def _frame(name: str) -> Frame[Any]:  # Any: as above
    return Frame(load_serializer(name, TYPES[name]), compressor=Zlib(max_decompressed_size=LARGEST), reads_plain=True)


def decoder(name: str) -> Callable[[bytes], None]:
    """Return the target of the serializer *name*."""

    def decode(data: bytes) -> None:
        """Decode *data*. What is decoded can be stored again, and comes back the same."""
        frame = _frame(name)
        cursor = Cursor(data)
        flags = cursor.choice((frame.flags, frame.flags, frame.flags | 1 << 8, frame.flags ^ cursor.number(4), 0))
        try:
            value = frame.decode(flags, cursor.rest())
        except Undecodable:
            return
        again = frame.loads(frame.dumps(value))
        found = difference(value, again)
        assert found is None, f"a decoded value changes when it is stored again, at {found}"

    return decode
