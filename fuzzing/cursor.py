"""`Cursor`: takes numbers, choices and pieces from the bytes of one fuzzing input. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar, final

T = TypeVar("T")


@final
class Cursor:
    """Reads an input from its beginning. Behind its end, every number is 0."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_at_end(self) -> bool:
        """Whether all bytes are used."""
        return self._at >= len(self._data)

    def take(self, count: int) -> bytes:
        """Return the next *count* bytes, or those that are left."""
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken

    def rest(self) -> bytes:
        """Return all bytes that are left."""
        return self.take(len(self._data))

    def number(self, size: int = 1) -> int:
        """Return an unsigned number of *size* bytes."""
        return int.from_bytes(self.take(size), "little")

    def choice(self, options: Sequence[T]) -> T:
        """Return one of *options*."""
        return options[self.number() % len(options)]

    def piece(self) -> bytes:
        """Return a piece whose length is in the next byte; 255: the next two bytes."""
        length = self.number()
        return self.take(self.number(2) if length == 255 else length)

    def text(self) -> str:
        """Return a piece as text, which may have lone surrogates."""
        return self.piece().decode("utf-8", "surrogateescape")
