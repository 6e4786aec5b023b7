"""The 32 client flags: the meaning of each bit, and how a reader handles other flags."""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar, final

import pytest

from metacache import InvalidArgumentError, SerializationError, Serializer, Zlib
from metacache.serializers.builtin import BytesSerializer, IntSerializer, JsonSerializer, StrSerializer
from metacache.serializers.frame import Cause, Frame, Undecodable
from tests.serializers.text import Text

T = TypeVar("T")

MAGIC: Final = 0b1011 << 28


@final
class Broken(Generic[T]):
    """A serializer that raises *error*, whose message quotes the value, as errors of libraries do."""

    wire_id = 208
    fingerprint = 0

    def __init__(self, error: Exception) -> None:
        self._error = error

    def dumps(self, _: T, /) -> bytes:
        raise self._error

    def loads(self, _: bytes, /) -> T:
        raise self._error


def cause_of(frame: Frame[T], flags: int, data: bytes = b"x") -> Undecodable:
    with pytest.raises(Undecodable) as undecodable:
        frame.decode(flags, data)
    return undecodable.value


@pytest.mark.parametrize(
    ("wire_id", "fingerprint", "flags"),
    [
        (16, 0, 0xB0000010),
        (240, 1, 0xB00010F0),
        (96, 1, 0xB0001060),
        (96, 0xFFFF, 0xBFFFF060),
        (32, 0x1234, 0xB1234020),
    ],
)
def test_flags_are_magic_fingerprint_compressor_and_wire_id(wire_id: int, fingerprint: int, flags: int) -> None:
    frame = Frame(Text(wire_id, fingerprint))
    assert frame.encode("x") == (flags, b"x")
    assert frame.decode(flags, b"x") == "x"


def test_the_compressor_id_is_in_bits_11_to_8() -> None:
    flags, data = Frame(Text(96, 0x1234), compressor=Zlib(min_size=0)).encode("x" * 1000)
    assert flags == 0xB1234160
    assert Frame(Text(96, 0x1234)).decode(flags, data) == "x" * 1000


@pytest.mark.parametrize(
    ("serializer", "value"), [(BytesSerializer(), b"12"), (StrSerializer(), "12"), (IntSerializer(), 12)]
)
# Any: a serializer of any type.
def test_flags_0_are_readable_with_reads_plain(serializer: Serializer[Any], value: object) -> None:
    assert cause_of(Frame(serializer), 0, b"12").cause == "foreign_flags"
    assert Frame(serializer, reads_plain=True).decode(0, b"12") == value


@pytest.mark.parametrize(
    ("flags", "cause", "wire_id", "fingerprint"),
    [
        (0, "foreign_flags", 0, 0),
        (1, "foreign_flags", 0, 0),
        (0xA1234060, "foreign_flags", 0, 0),
        (0xF1234060, "foreign_flags", 0, 0),
        (0x1_B1234060, "foreign_flags", 0, 0),
        (0xB1234061, "wire_id", 97, 0x1234),
        (0xB0000001, "wire_id", 1, 0),
        (0xB1235060, "fingerprint", 96, 0x1235),
        (0xB1234960, "compressor", 96, 0x1234),
        (0xB1234160, "decompress", 96, 0x1234),
    ],
)
def test_other_flags_are_undecodable_with_a_cause(flags: int, cause: Cause, wire_id: int, fingerprint: int) -> None:
    found = cause_of(Frame(Text(96, 0x1234)), flags)
    assert (found.cause, found.wire_id, found.fingerprint) == (cause, wire_id, fingerprint)


def test_fingerprints_are_compared_only_if_both_sides_have_one() -> None:
    assert Frame(Text(96, 0)).decode(0xB1234060, b"x") == "x"
    assert Frame(Text(96, 0x1234)).decode(0xB0000060, b"x") == "x"


@pytest.mark.parametrize("error", [ValueError("secret"), KeyError("secret"), RecursionError("secret")])
def test_any_exception_of_loads_is_undecodable(error: Exception) -> None:
    frame: Frame[str] = Frame(Broken(error))
    found = cause_of(frame, frame.flags)
    assert (found.cause, found.wire_id) == ("decode", 208)
    assert "secret" not in str(found)


def test_the_error_for_an_exception_of_dumps_does_not_quote_the_value() -> None:
    frame: Frame[str] = Frame(Broken(ValueError("secret")))
    with pytest.raises(SerializationError) as refused:
        frame.encode("secret")
    assert str(refused.value) == "the serializer refused a value of class str (ValueError)"
    assert refused.value.__cause__ is None


def test_a_serializer_that_does_not_return_bytes_is_refused() -> None:
    class Lax:
        wire_id = 128
        fingerprint = 0

        def dumps(self, value: str, /) -> bytes:
            return bytearray(value.encode())  # type: ignore[return-value]  # the fault under test  # pyright: ignore[reportReturnType] - as said

        def loads(self, data: bytes, /) -> str:
            return data.decode()

    with pytest.raises(SerializationError, match="returned bytearray, not bytes"):
        Frame(Lax()).encode("x")


@pytest.mark.parametrize(
    ("wire_id", "fingerprint", "message"),
    [
        (0, 0, "wire_id is 1 to 255, not 0"),
        (256, 0, "not 256"),
        (-1, 0, "not -1"),
        (96, 65536, "fingerprint is 0 to 65535"),
    ],
)
def test_ids_out_of_range_are_refused(wire_id: int, fingerprint: int, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        Frame(Text(wire_id, fingerprint))


def test_json_flags_carry_the_fingerprint_of_the_type() -> None:
    serializer = JsonSerializer(list[int])
    assert Frame(serializer).flags == MAGIC | serializer.fingerprint << 12 | 48
    assert Frame(JsonSerializer(list[str])).flags != Frame(serializer).flags
