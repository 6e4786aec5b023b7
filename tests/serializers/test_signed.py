"""`Signed`: only a holder of a key makes values that are read, and the inner serializer sees no other bytes."""

from __future__ import annotations

import copy
import hashlib
import hmac
import pickle
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Generic, TypeVar, assert_type, final

import pytest

from metacache import (
    InvalidArgumentError,
    InvalidTypeError,
    SerializationError,
    Serializer,
    Signed,
    Zlib,
    connect,
    load_serializer,
)
from metacache.serializers import BytesSerializer, IntSerializer, JsonSerializer, StrSerializer
from metacache.serializers.frame import Frame, Undecodable
from metacache.testing import Memcached, check_serializer
from tests.serializers.text import Text

T = TypeVar("T")

KEY: Final = b"first-key-0123456"
NEXT: Final = b"second-key-012345"
OTHER: Final = b"of-another-program"


@final
class Recording(Generic[T]):
    """A serializer that remembers what it was given to load."""

    def __init__(self, inner: Serializer[T]) -> None:
        self.wire_id = inner.wire_id
        self.fingerprint = inner.fingerprint
        self.dumps = inner.dumps
        self.inner = inner
        self.loaded: list[bytes] = []

    def loads(self, data: bytes, /) -> T:
        self.loaded.append(data)
        return self.inner.loads(data)


INNERS: Final[list[tuple[Serializer[Any], Any]]] = [  # Any: a value of the serializer's type
    (BytesSerializer(), b""),
    (BytesSerializer(), b"bytes"),
    (StrSerializer(), "ä"),
    (IntSerializer(), -7),
    (JsonSerializer(dict[str, list[int]]), {"a": [1, 2]}),
    (load_serializer("msgspec", list[int] | None), None),
    (load_serializer("pydantic", tuple[int, str]), (1, "a")),
    (Signed(StrSerializer(), keys=[OTHER]), "signed twice"),
]


@pytest.mark.parametrize(("inner", "value"), INNERS, ids=lambda each: type(each).__name__)
def test_a_signed_serializer_keeps_the_contract(inner: Serializer[Any], value: object) -> None:  # Any: as in INNERS
    unsigned = inner.dumps(value)
    check_serializer(
        Signed(inner, keys=[KEY]), values=[value], refused_bytes=[unsigned, b"", b"\0" * 32 + unsigned, unsigned * 40]
    )


def test_the_code_is_hmac_sha256_of_the_purpose_the_inner_ids_and_the_value() -> None:
    data = Signed(Text(96, 0x1234), keys=[KEY, NEXT]).dumps("x")
    expected = hmac.new(KEY, b"metacache signed value 1\0" + bytes((96, 0x12, 0x34)) + b"x", hashlib.sha256).digest()
    assert data == expected + b"x"


def test_every_damaged_byte_and_every_truncation_is_refused_before_the_inner_serializer() -> None:
    inner = Recording(StrSerializer())
    frame = Frame(Signed(inner, keys=[KEY, NEXT]))
    flags, data = frame.encode("text of a value")
    damaged = [
        data[:position] + bytes([data[position] ^ mask]) + data[position + 1 :]
        for position in range(len(data))
        for mask in (1, 0x20, 0x80, 0xFF)
    ]
    damaged += [data[:size] for size in range(len(data))]
    damaged += [data[start:] for start in range(1, len(data))]
    damaged += [data + b"\0", b"\0" + data, data[:32] + data]
    for each in damaged:
        with pytest.raises(Undecodable) as undecodable:
            frame.decode(flags, each)
        assert undecodable.value.cause == "decode"
    assert inner.loaded == []
    assert frame.decode(flags, data) == "text of a value"
    assert inner.loaded == [b"text of a value"]


