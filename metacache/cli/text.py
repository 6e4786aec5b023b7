"""Make any text safe for a terminal, measure it in columns, and cut it. Pure.

A key or a value may contain escape sequences, line ends and characters that reverse the direction of a line. They are
written as visible escapes. In a terminal without UTF-8, every character outside of ASCII is too.
"""

from __future__ import annotations

import unicodedata
from typing import Final, final

import attrs

__all__ = ["ASCII", "UNICODE", "Charset", "charset_of", "width_of"]


@final
@attrs.frozen
class Charset:
    """The characters that an output can show.

    Attributes:
        is_ascii: every other character is written as an escape.
        ellipsis: the mark of a text that was cut; one column.
        blocks: the last column of a bar, from an eighth to a full column, and how it is filled before.
        sparks: the heights of a sparkline, from the lowest.
    """

    is_ascii: bool
    ellipsis: str
    blocks: str
    sparks: str

    def escaped(self, text: str) -> str:
        """Return *text* with each control character, and other invisible ones, written as an escape."""
        if text.isprintable() and (not self.is_ascii or text.isascii()):
            return text
        return "".join(map(self._escaped_character, text))

    def _escaped_character(self, character: str) -> str:
        if character.isprintable() and (not self.is_ascii or character.isascii()):
            return character
        return character.encode("unicode_escape").decode("ascii")

    def decoded(self, raw: bytes) -> str:
        """Return *raw* as escaped text. A byte that is not UTF-8 is written as an escape too."""
        return self.escaped(raw.decode(errors="backslashreplace"))

    def cut(self, text: str, width: int) -> str:
        """Return *text*, or its beginning with an ellipsis if it is wider than *width* columns."""
        if width_of(text) <= width:
            return text
        if width < 1:
            return ""
        kept = 0
        for index, character in enumerate(text):
            kept += width_of(character)
            if kept > width - 1:
                return text[:index] + self.ellipsis
        return text

    def bar(self, share: float, width: int) -> str:
        """Return a bar of at most *width* columns for a *share* from 0 to 1. It is empty only for 0."""
        steps = len(self.blocks)
        filled = round(min(max(share, 0.0), 1.0) * width * steps)
        if share > 0:
            filled = max(filled, 1)
        whole, rest = divmod(filled, steps)
        return self.blocks[-1] * whole + (self.blocks[rest - 1] if rest else "")

    def sparkline(self, shares: list[float | None]) -> str:
        """Return one character for each share from 0 to 1; a space for None."""
        top = len(self.sparks) - 1
        return "".join(" " if share is None else self.sparks[round(share * top)] for share in shares)


UNICODE: Final = Charset(is_ascii=False, ellipsis="…", blocks="▏▎▍▌▋▊▉█", sparks="▁▂▃▄▅▆▇█")
ASCII: Final = Charset(is_ascii=True, ellipsis="~", blocks="#", sparks="_.-:=+*#")


def charset_of(encoding: str | None) -> Charset:
    """Return the charset of an output with *encoding*. Only UTF encodings can show everything."""
    return UNICODE if (encoding or "").lower().replace("-", "").replace("_", "").startswith("utf") else ASCII


def width_of(text: str) -> int:
    """Return the number of terminal columns of *text*, which has no control characters."""
    if text.isascii():
        return len(text)
    return sum(map(_columns, text))


def _columns(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1
