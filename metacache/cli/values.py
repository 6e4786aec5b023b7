"""Turn stored bytes into what `get` shows: their format, a value for JSON, and lines of text. Pure.

It shows a value of any writer and never runs code that a value contains: pickles are shown as hexadecimal digits.
Decompression stops at the limit of metacache's own `Zlib`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias, final

import attrs

from metacache.cli.messagepack import DEEPEST, NotMessagePack, Shown, decode
from metacache.cli.text import Charset
from metacache.cli.written import Format, Written
from metacache.serializers.interfaces import Compressor

__all__ = ["Value", "read_value", "value_lines"]

FindCompressor: TypeAlias = Callable[[int], Compressor | None]

HEX_ROW: Final = 16  # bytes in a row of hexadecimal digits

_is_number: Final = re.compile(rb"[+-]?[0-9]+ *").fullmatch  # the server pads a decremented number with spaces


@final
@attrs.frozen
class Value:
    """A value as `get` shows it.

    Attributes:
        format: what the bytes are, in words: ``text``, ``number``, ``JSON``, ``MessagePack``, ``bytes``, …
        data: the bytes after decompression.
        content: the decoded value for JSON output; None for bytes.
        has_content: False for bytes, which have no value that JSON can hold.
        note: why the value is shown as bytes although the flags say something else.
    """

    format: str
    data: bytes = attrs.field(repr=False)
    content: Shown = attrs.field(default=None, repr=False)
    has_content: bool = False
    note: str = ""


def read_value(written: Written, data: bytes, find_compressor: FindCompressor) -> Value:
    """Return what *data* is, by what its client flags say, or by its bytes if they say nothing."""
    if written.compressor:
        compressor = find_compressor(written.compressor)
        if compressor is None:
            return Value("bytes", data, note=f"{written.compressor_name} is not installed: these are the stored bytes")
        try:
            data = compressor.decompress(data)
        except Exception as error:  # a compressor may raise anything
            reason = "it is broken, or larger than the limit when decompressed"
            return Value("bytes", data, note=f"not decompressed ({type(error).__name__}): {reason}")
    if written.format == "bytes":
        return _guessed(data)
    if written.format == "pickle":
        return Value("pickle", data, note="a pickle is not decoded, because that runs code")
    found = _READERS[written.format](data)
    return found or attrs.evolve(_guessed(data), note=f"the bytes are not the {written.format} that the flags say")


def _text(data: bytes) -> Value | None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return Value("text", data, text, has_content=True)


def _number(data: bytes) -> Value | None:
    if not _is_number(data):
        return None
    try:
        return Value("number", data, int(data), has_content=True)
    except ValueError:  # more digits than Python converts
        return None


def _refuse_constant(name: str) -> object:
    raise ValueError(name)  # NaN and Infinity are not JSON


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):  # 1e999 could not be written as JSON again
        raise ValueError(text)
    return number


def _json(data: bytes) -> Value | None:
    try:
        content: Shown = json.loads(data.decode(), parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError):
        return None
    return None if _is_deep(content) else Value("JSON", data, content, has_content=True)


def _is_deep(content: Shown) -> bool:
    """Return whether more containers are nested than can be written again: the encoder calls itself for each."""
    level: list[Shown] = [content]
    for _ in range(DEEPEST):
        level = [child for each in level for child in _children(each)]
        if not level:
            return False
    return True


def _children(content: Shown) -> Iterable[Shown]:
    if isinstance(content, dict):
        return content.values()
    return content if isinstance(content, list) else ()


def _msgpack(data: bytes) -> Value | None:
    try:
        return Value("MessagePack", data, decode(data), has_content=True)
    except NotMessagePack:
        return None


_READERS: Final[dict[Format, Callable[[bytes], Value | None]]] = {
    "text": _text,
    "number": _number,
    "json": _json,
    "msgpack": _msgpack,
}


def _guessed(data: bytes) -> Value:
    """Return what *data* looks like. A short text is not taken for JSON: only an object or a list is."""
    if _is_number(data):
        return _number(data) or Value("bytes", data)
    if data[:1] in (b"{", b"[") and (found := _json(data)):
        return found
    text = _text(data)
    if text is not None and _is_readable(str(text.content)):
        return text
    # 0x80 to 0x9f, 0xdc to 0xdf: maps and arrays. Every other byte string would be MessagePack too easily.
    if data and (0x80 <= data[0] <= 0x9F or 0xDC <= data[0] <= 0xDF) and (found := _msgpack(data)):
        return found
    return Value("bytes", data)


def _is_readable(text: str) -> bool:
    return all(character.isprintable() or character in "\t\r\n" for character in text)


def value_lines(value: Value, charset: Charset) -> list[str]:
    """Return the lines that show *value*, without control characters."""
    if not value.has_content:
        return hex_lines(value.data)
    if value.format == "text":
        return [charset.escaped(line) for line in str(value.content).split("\n")]
    indented = json.dumps(value.content, indent=2, ensure_ascii=charset.is_ascii)
    return [charset.escaped(line) for line in indented.split("\n")]


def hex_lines(data: bytes) -> list[str]:
    """Return rows of offset, hexadecimal digits and ASCII characters."""
    return [_hex_row(start, data[start : start + HEX_ROW]) for start in range(0, len(data), HEX_ROW)]


def _hex_row(start: int, row: bytes) -> str:
    digits = f"{row[:8].hex(' ')}  {row[8:].hex(' ')}"
    characters = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
    return f"{start:06x}  {digits:<48}  {characters}"