def test_the_first_key_signs_and_every_key_verifies() -> None:
    old, both, swapped, new = (Signed(StrSerializer(), keys=keys) for keys in ([KEY], [KEY, NEXT], [NEXT, KEY], [NEXT]))
    by_old, by_new = old.dumps("x"), new.dumps("x")
    assert both.dumps("x") == by_old
    assert swapped.dumps("x") == by_new
    assert [each.loads(by_old) for each in (old, both, swapped)] == ["x"] * 3
    assert [each.loads(by_new) for each in (both, swapped, new)] == ["x"] * 3
    for refusing, data in ((new, by_old), (old, by_new)):
        with pytest.raises(SerializationError, match="not signed with one of these keys"):
            refusing.loads(data)


def test_codes_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def comparing(one: bytes, other: bytes, /) -> bool:
        compared.append((one, other))
        return False

    monkeypatch.setattr(hmac, "compare_digest", comparing)
    signed = Signed(StrSerializer(), keys=[KEY, NEXT])
    data = signed.dumps("x")
    with pytest.raises(SerializationError):  # so nothing else compares codes
        signed.loads(data)
    assert [one for one, _ in compared] == [data[:32]] * 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Text(96, 1), Text(128, 1)),
        (Text(96, 1), Text(96, 2)),
        (Text(96, 0), Text(96, 1)),
        (StrSerializer(), BytesSerializer()),
    ],
    ids=repr,
)
def test_a_value_of_another_inner_type_is_refused_by_its_flags_and_by_its_code(
    one: Serializer[Any],  # Any: of any type
    other: Serializer[Any],  # Any: as above
) -> None:
    writer, reader = Signed(one, keys=[KEY]), Signed(other, keys=[KEY])
    assert writer.fingerprint != reader.fingerprint
    with pytest.raises(SerializationError):
        reader.loads(writer.dumps("x" if not isinstance(one, BytesSerializer) else b"x"))


def test_the_fingerprint_is_never_0_and_does_not_change_between_releases() -> None:
    every = {(wire_id, number): Signed(Text(wire_id, number), keys=[KEY]).fingerprint
             for wire_id in (96, 240) for number in range(1, 0x10000, 3)}  # fmt: skip
    assert all(0 < each <= 0xFFFF for each in every.values())
    # 43,690 random numbers of 16 bits have about 32,000 different values.
    assert len(set(every.values())) > 30_000
    assert Signed(StrSerializer(), keys=[KEY]).fingerprint == Signed(StrSerializer(), keys=[NEXT]).fingerprint
    numbers = JsonSerializer(list[int])
    assert [Signed(StrSerializer(), keys=[KEY]).fingerprint, Signed(numbers, keys=[KEY]).fingerprint] == GOLDEN


GOLDEN: Final = [59028, 24808]


def test_a_fingerprint_of_0_becomes_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def digest(_: bytes) -> int:
        return 0xABC0000

    monkeypatch.setattr("metacache.serializers.signed.xxh3_64_intdigest", digest)
    assert Signed(StrSerializer(), keys=[KEY]).fingerprint == 1


def test_unsigned_values_are_never_read() -> None:
    frame = Frame(Signed(StrSerializer(), keys=[KEY]))
    for flags in (0, Frame(StrSerializer()).flags, frame.flags & ~0xFFFF000):
        with pytest.raises(Undecodable):
            frame.decode(flags, b"x")


def test_signed_values_are_compressed_and_verified_after_decompression() -> None:
    inner = Recording(StrSerializer())
    frame = Frame(Signed(inner, keys=[KEY]), compressor=Zlib(min_size=0))
    flags, data = frame.encode("x" * 1000)
    assert len(data) < 100
    assert frame.decode(flags, data) == "x" * 1000
    with pytest.raises(Undecodable):
        frame.decode(flags, Zlib().compress(b"\0" * 32 + b"x" * 1000))
    assert inner.loaded == [b"x" * 1000]


