"""Invalid parts of a client and invalid numbers for arithmetic raise a typed error before anything is sent."""

from __future__ import annotations

import math
from typing import Any, Final, final

import pytest

from metacache import InvalidArgumentError, Zlib
from metacache.serializers import IntSerializer
from tests.client.rig import Clients

# Any, here and below: wrong types on purpose.
NUMBERS: Final[tuple[Any, ...]] = (-1, 2**64, 10**5000, "1", True, 1.0, math.nan, b"1")
TTLS: Final[tuple[Any, ...]] = (0, -1, True, 1.5, math.nan, 2**31, "1 q")


@pytest.mark.parametrize("verb", ["increment", "decrement"])
async def test_an_arithmetic_argument_out_of_range_is_refused_by_name(clients: Clients, verb: str) -> None:
    arithmetic: Any = getattr(clients.make(IntSerializer()), verb)
    calls = [
        *(("delta", {"delta": bad}) for bad in (*NUMBERS, None)),
        *(("delta", {"delta": bad, "initial": 5}) for bad in NUMBERS),
        *(("initial", {"initial": bad}) for bad in NUMBERS),
        *(("ttl", {"ttl": bad}) for bad in TTLS),
        *(("ttl", {"ttl": bad, "initial": 5}) for bad in TTLS),
    ]
    for name, arguments in calls:
        with pytest.raises(InvalidArgumentError, match=f"{verb} 'key': {name} ") as raised:
            await arithmetic("key", **arguments)
        assert (raised.value.operation, raised.value.key) == (verb, "key")
        assert len(str(raised.value)) < 200
    assert clients.sent == []


async def test_the_limits_of_the_range_are_accepted(clients: Clients, key: str) -> None:
    counters = clients.make(IntSerializer())
    assert await counters.increment(key, 0, initial=0) == 0
    assert await counters.increment(key, 2**64 - 1) == 2**64 - 1
    assert await counters.decrement(key, 2**64 - 1) == 0
    assert await counters.increment(f"{key}:2", initial=2**64 - 1) == 2**64 - 1


@pytest.mark.parametrize("attempts", [0, -1, True, 1.5, "3", None])
async def test_update_requires_at_least_one_attempt(clients: Clients, attempts: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="update 'key': attempts is ") as raised:
        await clients.blobs().update("key", lambda _: b"v", attempts=attempts)
    assert (raised.value.operation, raised.value.key) == ("update", "key")
    assert clients.sent == []


async def test_update_requires_a_function(clients: Clients) -> None:
    client: Any = clients.blobs()
    with pytest.raises(InvalidArgumentError, match="fn is a function that takes the current value, not bytes"):
        await client.update("key", b"v")
    assert clients.sent == []


@final
class Odd:
    """A serializer and compressor with ids that do not fit their bits."""

    def __init__(self, *, wire_id: int = 96, fingerprint: int = 0, compressor_id: int = 9) -> None:
        self.wire_id = wire_id
        self.fingerprint = fingerprint
        self.compressor_id = compressor_id
        self.min_size = 0

    def dumps(self, value: bytes, /) -> bytes:
        return value

    def loads(self, data: bytes, /) -> bytes:
        return data

    def compress(self, data: bytes, /) -> bytes:
        return data

    def decompress(self, data: bytes, /) -> bytes:
        return data


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"wire_id": 0}, "a serializer's wire_id is 1 to 255, not 0"),
        ({"wire_id": 256}, "a serializer's wire_id is 1 to 255, not 256"),
        ({"fingerprint": -1}, "a fingerprint is 0 to 65535, not -1"),
        ({"fingerprint": 65536}, "a fingerprint is 0 to 65535, not 65536"),
    ],
    ids=str,
)
async def test_the_ids_of_a_serializer_must_fit_their_bits(
    clients: Clients, numbers: dict[str, int], message: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        clients.make(Odd(**numbers))


@pytest.mark.parametrize("compressor_id", [0, 16])
async def test_the_id_of_a_compressor_must_fit_its_bits(clients: Clients, compressor_id: int) -> None:
    with pytest.raises(InvalidArgumentError, match="a compressor_id is 1 to 15"):
        clients.blobs(compressor=Odd(compressor_id=compressor_id))


async def test_the_largest_numbers_that_fit_are_stored_and_read(clients: Clients, key: str) -> None:
    client = clients.make(Odd(wire_id=240, fingerprint=65535), compressor=Zlib(min_size=0))
    await client.set(key, b"v" * 100)
    item = await client.get_item(key)
    assert item is not None
    assert item.client_flags == 0b1011 << 28 | 65535 << 12 | 1 << 8 | 240
    assert item.value == b"v" * 100


@pytest.mark.parametrize("serializer", ["msgspec", 5, object(), bytes, Zlib()], ids=lambda given: type(given).__name__)
async def test_an_object_that_is_not_a_serializer_is_refused(clients: Clients, serializer: Any) -> None:
    with pytest.raises(
        InvalidArgumentError, match=r"a client takes a Serializer, not .*; load_serializer\(name, type\)"
    ):
        clients.make(serializer)
