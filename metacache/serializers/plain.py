"""The serializers of bytes, str, and int as decimal text. Clients of these types load no other serializer.

`dumps` refuses a value of another type, and of a subclass. `loads` refuses bytes that do not encode the type.
"""

from __future__ import annotations

import re
from typing import final

from metacache.errors import SerializationError
from metacache.interrupts import fails_again

__all__ = ["BytesSerializer", "IntSerializer", "StrSerializer", "is_own_int"]


def _refused(wanted: str, value: object) -> SerializationError:
    return SerializationError(f"$: expected {wanted}, got {type(value).__name__}")


@final
class BytesSerializer:
    """Stores bytes unchanged."""

    wire_id = 32
    fingerprint = 0

    def dumps(self, value: bytes, /) -> bytes:
        """Return *value*. Refuses bytearray and memoryview, because they may change while they are sent."""
        if type(value) is bytes:
            return value
        raise _refused("bytes", value)

    def loads(self, data: bytes, /) -> bytes:
        """Return *data* unchanged."""
        return data


@final
class StrSerializer:
    """Stores str as UTF-8."""

    wire_id = 16
    fingerprint = 0

    def dumps(self, value: str, /) -> bytes:
        """Return *value* in UTF-8. Refuses a lone surrogate."""
        if type(value) is str:
            try:
                return value.encode()
            except UnicodeEncodeError as error:
                if not fails_again(str.encode, value, error):
                    raise
            raise SerializationError("$: the str has a lone surrogate")
        raise _refused("str", value)

    def loads(self, data: bytes, /) -> str:
        """Return the text. Raises UnicodeDecodeError if *data* is not UTF-8."""
        return data.decode()


@final
class IntSerializer:
    """Stores int as decimal text, which the server can increment."""

    wire_id = 2  # pymemcache and pylibmc then read a number
    fingerprint = 0

    def dumps(self, value: int, /) -> bytes:
        """Return the decimal digits of *value*. Refuses bool."""
        if type(value) is int:
            try:
                return b"%d" % value
            except ValueError as error:
                if not fails_again(str, value, error):
                    raise
            raise SerializationError("$: the int has more digits than Python converts")
        raise _refused("int", value)

    def loads(self, data: bytes, /) -> int:
        """Return the number. Accepts spaces on the right, because the server pads a decremented number with them."""
        if _is_decimal(data):
            return int(data)
        raise SerializationError("expected decimal digits")


def is_own_int(serializer: object) -> bool:
    """Return whether *serializer* is `IntSerializer`, which alone may have the wire_id 2."""
    return isinstance(serializer, IntSerializer)


_is_decimal = re.compile(rb"-?[0-9]+ *").fullmatch
