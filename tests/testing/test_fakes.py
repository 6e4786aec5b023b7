"""What only the fakes can do: use a clock of the test, and serve both kinds of client at the same time."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest

from metacache import AsyncClient, Client, ClosedError, ServerError
from metacache.serializers import IntSerializer, StrSerializer
from metacache.testing import AsyncFakeTransport, FakeServer, FakeTransport


class Clock:
    """A clock that returns the time that the test sets."""

    def __init__(self, now: float = 1_000_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


async def test_items_expire_by_the_clock_of_the_test() -> None:
    clock = Clock()
    server = FakeServer(clock)
    blocking = Client(FakeTransport(server), StrSerializer(), default_ttl=60)
    tasks = AsyncClient(AsyncFakeTransport(server), StrSerializer(), default_ttl=60)
    blocking.set("old", "1")
    clock.now += 30
    await tasks.set("young", "2")
    item = await tasks.get_item("old")
    assert (item and item.ttl, item and item.idle_seconds) == (30, 30)
    clock.now += 30
    assert (blocking.get("old"), blocking.get("young")) == (None, "2")
    assert (await tasks.get("old"), await tasks.get_many(["old", "young"])) == (None, {"young": "2"})
    clock.now += 30
    assert (blocking.get("young"), await tasks.get("young")) == (None, None)


def test_a_ttl_beyond_thirty_days_expires_by_the_clock_of_the_test() -> None:
    clock = Clock(time.time())
    client = Client(FakeTransport(FakeServer(clock)), StrSerializer())
    client.set("k", "v", ttl=timedelta(days=40))
    clock.now += 39 * 86400
    assert client.get("k") == "v"
    clock.now += 2 * 86400
    assert client.get("k") is None


async def test_transports_with_one_server_share_its_items() -> None:
    server = FakeServer()
    blocking, tasks = FakeTransport(server), AsyncFakeTransport(server)
    assert blocking.server is tasks.server is server
    Client(blocking, StrSerializer()).set("k", "from a thread")
    assert await AsyncClient(tasks, StrSerializer()).get("k") == "from a thread"
    await AsyncClient(tasks, StrSerializer()).set_many({"k": "from a task"})
    assert Client(blocking, StrSerializer()).get("k") == "from a task"


async def test_transports_without_a_given_server_share_nothing() -> None:
    one, other = AsyncFakeTransport(), AsyncFakeTransport()
    await AsyncClient(one).set("k", b"1")
    assert await AsyncClient(other).get("k") is None


async def test_a_value_above_the_limit_of_the_fake_is_refused() -> None:
    client = AsyncClient(AsyncFakeTransport(FakeServer(max_value_size=10)))
    with pytest.raises(ServerError, match="too large"):
        await client.set("k", b"x" * 11)
    outcomes = await client.set_many_outcomes({"small": b"x" * 10, "large": b"x" * 11})
    assert [*outcomes.results] == ["small"]
    assert isinstance(outcomes.errors["large"], ServerError)


async def test_operations_lists_the_calls_in_order() -> None:
    transport = AsyncFakeTransport()
    client = AsyncClient(transport)
    await client.set("k", b"1")
    await client.get_many(["k"])
    await client.update("k", lambda _: b"2")
    assert transport.operations == ["set", "get_many", "update", "update"]


async def test_the_repr_shows_the_number_of_operations() -> None:
    tasks, blocking = AsyncFakeTransport(), FakeTransport()
    await AsyncClient(tasks).get("k")
    Client(blocking).get_many(["k"])
    assert repr(AsyncClient(tasks)) == "<AsyncClient prefix=b'' on <AsyncFakeTransport: 1 operations>>"
    assert repr(Client(blocking)) == "<Client prefix=b'' on <FakeTransport: 1 operations>>"


async def test_a_race_between_tasks_is_visible() -> None:
    client = AsyncClient(AsyncFakeTransport(), IntSerializer())
    await client.set("n", 0)

    async def add_carelessly() -> None:
        number = await client.get("n", 0)
        await client.set("n", number + 1)

    await asyncio.gather(add_carelessly(), add_carelessly())
    assert await client.get("n") == 1, "one of the two was lost"
    await asyncio.gather(*(client.update("n", lambda number: (number or 0) + 1) for _ in range(2)))
    assert await client.get("n") == 3, "update loses none"


async def test_a_cancelled_write_may_have_been_applied() -> None:
    client = AsyncClient(AsyncFakeTransport())
    single = asyncio.ensure_future(client.set("k", b"1"))
    batch = asyncio.ensure_future(client.set_many({"m": b"2"}))
    await asyncio.sleep(0)  # sent, but the reply is not there yet
    assert single.cancel()
    assert batch.cancel()
    for write in (single, batch):
        with pytest.raises(asyncio.CancelledError):
            await write
    assert await client.get_many(["k", "m"]) == {"k": b"1", "m": b"2"}


async def test_a_closed_asyncio_fake_refuses_operations() -> None:
    transport = AsyncFakeTransport()
    client = AsyncClient(transport, owns=True)
    await client.set("k", b"1")
    await client.aclose()
    await transport.aclose()
    other = AsyncClient(transport)
    with pytest.raises(ClosedError, match="the transport is closed"):
        await other.get("k")
    with pytest.raises(ClosedError, match="the transport is closed"):
        await other.get_many(["k"])
    assert transport.operations == ["set"]


def test_a_closed_blocking_fake_refuses_operations() -> None:
    transport = FakeTransport()
    transport.close()
    transport.close()
    with pytest.raises(ClosedError, match="the transport is closed"):
        Client(transport).get("k")
    with pytest.raises(ClosedError, match="the transport is closed"):
        Client(transport).set_many({"k": b"1"})


async def store_and_read(client: AsyncClient[bytes], value: bytes) -> None:
    await client.set("k", value)
    assert await client.get("k") == value


def test_a_fake_works_in_one_loop_after_another() -> None:
    client = AsyncClient(AsyncFakeTransport())
    for number in (b"1", b"2"):
        asyncio.run(store_and_read(client, number))
