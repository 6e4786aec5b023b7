"""`increment` and `decrement`, and `update` with its compare-and-set loop."""

from __future__ import annotations

import msgspec
import pytest

from metacache import (
    AsyncClient,
    ClientError,
    ConflictError,
    ConnectionLost,
    DecodeError,
    InvalidArgumentError,
    SerializationError,
    ServerError,
    Zlib,
    load_serializer,
)
from metacache.serializers import IntSerializer, StrSerializer
from tests.client.rig import KINDS, Clients, lease, store
from tests.scripted import Peer, ScriptedServer

U64 = 2**64


async def ttl_of(client: AsyncClient[int], key: str) -> int | None:
    item = await client.get_item(key)
    assert item is not None
    return item.ttl


# --- increment and decrement ------------------------------------------------------------------------------------------


async def test_an_absent_number_is_none(counters: AsyncClient[int], key: str) -> None:
    assert await counters.increment(key) is None
    assert await counters.decrement(key, 5) is None
    assert await counters.get(key) is None


async def test_increment_and_decrement_return_the_new_number(counters: AsyncClient[int], key: str) -> None:
    await counters.set(key, 5)
    assert await counters.increment(key) == 6
    assert await counters.increment(key, 0) == 6
    assert await counters.increment(key, 94) == 100
    assert await counters.decrement(key, 1) == 99
    assert await counters.get(key) == 99
    assert await counters.get_many([key]) == {key: 99}
    assert await counters.decrement(key.encode(), 100) == 0, "it stops at 0"


async def test_increment_wraps_at_two_to_the_64(counters: AsyncClient[int], key: str) -> None:
    await counters.set(key, U64 - 1)
    assert await counters.increment(key, 0) == U64 - 1
    assert await counters.increment(key, 3) == 2
    assert await counters.get(key) == 2
    assert await counters.increment(key, U64 - 1) == 1


async def test_initial_is_stored_if_the_key_does_not_exist(counters: AsyncClient[int], key: str) -> None:
    assert await counters.increment(key, 5, initial=10) == 10
    assert await counters.increment(key, 5, initial=10) == 15
    assert await counters.decrement(f"{key} down", 5, initial=U64 - 1) == U64 - 1
    assert await counters.get(f"{key} down") == U64 - 1


async def test_a_number_padded_by_the_server_is_read(counters: AsyncClient[int], key: str) -> None:
    await counters.set(key, 10)
    assert await counters.decrement(key) == 9
    item = await counters.get_item(key)
    assert item is not None
    assert (item.value, item.size) == (9, 2), "stored as '9 '"
    assert await counters.get_items([key]) == {key: await counters.get_item(key)}
    assert await counters.increment(key) == 10


async def test_only_a_given_ttl_changes_the_ttl_of_a_number(clients: Clients, key: str) -> None:
    counters = clients.make(IntSerializer(), default_ttl=1000)
    await counters.increment(key, initial=1)
    left = await ttl_of(counters, key)
    assert left is not None
    assert 990 < left <= 1000, "the default is for what is created"
    await counters.touch(key, 50)
    await counters.increment(key)
    await counters.increment(key, initial=1)
    left = await ttl_of(counters, key)
    assert left is not None
    assert left <= 50
    await counters.increment(key, ttl=500)
    left = await ttl_of(counters, key)
    assert left is not None
    assert 490 < left <= 500
    await counters.increment(key, ttl=None)
    assert await ttl_of(counters, key) is None


@pytest.mark.parametrize(("before", "delta"), [(9, 1), (99, 1), (1, 999), (9, U64 - 10)])
async def test_a_number_that_gains_a_digit_gets_the_new_ttl(
    counters: AsyncClient[int], key: str, before: int, delta: int
) -> None:
    await counters.set(key, before, ttl=50)
    assert await counters.increment(key, delta, ttl=500) == before + delta
    left = await ttl_of(counters, key)
    assert left is not None
    assert 490 < left <= 500
    await counters.set(key, before, ttl=50)
    await counters.increment(key, delta, initial=1, ttl=500)
    left = await ttl_of(counters, key)
    assert left is not None
    assert 490 < left <= 500


async def test_arithmetic_without_ttl_is_one_request(clients: Clients, key: str) -> None:
    counters = clients.make(IntSerializer(), default_ttl=100)
    await counters.increment(key, initial=20)
    await counters.increment(key)
    await counters.decrement(key)
    assert clients.sent == ["increment"] * 2 + ["decrement"]


@pytest.mark.parametrize("kind", KINDS)
async def test_an_error_of_the_touch_says_that_the_number_may_have_changed(kind: str) -> None:
    def script(peer: Peer) -> None:
        peer.request().answer(b"VA 2", b"10")
        peer.request()
        peer.rst()

    with ScriptedServer(script) as server:
        clients = Clients(kind, server.node)
        with pytest.raises(ConnectionLost) as raised:
            await clients.make(IntSerializer()).increment("k", ttl=100)
        assert (raised.value.operation, raised.value.key, raised.value.maybe_applied) == ("increment", "k", True)
        await clients.aclose()


async def test_a_negative_number_can_be_stored_but_not_incremented(counters: AsyncClient[int], key: str) -> None:
    await counters.set(key, -5)
    assert await counters.get(key) == -5
    with pytest.raises(ClientError, match="the stored value is not a number") as raised:
        await counters.increment(key)
    assert (raised.value.operation, raised.value.key) == ("increment", key)
    assert await counters.get(key) == -5, "the connection goes on"
    big = 10**30
    await counters.set(key, big)
    assert await counters.get(key) == big


