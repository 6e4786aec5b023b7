"""Zlib and its limits, when values are compressed, and third-party compressors found by entry point."""

from __future__ import annotations

import logging
import random
import zlib
from pathlib import Path
from typing import Final

import pytest

from metacache import Client, DecodeError, InvalidArgumentError, SerializationError, Zlib
from metacache.serializers.builtin import StrSerializer
from metacache.serializers.compression import installed_compressor
from metacache.serializers.frame import Frame, Undecodable
from metacache.testing import FakeServer, FakeTransport
from tests.plugins.distributions import install, put_on_path

TEXT: Final = "metacache " * 200
PLAIN: Final = Frame(StrSerializer()).flags
ZLIB: Final = PLAIN | 1 << 8


def test_a_large_value_is_stored_compressed_and_read_by_any_client() -> None:
    server = FakeServer()
    Client(FakeTransport(server), StrSerializer(), compressor=Zlib()).set("k", TEXT)
    stored = server.answer(b"mg k f s v\r\n").split(b"\r\n")[0].split()
    assert int(stored[1]) < len(TEXT) / 10
    assert stored[2] == b"f%d" % ZLIB
    assert Client(FakeTransport(server), StrSerializer()).get("k") == TEXT


@pytest.mark.parametrize(("size", "flags"), [(99, PLAIN), (100, ZLIB)])
def test_values_below_min_size_are_stored_uncompressed(size: int, flags: int) -> None:
    assert Frame(StrSerializer(), compressor=Zlib(min_size=100)).encode("a" * size)[0] == flags


def test_a_value_that_does_not_shrink_is_stored_uncompressed() -> None:
    text = random.Random(1).randbytes(20).hex()
    assert Frame(StrSerializer(), compressor=Zlib(min_size=0)).encode(text) == (PLAIN, text.encode())


def test_decompression_stops_at_the_limit() -> None:
    bomb = zlib.compress(b"\0" * 200_000_000, 9)
    assert len(bomb) < 200_000
    with pytest.raises(Undecodable, match="decompress"):
        Frame(StrSerializer(), compressor=Zlib(max_decompressed_size=1000)).decode(ZLIB, bomb)
    with pytest.raises(Undecodable, match="decompress"):
        Frame(StrSerializer()).decode(ZLIB, bomb)


@pytest.mark.parametrize(("limit", "is_read"), [(1999, False), (2000, True), (2001, True)])
def test_the_limit_is_the_largest_readable_size(limit: int, is_read: bool) -> None:
    frame = Frame(StrSerializer(), compressor=Zlib(max_decompressed_size=limit))
    data = zlib.compress(TEXT.encode())
    if is_read:
        assert frame.decode(ZLIB, data) == TEXT
    else:
        with pytest.raises(Undecodable, match="decompress"):
            frame.decode(ZLIB, data)


def test_every_truncated_stream_is_undecodable() -> None:
    whole = zlib.compress(TEXT.encode())
    client = Client(FakeTransport(server := FakeServer()), StrSerializer(), on_undecodable="raise")
    for size in range(len(whole)):
        server.answer(b"ms k %d F%d\r\n%b\r\n" % (size, ZLIB, whole[:size]))
        with pytest.raises(DecodeError):
            client.get("k")
    assert client.undecodable["decompress"] == len(whole)


@pytest.mark.parametrize("tail", [b"\0", b"x", zlib.compress(b"more")])
def test_bytes_after_the_stream_are_undecodable(tail: bytes) -> None:
    with pytest.raises(Undecodable, match="decompress"):
        Frame(StrSerializer()).decode(ZLIB, zlib.compress(TEXT.encode()) + tail)


def test_a_damaged_stream_is_undecodable() -> None:
    whole = zlib.compress(TEXT.encode())
    for at in range(len(whole)):
        damaged = whole[:at] + bytes((whole[at] ^ 0x55,)) + whole[at + 1 :]
        with pytest.raises(Undecodable, match="decompress"):
            Frame(StrSerializer()).decode(ZLIB, damaged)


@pytest.mark.parametrize(
    ("name", "value"), [("min_size", -1), ("max_decompressed_size", 0), ("level", 0), ("level", 10)]
)
def test_settings_out_of_range_are_refused(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=name):
        Zlib(**{name: value})


class Odd:
    """A compressor with the id and the behaviour that a test needs."""

    min_size = 0

    def __init__(self, compressor_id: int) -> None:
        self.compressor_id = compressor_id

    def compress(self, data: bytes, /) -> bytes:
        raise ValueError(data)

    def decompress(self, data: bytes, /) -> bytes:
        return data


@pytest.mark.parametrize("compressor_id", [0, 16, -1])
def test_a_compressor_id_that_does_not_fit_its_bits_is_refused(compressor_id: int) -> None:
    with pytest.raises(InvalidArgumentError, match="compressor_id is 1 to 15"):
        Frame(StrSerializer(), compressor=Odd(compressor_id))


def test_a_compressor_that_fails_is_an_error_without_the_value() -> None:
    with pytest.raises(SerializationError) as refused:
        Frame(StrSerializer(), compressor=Odd(9)).encode("secret")
    assert str(refused.value) == "the compressor failed (ValueError)"
    assert refused.value.__cause__ is None


def test_an_installed_compressor_is_found_by_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
        class Reversed:
            compressor_id = 14
            min_size = 0
            def compress(self, data): return data[::-1][1:]
            def decompress(self, data): return b"!" + data[::-1]
        REVERSED = Reversed()
    """
    install(tmp_path, "metacache-reversed", {"reversed": "reversing:REVERSED"}, {"reversing": source}, "compressors")
    put_on_path(monkeypatch, tmp_path)
    installed_compressor.cache_clear()  # another test may have cached this id
    assert Frame(StrSerializer()).decode(PLAIN | 14 << 8, b"cba") == "!abc"
    installed_compressor.cache_clear()


def test_a_compressor_that_cannot_be_loaded_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install(tmp_path, "metacache-gone", {"gone": "no_such_module:GONE"}, {}, "compressors")
    put_on_path(monkeypatch, tmp_path)
    with caplog.at_level(logging.WARNING, "metacache"), pytest.raises(Undecodable, match="compressor"):
        Frame(StrSerializer()).decode(PLAIN | 13 << 8, b"cba")
    assert "compressor 'gone' cannot be loaded (ModuleNotFoundError)" in caplog.text
