"""Render one item: its metadata and its value, as lines and for JSON. Pure."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Final

from metacache.cli.given import json_bytes
from metacache.cli.layout import Line, Span, Style, fields
from metacache.cli.messagepack import Shown
from metacache.cli.peeking import Peeked
from metacache.cli.text import Charset
from metacache.cli.values import Value, value_lines
from metacache.cli.written import Written

__all__ = ["LONGEST_SHOWN", "duration", "item_json", "item_lines", "state_of"]

LONGEST_SHOWN: Final = 200  # lines of a value without --all


def duration(seconds: int | None) -> str:
    """Return *seconds* in words: ``never expires`` is None."""
    if seconds is None:
        return "never expires"
    if seconds < 120:
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    if minutes < 120:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def state_of(item: Peeked) -> str:
    """Return the state of *item* in one word: value, stale or lease."""
    if item.is_placeholder:
        return "lease"
    return "stale" if item.is_stale else "value"


_STATES: Final[dict[str, Span]] = {
    "value": ("a fresh value", "good"),
    "stale": ("a stale value: invalidated, served until a caller stores a new one", "bad"),
    "lease": ("a lease placeholder: a caller is computing the value, there is none yet", "bad"),
}


def item_lines(
    key: bytes, owner: str, item: Peeked, written: Written, value: Value | None, charset: Charset, *, show_all: bool
) -> list[Line]:
    """Return the lines that show an item. *value* is None for a lease placeholder."""
    pairs: list[tuple[str, Span]] = []

    def add(name: str, text: str, style: Style = "") -> None:
        pairs.append((name, (text, style)))

    add("key", charset.decoded(key), "name")
    add("node", charset.escaped(owner))
    add("state", *_STATES[state_of(item)])
    if value is not None:
        add("written by", _writer(written))
        add("format", value.format)
    add("flags", f"0x{item.client_flags:08x}")
    add("size", _size(item, value))
    add("ttl", duration(item.ttl))
    add("cas", str(item.cas) if item.cas else "none: the server runs without CAS (-C)")
    add("last used", f"{duration(item.idle_seconds)} ago{'' if item.is_fetched else ', never read'}")
    for note in _notes(item, value):
        add("note", note, "bad")
    shown = [] if value is None else _value(value, charset, show_all=show_all)
    return [*fields(pairs), *shown]


def _writer(written: Written) -> str:
    if written.wire_id is None:
        return f"{written.client}: {written.serializer}{', compressed' if written.compressor else ''}"
    fingerprint = "no fingerprint" if written.fingerprint is None else f"fingerprint 0x{written.fingerprint:04x}"
    compressor = f", {written.compressor_name}" if written.compressor_name else ""
    return f"metacache: {written.serializer} (wire id {written.wire_id}), {fingerprint}{compressor}"


def _size(item: Peeked, value: Value | None) -> str:
    size = f"{item.size:,} bytes"
    is_inflated = value is not None and len(value.data) != item.size
    return f"{size}, decompressed {len(value.data):,}" if is_inflated and value is not None else size


def _notes(item: Peeked, value: Value | None) -> Sequence[str]:
    notes = [value.note] if value is not None and value.note else []
    if item.is_win_lost:
        notes.append("this read consumed the win flag of the stale item, and could not give it back")
    return notes


def _value(value: Value, charset: Charset, *, show_all: bool) -> list[Line]:
    lines = value_lines(value, charset)
    shown = lines if show_all else lines[:LONGEST_SHOWN]
    rest = len(lines) - len(shown)
    left: list[Line] = [((f"{rest} more lines: --all shows them, --raw writes the bytes", "dim"),)] if rest else []
    return [((("value", "title"),)), *(((f"  {line}", ""),) for line in shown), *left]


def item_json(key: bytes, owner: str, item: Peeked, written: Written, value: Value | None) -> dict[str, Shown]:
    """Return what ``get --json`` prints."""
    found: dict[str, Shown] = {
        **json_bytes("key", key),
        "node": owner,
        "state": state_of(item),
        "client": written.client,
        "serializer": written.serializer,
        "wire_id": written.wire_id,
        "fingerprint": written.fingerprint,
        "compressor": written.compressor_name,
        "client_flags": item.client_flags,
        "size": item.size,
        "ttl": item.ttl,
        "cas": item.cas,
        "idle_seconds": item.idle_seconds,
        "fetched_before": item.is_fetched,
    }
    if value is not None:
        found["format"] = value.format
        found |= _content(value)
    if notes := _notes(item, value):
        found["notes"] = list(notes)
    return found


def _content(value: Value) -> dict[str, Shown]:
    if value.has_content:
        return {"value": value.content}
    return {"value_base64": base64.b64encode(value.data).decode("ascii")}
