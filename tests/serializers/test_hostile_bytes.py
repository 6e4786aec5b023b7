"""Bytes that announce much, nest deeply or inflate are undecodable in little memory and little time."""

from __future__ import annotations

import datetime
import time
import tracemalloc
import zlib
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any, Final

import attrs
import pytest

from metacache import InvalidTypeError, Serializer, Signed, Zlib, available_serializers, load_serializer
from metacache.serializers import StrSerializer
from metacache.serializers.frame import Frame, Undecodable


@attrs.frozen
class Order:
    number: int
    lines: list[int]
    total: Decimal


MIB: Final = 1 << 20
SECONDS: Final = 10.0  # far more than is needed, far less than a payload that is not linear takes
SIZE: Final = 200_000

TEXTS: Final = {
    "nested lists": b"[" * SIZE,
    "nested lists, closed": b"[" * SIZE + b"]" * SIZE,
    "nested objects": b'{"a":' * SIZE,
    "a number of many digits": b"9" * SIZE,
    "a list of a number of many digits": b"[" + b"9" * SIZE + b"]",
    "a large exponent": b"1e999999999",
    "a small exponent": b"1e-999999999",
    "a large exponent in a string": b'"1E+999999999999999999"',
    "a long duration": b'"P999999999999999999D"',
    "a late time": b'"9999-12-31T23:59:59.999999-23:59"',
    "many equal keys": b"{" + b",".join([b'"a":1'] * 20_000) + b"}",
    "many escapes": b'"' + b"\\u0041" * 20_000 + b'"',
}
BINARY: Final = {
    "a long list": b"\xdd\xff\xff\xff\xff",
    "a long map": b"\xdf\xff\xff\xff\xff",
    "long bytes": b"\xc6\xff\xff\xff\xff",
    "a long text": b"\xdb\xff\xff\xff\xff",
    "a long extension": b"\xc9\xff\xff\xff\xff\x01",
    "long lists in long lists": b"\xdd\xff\xff\xff\xff" * 1000,
    "nested lists": b"\x91" * SIZE,
    "nested maps": b"\x81\xa1a" * SIZE,
    "a large exponent in a string": b"\xad1E+9999999999",
}
# Any: types of every kind.
TYPES: Final[tuple[Any, ...]] = (
    *(Any, int, float, str, bytes, list[int], dict[str, int], list[Any] | None, frozenset[int]),
    *(Decimal, datetime.timedelta, datetime.datetime, Order),
)


def measured(load: Callable[[], object]) -> tuple[float, int]:
    """Return the seconds and the most bytes that *load* takes; it may raise any Exception."""
    tracemalloc.start()
    began = time.perf_counter()
    try:
        load()
    except Exception:  # the bytes are undecodable
        pass
    finally:
        seconds = time.perf_counter() - began
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return seconds, peak


def serializers_of(name: str) -> list[Serializer[Any]]:  # Any: of each type in TYPES
    found: list[Serializer[Any]] = []  # Any: as above
    for type_ in TYPES:
        try:
            found.append(load_serializer(name, type_))
        except InvalidTypeError:  # it does not serve the type
            continue
    return found


NAMES: Final = [info.name for info in available_serializers()]


@pytest.mark.parametrize("name", NAMES)
def test_hostile_bytes_take_little_memory_and_time(name: str) -> None:
    serializers = serializers_of(name)
    assert serializers
    payloads = {**TEXTS, **(BINARY if serializers[0].wire_id % 32 == 0 else {})}
    costly: list[tuple[str, float, int]] = []
    for serializer in serializers:
        for what, data in payloads.items():
            seconds, peak = measured(partial(serializer.loads, data))
            if seconds > SECONDS or peak > 20 * len(data) + MIB:
                costly.append((what, seconds, peak))
    assert costly == []


def test_the_measure_sees_memory() -> None:
    _, peak = measured(lambda: b"x" * (30 * MIB))
    assert peak >= 30 * MIB


BOMB: Final = zlib.compress(b"\0" * (200 * MIB), 9)


@pytest.mark.parametrize("limit", [1000, MIB, 8 * MIB])
def test_decompression_takes_memory_of_its_limit_at_most(limit: int) -> None:
    frame = Frame(StrSerializer(), compressor=Zlib(max_decompressed_size=limit))
    seconds, peak = measured(lambda: frame.decode(frame.flags | 1 << 8, BOMB))
    assert seconds < SECONDS
    assert peak < 3.5 * limit + len(BOMB) + MIB  # zlib's output is copied while it grows
    with pytest.raises(Undecodable, match="decompress"):
        frame.decode(frame.flags | 1 << 8, BOMB)


def test_a_signed_value_is_not_inflated_beyond_the_limit_before_it_is_verified() -> None:
    signed = Signed(StrSerializer(), keys=[b"k" * 16])
    frame = Frame(signed, compressor=Zlib(max_decompressed_size=MIB))
    _, peak = measured(lambda: frame.decode(frame.flags | 1 << 8, BOMB))
    assert peak < 3.5 * MIB + len(BOMB) + MIB
