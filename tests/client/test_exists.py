"""`exists`: whether the client can read the item, by its client flags and without its value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pytest

from metacache import (
    AsyncClient,
    ClosedError,
    DecodeError,
    InvalidKeyError,
    MetacacheError,
    OperationTimeout,
    PoolTimeout,
    ProtocolError,
    Serializer,
    ServerError,
)
from metacache.serializers import BytesSerializer, IntSerializer, JsonSerializer, StrSerializer
from tests.client.failing import SHAPES, failing
from tests.client.rig import Clients
from tests.client.states import FLAGS, MAGIC, STATES, all_items, look, put

SERIALIZERS: Final[Mapping[str, Serializer[object]]] = {
    "bytes": BytesSerializer(),  # type: ignore[dict-item]  # pyright: ignore[reportAssignmentType]  # no value is stored
    "str": StrSerializer(),  # type: ignore[dict-item]  # as above
    "int": IntSerializer(),  # type: ignore[dict-item]  # as above
    "json": JsonSerializer(int),
}


def expected(state: str, flags: str, serializer: Serializer[object], name: str, *, strict: bool) -> object:
    """Return the expected result of `exists`. It states the rule independently of the code."""
    value, is_stale, _ = STATES[state]
    if value is None or (value == b"" and is_stale and flags == "none"):
        return False  # a lease, or an item that looks like one
    number, own = FLAGS[flags], MAGIC | serializer.wire_id
    if number == 0:
        return name != "json" or (DecodeError if strict else False)
    shape = number >> 12 & 0xFFFF
    has_my_shape = not shape or not serializer.fingerprint or shape == serializer.fingerprint
    readable = number & 0xF00000FF == own and has_my_shape and number & 0xF00 in (0, 0x100)
    return readable or (DecodeError if strict else False)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", SERIALIZERS)
async def test_exists_is_right_for_every_state_and_flags(
    clients: Clients, key: str, name: str, *, strict: bool
) -> None:
    serializer = SERIALIZERS[name]
    client = clients.make(serializer, on_undecodable="raise" if strict else "miss")
    wrong: list[object] = []
    undecodable = 0
    for number, (state, flags) in enumerate(all_items()):
        case = f"{key}:{number}"
        put(clients.node, case, state, flags)
        found = await found_by(client, case)
        wanted = expected(state, flags, serializer, name, strict=strict)
        undecodable += expected(state, flags, serializer, name, strict=True) is DecodeError
        seen = look(clients.node, case)
        is_win_taken = seen is not None and b"W" not in seen.marks
        if found is not wanted or not is_win_taken:
            wrong.append((state, flags, found, wanted, seen))
    assert wrong == []
    assert sum(client.undecodable.values()) == undecodable
    assert set(clients.sent) == {"exists"}
    assert len(clients.sent) == len(list(all_items())), "one exchange each"


async def found_by(client: AsyncClient[object], key: str) -> object:
    try:
        return await client.exists(key)
    except DecodeError as error:
        located = (error.operation, error.key, error.maybe_applied) == ("exists", key, False) and error.node
        return DecodeError if located else error


async def test_exists_agrees_with_get_for_decodable_bytes(clients: Clients, key: str) -> None:
    texts = clients.make(StrSerializer(), prefix="p ", long_keys="hash")
    for odd in (key, key.encode(), f"{key} b", f"{key}\x00", "k" * 300 + key):
        assert await texts.exists(odd) is False
        await texts.set(odd, "")
        assert await texts.exists(odd) is True
        await texts.delete(odd)
        assert await texts.exists(odd) is False
    with pytest.raises(InvalidKeyError):
        await texts.exists("")


async def test_an_item_with_undecodable_bytes_exists(clients: Clients, key: str) -> None:
    put(clients.node, key, "fresh", "int")
    counters = clients.make(IntSerializer())
    assert await counters.exists(key) is True
    assert await counters.get(key) is None


@pytest.mark.parametrize("kind", [OperationTimeout, PoolTimeout, ServerError, ProtocolError])
@pytest.mark.parametrize("shape", SHAPES)
async def test_an_error_is_false_if_on_error_is_miss(shape: str, kind: type[MetacacheError]) -> None:
    with pytest.raises(kind):
        await failing(shape, kind, StrSerializer()).exists("k")
    client = failing(shape, kind, StrSerializer(), on_error="miss")
    assert await client.exists("k") is False
    assert dict(client.errors_as_misses) == {kind.__name__: 1}


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_closed_client_raises_even_if_on_error_is_miss(shape: str) -> None:
    client = failing(shape, ClosedError, StrSerializer(), on_error="miss")
    with pytest.raises(ClosedError):
        await client.exists("k")


async def test_exists_of_a_closed_client_raises(clients: Clients, key: str) -> None:
    texts = clients.make(StrSerializer())
    await texts.aclose()
    with pytest.raises(ClosedError, match="exists"):
        await texts.exists(key)
