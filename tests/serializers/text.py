"""A serializer of str for tests of client flags and wire ids."""

from __future__ import annotations

from typing import final

__all__ = ["Text"]


@final
class Text:
    """A serializer with the ids that a test needs."""

    def __init__(self, wire_id: int = 96, fingerprint: int = 0) -> None:
        self.wire_id = wire_id
        self.fingerprint = fingerprint

    def dumps(self, value: str, /) -> bytes:
        return value.encode()

    def loads(self, data: bytes, /) -> str:
        return data.decode()