def test_threads_share_one_signed_serializer() -> None:
    signed = Signed(BytesSerializer(), keys=[KEY, NEXT])

    def run(number: int) -> bool:
        values = [bytes([number]) * size for size in range(0, 20_000, 500)]  # hashing more than 2 KiB releases the GIL
        return [signed.loads(signed.dumps(value)) for value in values] == values

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(run, range(64)))


# --- invalid arguments -----------------------------------------------------------------------------------------------

SECRET: Final = b"canary"


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        ([], InvalidArgumentError, "needs at least one key"),
        ([SECRET], InvalidArgumentError, "key number 1 of Signed is shorter than 16 bytes"),
        ([KEY, SECRET * 2], InvalidArgumentError, "key number 2 of Signed is shorter than 16 bytes"),
        ([SECRET.decode() * 5], InvalidTypeError, "key number 1 of Signed must be bytes, not str"),
        ([bytearray(SECRET * 5)], InvalidTypeError, "key number 1 of Signed must be bytes, not bytearray"),
        (SECRET * 5, InvalidTypeError, "keys must be a list of bytes, not bytes"),
        (SECRET.decode(), InvalidTypeError, "keys must be a list of bytes, not str"),
        (None, InvalidTypeError, "keys must be a list of bytes, not NoneType"),
    ],
    ids=lambda each: each.__name__ if isinstance(each, type) else "",
)
def test_invalid_keys_are_refused_and_never_shown(keys: Iterable[bytes], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        Signed(StrSerializer(), keys=keys)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value.args) + repr(vars(caught.value))
    assert "canary" not in shown
    assert b"canary" not in pickle.dumps(caught.value)


def test_a_key_of_16_bytes_is_accepted_and_one_of_15_is_not() -> None:
    assert Signed(StrSerializer(), keys=[b"k" * 16]).dumps("x")
    with pytest.raises(InvalidArgumentError):
        Signed(StrSerializer(), keys=[b"k" * 15])


@pytest.mark.parametrize("inner", ["json", StrSerializer, None, object()], ids=["name", "class", "None", "object"])
def test_another_object_than_a_serializer_is_refused(inner: Any) -> None:  # Any: of a wrong type
    with pytest.raises(InvalidTypeError, match="Signed takes a serializer, such as load_serializer"):
        Signed(inner, keys=[KEY])


@pytest.mark.parametrize("inner", [Text(1, 1), Text(33, 1), Text(2, 0), Text(240, 0)], ids=["1", "33", "2", "private"])
def test_an_inner_serializer_with_ids_that_a_client_refuses_is_refused(inner: Serializer[str]) -> None:
    with pytest.raises(InvalidArgumentError, match="wire_id"):
        Signed(inner, keys=[KEY])


def test_no_key_is_in_a_repr_an_attribute_a_copy_or_a_pickle() -> None:
    signed = Signed(StrSerializer(), keys=[SECRET * 3, SECRET * 4])
    assert repr(signed) == "<Signed StrSerializer: 2 keys>"
    assert "canary" not in str(signed)
    attributes = [getattr(signed, name) for name in ("_codes", "_inner", "fingerprint", "wire_id")]
    assert "canary" not in repr(attributes)
    takers: list[Callable[[object], object]] = [copy.copy, copy.deepcopy, pickle.dumps]
    for take in takers:
        with pytest.raises(InvalidTypeError, match="a Signed cannot be copied or pickled"):
            take(signed)


# --- in clients ------------------------------------------------------------------------------------------------------


def test_a_client_has_the_type_of_the_inner_serializer(shared_memcached: Memcached) -> None:
    signed = Signed(load_serializer("json", dict[str, int]), keys=[KEY])
    assert_type(signed, Signed[dict[str, int]])
    serializer: Serializer[dict[str, int]] = signed
    with connect(shared_memcached.url, dict[str, int], serializer=serializer, prefix="signed:") as client:
        assert client.set("typed", {"a": 1})
        assert_type(client.get("typed"), dict[str, int] | None)
        assert client.get("typed") == {"a": 1}
