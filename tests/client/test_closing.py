"""A closed client refuses all calls before anything is sent. It closes the transport only if it owns it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import pytest

from metacache import AsyncClient, ClosedError
from metacache.serializers import BytesSerializer, IntSerializer
from tests.client.rig import Clients
from tests.client.test_bad_input import VERBS

# The methods that VERBS does not have: batches with outcomes, and batches of values.
Call = Callable[[AsyncClient[bytes]], Awaitable[object]]
MANY: Final[Mapping[str, Call]] = {
    "get_many": lambda client: client.get_many_outcomes(["key"]),
    "set_many": lambda client: client.set_many({"key": b"v"}),
    "delete_many": lambda client: client.delete_many_outcomes(["key"]),
}
TRANSPORT: Final = r"the (connection|pool) was closed"


async def test_every_method_of_a_closed_client_raises_and_sends_nothing(clients: Clients) -> None:
    # ClosedError is an error of the program, not of the network, so it is never a miss.
    client = clients.blobs(on_error="miss")
    await client.aclose()
    for operation, verb in VERBS.items():
        with pytest.raises(ClosedError, match="the client was closed") as raised:
            await verb(client, "key")
        assert raised.value.operation == operation
        assert raised.value.key == (None if operation.endswith(("_many", "_items")) else "key")
        assert not raised.value.maybe_applied
    for operation, many in MANY.items():
        with pytest.raises(ClosedError) as raised:
            await many(client)
        assert raised.value.operation == operation
    assert client.errors_as_misses == {}
    assert clients.sent == []


async def test_arithmetic_of_a_closed_client_raises(clients: Clients) -> None:
    counters = clients.make(IntSerializer())
    await counters.aclose()
    for verb in (counters.increment, counters.decrement):
        with pytest.raises(ClosedError) as raised:
            await verb("key", initial=1)
        assert (raised.value.operation, raised.value.key) == (verb.__name__, "key")
    assert clients.sent == []


async def test_a_client_does_not_close_a_transport_that_it_does_not_own(clients: Clients, key: str) -> None:
    client, other = clients.blobs(), clients.blobs()
    await client.set(key, b"v")
    await client.aclose()
    await client.aclose()
    assert clients.sent == ["set"]
    assert await other.get(key) == b"v"


async def test_a_client_closes_its_own_transport_once(clients: Clients, key: str) -> None:
    client, other = clients.make(BytesSerializer(), owns=True), clients.blobs()
    await client.set(key, b"v")
    await client.aclose()
    await client.aclose()
    assert clients.sent == ["set", "close"]
    with pytest.raises(ClosedError, match=TRANSPORT):
        await other.get(key)
    with pytest.raises(ClosedError, match=TRANSPORT):
        await other.get_many([key])


@pytest.mark.parametrize("owns", [True, False])
async def test_a_with_block_closes_its_client_whether_it_fails_or_not(clients: Clients, *, owns: bool) -> None:
    client = clients.make(BytesSerializer(), owns=owns)
    with pytest.raises(LookupError, match="the caller's"):
        async with client:
            raise LookupError("the caller's")
    with pytest.raises(ClosedError):
        await client.get("key")
    assert clients.sent == (["close"] if owns else [])


async def test_a_view_is_not_closed_with_its_client(clients: Clients, key: str) -> None:
    client = clients.make(BytesSerializer(), owns=True)
    view = client.with_options(default_ttl=5)
    await view.aclose()
    assert clients.sent == []
    assert await client.set(key, b"v")
    with pytest.raises(ClosedError, match="the client was closed"):
        await view.get(key)
    borrowed = clients.blobs()
    other = borrowed.with_options(default_ttl=5)
    await borrowed.aclose()
    assert await other.get(key) == b"v"
    await client.aclose()
    with pytest.raises(ClosedError, match=TRANSPORT):
        await other.get(key)


async def test_a_view_of_a_closed_client_is_closed(clients: Clients) -> None:
    client = clients.blobs()
    await client.aclose()
    for view in (client.with_options(default_ttl=5), client.with_options(timeout=5.0, on_error="miss")):
        with pytest.raises(ClosedError, match="the client was closed"):
            await view.get("key")
        with pytest.raises(ClosedError, match="the client was closed"):
            await view.update("key", lambda _: b"v")
        with pytest.raises(ClosedError, match="the client was closed"):
            await view.get_many(["key"])
