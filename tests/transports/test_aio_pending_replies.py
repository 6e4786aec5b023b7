"""Pending replies, which tasks await like a Future: asyncio accepts them, and one task's end affects no other."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import final

import pytest

from metacache import AsyncClient, AsyncConnection, OperationTimeout, ServerError, Settings
from metacache.testing import Memcached
from metacache.transports.base import Operation
from tests.loops import new_uvloop
from tests.scripted import Peer, Script, ScriptedServer, answering, silent
from tests.transports.aio_rig import OPERATIONS, PATIENT, nothing_left


def getting(key: str) -> Operation[bytes | None]:
    return OPERATIONS.get(key, None)


async def wait_for(request: Awaitable[bytes | None]) -> bytes | None:
    return await request


@asynccontextmanager
async def connected_to(script: Script, settings: Settings = PATIENT) -> AsyncGenerator[AsyncConnection]:
    """Yield a connection to a server that runs *script*; check that neither leaks anything."""
    async with nothing_left():
        with ScriptedServer(script) as server:
            async with AsyncConnection(server.node, settings=settings) as connection:
                yield connection


@pytest.mark.both_loops
async def test_asyncio_functions_accept_a_request_as_an_awaitable(memcached: Memcached) -> None:
    async with nothing_left(), AsyncConnection(memcached.node, settings=PATIENT) as connection:
        client = AsyncClient(connection)
        await client.set_many({"a": b"1", "b": b"2"})
        both = await asyncio.gather(connection.run(getting("a")), connection.run(getting("b")))
        assert list(both) == [b"1", b"2"]
        assert await asyncio.wait_for(connection.run(getting("a")), 5.0) == b"1"
        assert await asyncio.shield(connection.run(getting("b"))) == b"2"
        assert await asyncio.ensure_future(connection.run(getting("a"))) == b"1"
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(client.get(key)) for key in "ab"]
        assert [task.result() for task in tasks] == [b"1", b"2"]


@pytest.mark.both_loops
async def test_a_request_is_sent_when_run_is_called_and_may_be_awaited_later(
    memcached: Memcached,
) -> None:
    async with nothing_left(), AsyncConnection(memcached.node, settings=PATIENT) as connection:
        client = AsyncClient(connection)
        await client.set("key", b"before")
        early = connection.run(getting("key"))
        await client.set("key", b"after")
        assert await early == b"before"


@pytest.mark.both_loops
async def test_a_cancelled_task_keeps_the_cancel_message() -> None:
    async with nothing_left():
        with ScriptedServer(silent) as server:
            async with AsyncClient(AsyncConnection(server.node, settings=PATIENT), owns=True) as client:
                task = asyncio.ensure_future(client.get("key"))
                while not server.accepted:
                    await asyncio.sleep(0.001)
                task.cancel("the caller went away")
                with pytest.raises(asyncio.CancelledError, match="the caller went away"):
                    await task
                assert task.cancelled()


@pytest.mark.both_loops
async def test_a_task_cancelled_in_the_iteration_of_its_reply_is_cancelled_and_no_other_is() -> None:
    def script(peer: Peer) -> None:
        first, second, third = peer.requests(3)
        replies = [each.reply(b"VA 5 f0", b"key-%d" % n) for n, each in enumerate((first, second, third))]
        peer.send(b"".join(replies))
        peer.request().answer(b"VA 5 f0", b"after")
        peer.expect_end()

    async with nothing_left():
        with ScriptedServer(script) as server:
            async with AsyncClient(AsyncConnection(server.node, settings=PATIENT), owns=True) as client:

                async def first() -> bytes | None:
                    found = await client.get("key-0")
                    second.cancel()  # its reply arrived together with this one
                    return found

                tasks = [asyncio.ensure_future(first())]
                second, third = (asyncio.ensure_future(client.get(f"key-{number}")) for number in (1, 2))
                found = await asyncio.gather(*tasks, second, third, return_exceptions=True)
                assert found[0] == b"key-0"
                assert isinstance(found[1], asyncio.CancelledError)
                assert found[2] == b"key-2"
                assert await client.get("after") == b"after"


@pytest.mark.both_loops
async def test_a_coroutine_that_is_closed_while_it_waits_leaves_a_usable_connection() -> None:
    def script(peer: Peer) -> None:
        first, second = peer.requests(2)
        first.answer(b"VA 5 f0", b"first")
        second.answer(b"VA 6 f0", b"second")
        peer.expect_end()

    async with nothing_left():
        with ScriptedServer(script) as server:
            async with AsyncClient(AsyncConnection(server.node, settings=PATIENT), owns=True) as client:
                left = client.get("first")
                left.send(None)  # as a task would
                left.close()
                assert await client.get("second") == b"second"


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, new_uvloop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_an_exception_that_ends_the_loop_propagates_and_the_other_tasks_finish_later(
    memcached: Memcached, kind: type[BaseException], new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    loop = new_loop()
    keys = [f"key-{number}" for number in range(8)]

    async def begin() -> AsyncClient[bytes]:
        client = AsyncClient(AsyncConnection(memcached.node, settings=PATIENT), owns=True)
        await client.set_many({key: key.encode() for key in keys})
        return client

    async def one(client: AsyncClient[bytes], key: str) -> bytes | None:
        found = await client.get(key)
        if key == "key-3":
            raise kind
        assert await client.get("key-0") == b"key-0"  # the others continue
        return found

    async def all_of_them(client: AsyncClient[bytes]) -> None:
        tasks.extend(asyncio.ensure_future(one(client, key)) for key in keys)
        await asyncio.wait(tasks)

    tasks: list[asyncio.Task[bytes | None]] = []
    client = loop.run_until_complete(begin())
    with pytest.raises(kind):
        loop.run_until_complete(all_of_them(client))
    others = [task for task in tasks if task is not tasks[3]]
    found = loop.run_until_complete(asyncio.wait_for(asyncio.gather(*others), 5.0))
    assert found == [key.encode() for key in keys if key != "key-3"]
    assert isinstance(tasks[3].exception(), kind)
    loop.run_until_complete(client.aclose())
    loop.close()


@pytest.mark.both_loops
async def test_a_late_request_that_is_not_awaited_raises_no_error_elsewhere() -> None:
    async with connected_to(silent, Settings(timeout=0.1)) as connection:
        left = connection.run(getting("left"))
        with pytest.raises(OperationTimeout):
            await connection.run(getting("awaited"))
        with pytest.raises(OperationTimeout, match="left"):
            await left


@pytest.mark.both_loops
async def test_a_request_awaited_again_returns_the_same_result(memcached: Memcached) -> None:
    async with nothing_left(), AsyncConnection(memcached.node, settings=PATIENT) as connection:
        await AsyncClient(connection).set("key", b"value")
        request = connection.run(getting("key"))
        assert await request == b"value"
        await AsyncClient(connection).set("key", b"other")
        assert await request == b"value"


@pytest.mark.both_loops
async def test_a_request_that_failed_cannot_be_awaited_again() -> None:
    async with connected_to(silent, Settings(timeout=0.05)) as connection:
        request = connection.run(getting("key"))
        with pytest.raises(OperationTimeout):
            await request
        for _ in range(2):
            with pytest.raises(RuntimeError, match="has failed before"):
                await request


@pytest.mark.both_loops
async def test_two_tasks_cannot_await_one_request() -> None:
    def script(peer: Peer) -> None:
        asked = peer.request()
        peer.request()  # now both tasks wait
        asked.answer(b"VA 5 f0", b"right")
        silent(peer)

    async with connected_to(script) as connection:
        request = connection.run(getting("key"))
        both = [asyncio.ensure_future(wait_for(request)) for _ in range(2)]
        await asyncio.sleep(0)
        after = connection.run(getting("after"))
        found = await asyncio.gather(*both, return_exceptions=True)
        assert found[0] == b"right"
        assert isinstance(found[1], RuntimeError)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(after, 0.01)


@pytest.mark.both_loops
@pytest.mark.parametrize("way", [asyncio.shield, asyncio.gather, asyncio.ensure_future], ids=lambda way: way.__name__)
async def test_a_second_await_of_a_request_raises_and_the_first_task_is_not_affected(
    way: Callable[[Awaitable[bytes | None]], Awaitable[object]],
) -> None:
    async with connected_to(answering((b"VA 5 f0", b"right"), (b"VA 5 f0", b"after"))) as connection:
        request = connection.run(getting("key"))
        first = asyncio.ensure_future(wait_for(request))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task awaits"):
            await way(request)
        assert await first == b"right"
        assert await connection.run(getting("after")) == b"after"


@pytest.mark.both_loops
async def test_a_request_driven_by_hand_cannot_be_awaited_by_a_task() -> None:
    async with connected_to(answering((b"VA 5 f0", b"right"))) as connection:
        request = connection.run(getting("key"))
        by_hand = request.__await__()
        next(by_hand)
        with pytest.raises(RuntimeError, match="another task awaits"):
            await request
        by_hand.close()
        assert await request == b"right"


@final
class Large:
    """An object that a caller refers to while it waits."""


@pytest.mark.both_loops
@pytest.mark.parametrize("way", ["cancelled", "late", "refused"])
async def test_local_variables_of_a_caller_are_freed_with_its_error(way: str) -> None:
    async def ask(client: AsyncClient[bytes]) -> None:
        held = Large()
        held_by.append(weakref.ref(held))
        try:
            async with asyncio.timeout(0.05 if way == "cancelled" else 5.0):
                await client.get("key")
        finally:
            assert held is not None

    def refusing(peer: Peer) -> None:
        if way == "refused":
            peer.send(peer.request().reply(b"SERVER_ERROR out of memory"))
        silent(peer)

    held_by: list[weakref.ref[Large]] = []
    settings = Settings(timeout=0.1 if way == "late" else 10.0)
    async with nothing_left():
        with ScriptedServer(refusing) as server:
            async with AsyncClient(AsyncConnection(server.node, settings=settings), owns=True) as client:
                gc.disable()
                try:
                    with pytest.raises((TimeoutError, ServerError)) as raised:
                        await ask(client)
                    del raised
                    await asyncio.sleep(0)
                    assert [each() for each in held_by] == [None]
                finally:
                    gc.enable()


def test_a_request_of_one_loop_is_refused_by_another(memcached: Memcached) -> None:
    async def close() -> None:
        await connection.aclose()

    async def ask() -> Awaitable[bytes | None]:
        return connection.run(getting("key"))

    async def be_refused(request: Awaitable[bytes | None]) -> None:
        with pytest.raises(RuntimeError, match="different loop"):
            await request

    connection = AsyncConnection(memcached.node, settings=PATIENT)
    with asyncio.Runner() as first, asyncio.Runner() as second:
        request = first.run(ask())
        second.run(be_refused(request))
        first.run(close())
