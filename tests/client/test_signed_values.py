"""Clients with a `Signed` serializer: a value that no key signed is a miss."""

from __future__ import annotations

from typing import Final, final

import pytest

from metacache import DecodeError, InvalidArgumentError, Signed
from metacache.serializers import IntSerializer, StrSerializer
from metacache.serializers.frame import Frame
from tests.client.rig import Clients, store

KEY: Final = b"first-key-0123456"
OTHER: Final = b"of-another-program"


@final
class Recording:
    """A serializer of str that remembers what it was given to load."""

    wire_id = 16
    fingerprint = 0

    def __init__(self) -> None:
        self.loaded: list[bytes] = []

    def dumps(self, value: str, /) -> bytes:
        return value.encode()

    def loads(self, data: bytes, /) -> str:
        self.loaded.append(data)
        return data.decode()


async def test_a_forged_value_is_a_miss_and_the_inner_serializer_does_not_see_it(clients: Clients, key: str) -> None:
    inner = Recording()
    signed, forging = clients.make(Signed(inner, keys=[KEY])), clients.make(Signed(Recording(), keys=[OTHER]))
    assert await signed.set(key, "mine")
    assert await signed.get(key) == "mine"
    assert await forging.set(key, "forged")
    assert await signed.get(key) is None
    assert await signed.get_many([key]) == {}
    assert inner.loaded == [b"mine"]
    strict = clients.make(Signed(inner, keys=[KEY]), on_undecodable="raise")
    with pytest.raises(DecodeError):
        await strict.get(key)


async def test_the_server_cannot_change_a_signed_value(clients: Clients, key: str) -> None:
    numbers, texts = (
        clients.make(Signed(IntSerializer(), keys=[KEY])),
        clients.make(Signed(StrSerializer(), keys=[KEY])),
    )
    for call in (numbers.increment(key), numbers.decrement(key), texts.append(key, "x"), texts.prepend(key, "x")):
        with pytest.raises(InvalidArgumentError):
            await call
    assert clients.sent == []


async def test_a_plain_value_of_another_client_is_not_read(clients: Clients, key: str) -> None:
    numbers = clients.make(Signed(IntSerializer(), keys=[KEY]))
    store(clients.node, key, b"7", client_flags=0)
    assert await numbers.get(key) is None
    assert await clients.make(IntSerializer()).get(key) == 7


async def test_a_valid_value_that_is_moved_to_another_key_is_read(clients: Clients, key: str) -> None:
    """This is a limit, which the documentation states: a serializer does not see the key."""
    signed = Signed(StrSerializer(), keys=[KEY])
    flags, data = Frame(signed).encode("of one user")
    store(clients.node, f"{key}:of-another-user", data, client_flags=flags)
    assert await clients.make(signed).get(f"{key}:of-another-user") == "of one user"
