"""Items of every writer are shown: what their flags mean, and what their bytes are."""

from __future__ import annotations

import json
import pickle
import zlib
from typing import Any, Final

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metacache import Zlib, available_serializers, load_serializer
from metacache.cli.messagepack import DEEPEST, NotMessagePack, decode
from metacache.cli.text import UNICODE
from metacache.cli.values import read_value, value_lines
from metacache.cli.written import written_by
from metacache.serializers.compression import installed_compressor
from metacache.serializers.interfaces import Compressor

FLAGS: Final = 0xB0000000


# --- flags -----------------------------------------------------------------------------------------------------------


@attrs.frozen
class Point:
    """A type that every serializer of structures serves."""

    x: int


# Any: a class, or another type.
TYPES: Final[dict[str, Any]] = {"bytes": bytes, "int": int, "json": dict[str, int], "str": str, "attrs": Point}


@pytest.mark.parametrize("name", [info.name for info in available_serializers()])
def test_the_flags_of_every_installed_serializer_have_its_name(name: str) -> None:
    wire_id = load_serializer(name, TYPES.get(name, int)).wire_id
    assert written_by(FLAGS | wire_id).serializer == name


def test_the_parts_of_our_flags_are_read() -> None:
    written = written_by(0xB50D8140)
    assert (written.wire_id, written.fingerprint, written.compressor, written.format) == (64, 0x50D8, 1, "msgpack")
    assert written_by(FLAGS | 16).fingerprint is None


@pytest.mark.parametrize(
    ("flags", "client", "serializer", "compressor"),
    [
        (0, "any client", "no serializer", None),
        (1, "pymemcache or pylibmc", "pickle", None),
        (2, "pymemcache or pylibmc", "integer (pylibmc: bool)", None),
        (4, "pymemcache or pylibmc", "long (pylibmc: int)", None),
        (8, "pymemcache or pylibmc", "bytes", "zlib"),
        (24, "pymemcache or pylibmc", "text", "zlib"),
        (32, "another client", "unknown flags", None),
        (0xC0000001, "another client", "unknown flags", None),
    ],
)
def test_the_flags_of_other_clients_have_their_meaning(
    flags: int, client: str, serializer: str, compressor: str | None
) -> None:
    written = written_by(flags)
    assert (written.client, written.serializer, written.compressor_name) == (client, serializer, compressor)


# --- values ----------------------------------------------------------------------------------------------------------


def shown(flags: int, data: bytes) -> tuple[str, Any]:  # Any: a JSON value
    value = read_value(written_by(flags), data, installed_compressor)
    return value.format, value.content if value.has_content else value.data


@pytest.mark.parametrize(
    ("flags", "data", "expected"),
    [
        (FLAGS | 16, b"42", ("text", "42")),
        (FLAGS | 2, b"42 ", ("number", 42)),
        (FLAGS | 2, b"no", ("text", "no")),
        (FLAGS | 48, b"[1]", ("JSON", [1])),
        (FLAGS | 48, b"[NaN]", ("text", "[NaN]")),
        (FLAGS | 48, b"[1e999]", ("text", "[1e999]")),
        (FLAGS | 64, b"\xcb\x7f\xf0" + bytes(6), ("MessagePack", "inf")),
        (FLAGS | 64, b"\x81\xa1a\x01", ("MessagePack", {"a": 1})),
        (FLAGS | 64, b"\xc1", ("bytes", b"\xc1")),
        (FLAGS | 32, b"\x00\xff", ("bytes", b"\x00\xff")),
        (FLAGS | 1 << 8 | 16, zlib.compress(b"text"), ("text", "text")),
        (FLAGS | 1 << 8 | 16, b"broken", ("bytes", b"broken")),
        (FLAGS | 9 << 8 | 16, b"unknown", ("bytes", b"unknown")),
        (8, zlib.compress(b"text"), ("text", "text")),
        (0, b"12", ("number", 12)),
        (0, b'{"a": 1}', ("JSON", {"a": 1})),
        (0, b"{not json}", ("text", "{not json}")),
        (0, b"\x93\x01\x02\x03", ("MessagePack", [1, 2, 3])),
        (0, b"escape \x1b[0m", ("bytes", b"escape \x1b[0m")),
        (0, b"", ("text", "")),
    ],
)
def test_a_value_is_shown_as_what_it_is(flags: int, data: bytes, expected: tuple[str, object]) -> None:
    assert shown(flags, data) == expected


