"""The types that type checkers infer for clients. The checkers check assert_type, and the calls run too."""

from __future__ import annotations

from typing import assert_type

import msgspec
import pytest

from metacache import (
    DEFAULT,
    AsyncClient,
    AsyncCluster,
    AsyncConnection,
    AsyncPool,
    AsyncTransport,
    Client,
    ClientStatistics,
    Cluster,
    Connection,
    Default,
    InvalidArgumentError,
    Node,
    Outcomes,
    Pool,
    StoreResult,
    Transport,
    Ttl,
    load_serializer,
)
from metacache.serializers import IntSerializer, StrSerializer
from metacache.testing import FakeServer, FakeTransport
from tests.client.rig import AsyncCounted, Counted


class User(msgspec.Struct):
    name: str


def test_a_client_returns_its_type_and_keeps_the_type_of_keys() -> None:
    users = Client(FakeTransport(), load_serializer("msgspec", User))
    assert_type(users, Client[User])
    assert_type(users.get("k"), User | None)
    assert_type(users.get("k", 0), User | int)
    assert_type(users.get_many(["k"]), dict[str, User])
    assert_type(users.get_many([b"k"]), dict[bytes, User])
    assert_type(users.set_many({"k": User("Zoë")}), dict[str, StoreResult])
    assert_type(users.get_many_outcomes(["k"]), Outcomes[str, User])
    assert_type(users.update("k", lambda user: user or User("Zoë")), User)
    assert_type(users.compare_and_set("k", User("Zoë"), 1), StoreResult)
    assert_type(users.with_options(timeout=1.0, on_error="ignore"), Client[User])
    assert_type(users.statistics, ClientStatistics)
    assert_type(users.statistics.hits, int)
    assert_type(Client(FakeTransport()), Client[bytes])
    assert_type(Client(FakeTransport(), load_serializer("msgspec", User | None)), Client[User | None])


def test_only_int_clients_count_and_only_str_and_bytes_clients_append() -> None:
    users = Client(FakeTransport(), load_serializer("msgspec", User))
    texts = Client(FakeTransport(), StrSerializer())
    numbers = Client(FakeTransport(), IntSerializer())
    assert_type(numbers.increment("k"), int | None)
    assert_type(numbers.increment("k", initial=1), int)
    assert_type(numbers.decrement("k", initial=1), int)
    assert_type(texts.append("k", "v"), StoreResult)
    # Calls that type checkers refuse are also refused at run time.
    with pytest.raises(InvalidArgumentError):
        users.append("k", User("Zoë"))  # type: ignore[misc, call-overload]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    with pytest.raises(InvalidArgumentError):
        texts.increment("k")  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


async def check_async_types(users: AsyncClient[User], numbers: AsyncClient[int]) -> None:
    """Never called: only for type checkers."""
    assert_type(await users.get("k"), User | None)
    assert_type(await users.get("k", 0), User | int)
    assert_type(await users.get_many([b"k"]), dict[bytes, User])
    assert_type(await numbers.increment("k"), int | None)
    assert_type(await numbers.increment("k", initial=1), int)


def test_connections_pools_clusters_and_wrappers_are_transports() -> None:
    node = Node("127.0.0.1:1")
    transports: list[Transport] = [Connection(node), Pool(node), Cluster([node]), Counted(FakeTransport())]
    twins: list[AsyncTransport] = [AsyncConnection(node), AsyncPool(node), AsyncCluster([node])]
    twins.append(AsyncCounted(twins[0]))
    assert [type(Client(transport)) for transport in transports] == [Client] * 4
    assert [type(AsyncClient(twin)) for twin in twins] == [AsyncClient] * 4
    for transport in transports:
        transport.close()


def put(client: Client[str], key: str, value: str, *, ttl: Ttl | Default = DEFAULT) -> StoreResult:
    """Store a value, as a function with an optional TTL does."""
    return client.set(key, value, ttl=ttl)


def test_a_function_can_forward_an_omitted_ttl() -> None:
    texts = Client(FakeTransport(FakeServer(clock=lambda: 0.0)), StrSerializer(), default_ttl=60)
    assert_type(put(texts, "left out", "v"), StoreResult)
    put(texts, "never", "v", ttl=None)
    put(texts, "short", "v", ttl=5)
    assert {key: item.ttl for key, item in texts.get_items(["left out", "never", "short"]).items()} == {
        "left out": 60,
        "never": None,
        "short": 5,
    }