async def test_text_that_is_not_a_number_is_a_miss(clients: Clients, key: str) -> None:
    counters = clients.make(IntSerializer())
    for wrong in (b"", b"text", b"+5", b" 5", b"5_0", "٣".encode(), b"5\n", b"1.0", b"-"):
        store(clients.node, key, wrong)
        assert await counters.get(key) is None
    assert counters.undecodable["decode"] == 9
    store(clients.node, key, b"41")
    assert await counters.increment(key) == 42, "another client's number counts"


async def test_bool_is_refused_as_an_int(clients: Clients, key: str) -> None:
    with pytest.raises(SerializationError, match="expected int, got bool"):
        await clients.make(IntSerializer()).set(key, True)  # noqa: FBT003 - bool on purpose
    assert clients.sent == []


async def test_arithmetic_needs_the_built_in_serializer_and_no_compressor(clients: Clients, key: str) -> None:
    foreign = clients.make(load_serializer("msgspec", int))
    packing = clients.make(IntSerializer(), compressor=Zlib())
    for counters in (foreign, packing):
        with pytest.raises(InvalidArgumentError, match=f"increment '{key}': increment needs the built-in serializer"):
            await counters.increment(key)
        with pytest.raises(InvalidArgumentError, match="decrement needs the built-in serializer of int"):
            await counters.decrement(key, initial=1)
    assert clients.sent == []


# --- update -----------------------------------------------------------------------------------------------------------


class User(msgspec.Struct, frozen=True):
    name: str
    visits: int = 0


def visited(user: User | None) -> User:
    return User("Zoë", 1) if user is None else User(user.name, user.visits + 1)


async def test_update_stores_the_result_of_the_function(clients: Clients, key: str) -> None:
    users = clients.make(load_serializer("msgspec", User))
    assert await users.update(key, visited) == User("Zoë", 1)
    assert await users.update(key, visited) == User("Zoë", 2)
    assert await users.get(key) == User("Zoë", 2)


async def test_update_replaces_a_lease_by_cas(clients: Clients, key: str) -> None:
    texts = clients.make(StrSerializer())
    lease(clients.node, key)
    assert await texts.update(key, lambda found: "none" if found is None else found) == "none"
    assert await texts.get(key) == "none"


async def test_update_replaces_an_undecodable_value(clients: Clients, key: str) -> None:
    await clients.make(load_serializer("msgspec", int)).set(key, 5)
    texts = clients.make(StrSerializer())
    assert await texts.update(key, lambda found: "none" if found is None else found) == "none"
    assert texts.undecodable["wire_id"] == 1
    assert await texts.get(key) == "none"


async def test_update_of_a_strict_client_raises_for_an_undecodable_value(clients: Clients, key: str) -> None:
    await clients.make(load_serializer("msgspec", int)).set(key, 5)
    strict = clients.make(StrSerializer(), on_undecodable="raise")
    with pytest.raises(DecodeError) as raised:
        await strict.update(key, lambda _: "v")
    assert (raised.value.operation, raised.value.key) == ("update", key)


@pytest.mark.parametrize("rounds", [0, 1, 3])
async def test_update_retries_if_another_writer_stores_in_between(clients: Clients, key: str, rounds: int) -> None:
    seen: list[int | None] = []

    def count(found: int | None) -> int:
        seen.append(found)
        if len(seen) <= rounds:
            store(clients.node, key, b"%d" % (len(seen) * 100))
        return (found or 0) + 1

    counters = clients.make(IntSerializer())
    assert await counters.update(key, count, ttl=100) == rounds * 100 + 1
    # At first the key is absent, so the client loses an add; after that it loses compare-and-sets.
    assert seen == [None, *(number * 100 for number in range(1, rounds + 1))]
    assert await counters.get(key) == rounds * 100 + 1


async def test_update_gives_up_after_the_given_attempts(clients: Clients, key: str) -> None:
    calls: list[int] = []

    def lose(_: int | None) -> int:
        calls.append(1)
        store(clients.node, key, b"%d" % len(calls))
        return 1000

    counters = clients.make(IntSerializer())
    with pytest.raises(ConflictError, match=f"update '{key}': another writer was first in each of 3 attempts"):
        await counters.update(key, lose, attempts=3)
    assert len(calls) == 3
    assert await counters.get(key) == 3, "the item holds what the other stored"


async def test_an_exception_of_the_function_propagates_and_nothing_is_stored(clients: Clients, key: str) -> None:
    def fail(_: int | None) -> int:
        raise LookupError("mine")

    counters = clients.make(IntSerializer())
    with pytest.raises(LookupError, match="mine"):
        await counters.update(key, fail)
    with pytest.raises(SerializationError) as raised:
        await counters.update(key, lambda _: "no number")  # type: ignore[arg-type, return-value]  # pyright: ignore[reportArgumentType]  # a wrong type on purpose
    assert (raised.value.operation, raised.value.key) == ("update", key)
    assert await counters.get(key) is None


@pytest.mark.parametrize("kind", ["Connection", "AsyncConnection"])
async def test_update_raises_errors_even_if_on_error_is_miss(kind: str) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(b"SERVER_ERROR busy\r\n")

    with ScriptedServer(script) as server:
        clients = Clients(kind, server.node)
        counters = clients.make(IntSerializer(), on_error="miss")
        with pytest.raises(ServerError):
            await counters.update("k", lambda _: 1)
        assert dict(counters.errors_as_misses) == {}
        await clients.aclose()