def test_a_pickle_is_never_loaded() -> None:
    bomb = b"cbuiltins\nexit\n(I7\ntR."
    with pytest.raises(SystemExit):
        pickle.loads(bomb)
    assert shown(1, bomb) == ("pickle", bomb)


def small(_: int) -> Compressor:
    return Zlib(max_decompressed_size=100)


def test_decompression_is_bounded() -> None:
    value = read_value(written_by(FLAGS | 1 << 8 | 32), zlib.compress(bytes(1_000_000)), small)
    assert "larger than the limit" in value.note
    assert len(value.data) < 10_000, "these are the compressed bytes"


@pytest.mark.parametrize("depth", [100, 900, 5000, 100_000])
def test_deeply_nested_json_is_shown_as_json_or_as_text(depth: int) -> None:
    value = read_value(written_by(FLAGS | 48), b"[" * depth + b"]" * depth, installed_compressor)
    assert value.format == ("JSON" if depth == 100 else "text")
    assert value_lines(value, UNICODE)
    json.dumps(value.content)


def test_lines_of_a_value_have_no_control_characters() -> None:
    text = read_value(written_by(FLAGS | 16), b"one\ntwo\x1b]0;title\x07", installed_compressor)
    assert value_lines(text, UNICODE) == ["one", r"two\x1b]0;title\x07"]
    content = json.dumps({"a": "\x9b31m"}, ensure_ascii=False).encode()
    value = read_value(written_by(FLAGS | 48), content, installed_compressor)
    assert value_lines(value, UNICODE) == ["{", r'  "a": "\x9b31m"', "}"]


def test_bytes_are_shown_as_hexadecimal_digits() -> None:
    value = read_value(written_by(FLAGS | 32), bytes(range(0x38, 0x50)) + b"\x00", installed_compressor)
    first, second = value_lines(value, UNICODE)
    assert first == "000000  38 39 3a 3b 3c 3d 3e 3f  40 41 42 43 44 45 46 47  89:;<=>?@ABCDEFG"
    assert second.split()[0] == "000010"
    assert second.endswith("HIJKLMNO.")


# --- MessagePack -----------------------------------------------------------------------------------------------------

SCALARS: Final = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
)
VALUES: Final = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=5), inner), max_leaves=30
)


@given(VALUES)
def test_message_pack_of_msgspec_is_decoded(value: object) -> None:
    assert decode(msgspec.msgpack.encode(value)) == value


@given(st.binary(max_size=60))
def test_other_bytes_are_refused_and_raise_nothing_else(data: bytes) -> None:
    try:
        decode(data)
    except NotMessagePack:
        return


def test_bytes_and_extensions_become_text() -> None:
    assert decode(msgspec.msgpack.encode(b"\x00\xff")) == "0x00ff"
    assert decode(msgspec.msgpack.encode(msgspec.msgpack.Ext(5, b"ab"))) == {"ext": 5, "data": "0x6162"}
    assert decode(b"\x81\x01\x02") == {"1": 2}


def test_nesting_and_announced_sizes_are_bounded() -> None:
    with pytest.raises(NotMessagePack, match="nested"):
        decode(b"\x91" * (DEEPEST + 2) + b"\x01")
    with pytest.raises(NotMessagePack, match="cut off"):
        decode(b"\xdd\xff\xff\xff\xff\x01")
    with pytest.raises(NotMessagePack, match="follow"):
        decode(b"\x01\x01")
