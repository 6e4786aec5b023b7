"""Servers that freeze, end, refuse and restart, and callers that give up: for both clients and every transport."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest

from metacache import (
    AsyncClient,
    Client,
    ConnectError,
    ConnectionLost,
    MetacacheError,
    Node,
    NodeDownError,
    OperationTimeout,
    Settings,
)
from metacache.serializers import IntSerializer
from metacache.testing import Memcached
from tests.faults.rig import (
    ASYNCIO,
    PATIENT,
    QUICK,
    Interruption,
    after,
    blocking_transport,
    every_kind,
    is_blocking,
    opened,
    typed,
)
from tests.scripted import Peer, ScriptedServer, answering, silent
from tests.transports.rig import HIT

NOWHERE: Final = Node("127.0.0.1:1", name="nowhere")


@every_kind
async def test_a_late_reply_is_never_the_reply_of_the_next_request(kind: str, memcached: Memcached) -> None:
    async with opened(kind, memcached.node, Settings(timeout=0.3, connect_timeout=3.0)) as client:
        await client.set_many({"a": b"value of a", "b": b"value of b"})
        memcached.freeze()
        with pytest.raises(OperationTimeout):
            await client.get("a")
        with pytest.raises((OperationTimeout, ConnectionLost)) as raised:
            await client.set("a", b"new value of a")
        assert raised.value.maybe_applied
        memcached.thaw()
        found = None
        for _ in range(20):
            with contextlib.suppress(MetacacheError):
                found = await client.get("b")
                assert found == b"value of b"
                assert await client.get("b") == b"value of b"
        assert found == b"value of b"


@every_kind
async def test_a_server_cannot_be_connected_to(kind: str) -> None:
    began = time.monotonic()
    async with opened(kind, NOWHERE, QUICK) as client:
        for _ in range(10):
            with pytest.raises((ConnectError, NodeDownError)) as raised:
                await client.get("key")
            assert raised.value.node == "nowhere"
    async with opened(kind, Node("does-not-exist.invalid"), Settings(timeout=3.0)) as client:
        with pytest.raises((ConnectError, OperationTimeout)):
            await client.get("key")
    assert time.monotonic() - began < 6


@every_kind
async def test_a_server_accepts_and_never_answers(kind: str) -> None:
    with ScriptedServer(*[silent] * 2) as server:
        async with opened(kind, server.node, QUICK) as client:
            for _ in range(2):
                began = time.monotonic()
                with pytest.raises((OperationTimeout, ConnectionLost)):
                    await client.get("key")
                assert time.monotonic() - began < 1.5
        server.drop_scripts()


@every_kind
async def test_a_server_restarts_between_requests(kind: str, memcached: Memcached) -> None:
    async with typed(kind, memcached.node, IntSerializer()) as numbers:
        await numbers.set("n", 5)
        memcached.restart()
        assert await numbers.get("n") is None
        memcached.restart()
        await asyncio.sleep(0.1)
        await numbers.set("n", 1)
        assert await numbers.increment("n") == 2, "one increment is applied once"


@every_kind
async def test_a_server_closes_idle_connections(kind: str) -> None:
    def script(peer: Peer) -> None:
        peer.request().answer(*HIT)
        peer.fin()

    with ScriptedServer(script, answering(HIT)) as server:
        async with opened(kind, server.node) as client:
            assert await client.get("key") == b"right"
            await asyncio.sleep(0.1)
            assert await client.get("key") == b"right"


@every_kind
async def test_a_server_has_too_many_connections(kind: str) -> None:
    def script(peer: Peer) -> None:
        with contextlib.suppress(OSError):
            peer.send(b"ERROR Too many open connections\r\n")
            peer.fin()

    with ScriptedServer(script, script, script) as server:
        async with opened(kind, server.node) as client:
            for _ in range(3):
                with pytest.raises((ConnectError, ConnectionLost)):
                    await client.get("key")
            assert server.accepted <= 3, "one dial for each call"
        server.drop_scripts()


@every_kind
async def test_a_call_is_interrupted_while_it_waits_for_its_reply(kind: str, memcached: Memcached) -> None:
    async with opened(kind, memcached.node) as client:
        await client.set_many({"a": b"value of a", "b": b"value of b"})
        for _ in range(3):
            memcached.freeze()
            if is_blocking(kind):
                with pytest.raises(Interruption), after(0.1):
                    await client.get("a")
            else:
                task = asyncio.create_task(client.get("a"))
                await asyncio.sleep(0.1)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            memcached.thaw()
            assert await client.get("b") == b"value of b"
            assert await client.get_many(["a", "b"]) == {"a": b"value of a", "b": b"value of b"}


@every_kind
async def test_a_call_is_interrupted_before_it_has_a_connection(kind: str, memcached: Memcached) -> None:
    if not is_blocking(kind):
        for iterations in range(8):
            async with opened(kind, memcached.node) as client:
                task = asyncio.create_task(client.get("a"))
                for _ in range(iterations):
                    await asyncio.sleep(0)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
                assert await client.get("a") is None
        return
    settings = Settings(timeout=5.0, pool_size=1)
    with Client(blocking_transport(kind, memcached.node, settings), owns=True) as blocking:
        blocking.set("a", b"value of a")
        memcached.freeze()
        with ThreadPoolExecutor(1) as threads:
            other = threads.submit(blocking.get, "a")  # it holds the only connection
            time.sleep(0.1)
            with pytest.raises(Interruption), after(0.1):
                blocking.get("b")
            memcached.thaw()
            assert other.result() == b"value of a"
        assert blocking.get("b") is None


@every_kind
def test_a_process_forks_with_open_connections(kind: str, memcached: Memcached) -> None:
    if is_blocking(kind):
        with Client(blocking_transport(kind, memcached.node), owns=True) as blocking:
            blocking.set("parent", b"value of the parent")
            child = in_child(lambda: blocking.set("child", b"value of the child"))
            for _ in range(20):
                assert blocking.get("parent") == b"value of the parent"
            wait_for(child)
            assert blocking.get("child") == b"value of the child"
        return
    with asyncio.Runner() as runner:
        client = AsyncClient(ASYNCIO[kind](memcached.node, PATIENT), owns=True)
        runner.run(_set(client, "parent"))
        child = in_child(lambda: asyncio.run(_in_new_client(kind, memcached.node)))
        for _ in range(20):
            assert runner.run(_get(client, "parent")) == b"value"
        wait_for(child)
        assert runner.run(_get(client, "child")) == b"value"
        runner.run(client.aclose())


async def _set(client: AsyncClient[bytes], key: str) -> None:
    await client.set(key, b"value")


async def _get(client: AsyncClient[bytes], key: str) -> bytes | None:
    return await client.get(key)


async def _in_new_client(kind: str, node: Node) -> None:
    async with opened(kind, node) as client:
        await client.set("child", b"value")


def in_child(work: Callable[[], object]) -> int:
    """Fork; run *work* in the child. Return the process id of the child."""
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
        os._exit(0)
    finally:
        os._exit(1)


def wait_for(child: int) -> None:
    """Wait for the end of a child, and check that it succeeded."""
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


@every_kind
async def test_threads_or_tasks_share_a_client(kind: str, memcached: Memcached) -> None:
    values = {f"caller-{number}": f"{number}:".encode() * (1 + number * 97) for number in range(32)}
    if is_blocking(kind):
        settings = Settings(timeout=20.0, pool_size=4)
        with Client(blocking_transport(kind, memcached.node, settings), owns=True) as blocking:
            blocking.set_many(values)
            start = threading.Barrier(len(values))

            def call(key: str) -> bool:
                start.wait()
                return all(blocking.get(key) == values[key] for _ in range(20))

            with ThreadPoolExecutor(len(values)) as threads:
                assert all(threads.map(call, values))
        return
    async with opened(kind, memcached.node, Settings(timeout=20.0, pool_size=4)) as client:
        await client.set_many(values)

        async def work(key: str) -> bool:
            return all([await client.get(key) == values[key] for _ in range(20)])

        assert all(await asyncio.gather(*map(work, values)))
