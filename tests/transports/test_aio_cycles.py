"""What a failed operation of the asyncio client held is freed by reference counting, not by the garbage collector."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Generator
from typing import Final

import pytest

from metacache import AsyncClient, AsyncCluster, AsyncConnection, AsyncPool, MetacacheError, Node, Settings
from metacache.transports.aio.link import Link
from metacache.transports.base import Batch, Operation
from tests.scripted import Peer, ScriptedServer, silent

SETTINGS: Final = Settings(timeout=0.1, connect_timeout=0.1)

MADE: Final[dict[str, Callable[[Node], AsyncConnection | AsyncPool | AsyncCluster]]] = {
    "AsyncConnection": lambda node: AsyncConnection(node, settings=SETTINGS),
    "AsyncPool": lambda node: AsyncPool(node, settings=SETTINGS),
    "AsyncCluster": lambda node: AsyncCluster([node], settings=SETTINGS),
}


USED: Final[dict[str, Callable[[AsyncClient[bytes]], Awaitable[object]]]] = {
    "get": lambda client: client.get("k"),
    "set": lambda client: client.set("k", b"v"),
    "get_many": lambda client: client.get_many(["k", "l"]),
    "set_many": lambda client: client.set_many({"k": b"v", "l": b"v"}),
}


def closing(peer: Peer) -> None:
    peer.request()
    peer.fin()


def held() -> list[object]:
    return [found for found in gc.get_objects() if isinstance(found, Batch | Operation | Link)]


@pytest.fixture(autouse=True)
def _no_collector() -> Generator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("script", [silent, closing], ids=lambda script: str(script.__name__))
@pytest.mark.parametrize("used", USED)
@pytest.mark.parametrize("made", MADE)
def test_a_failed_operation_leaves_no_cycle_of_references(made: str, used: str, script: Callable[[Peer], None]) -> None:
    async def scenario(node: Node) -> list[object]:
        async with MADE[made](node) as transport:
            before = held()
            with pytest.raises(MetacacheError):
                await USED[used](AsyncClient(transport))
            await asyncio.sleep(2 * SETTINGS.timeout)  # the timers of the call are over
            return [found for found in held() if all(found is not known for known in before)]

    with ScriptedServer(script) as server:
        assert asyncio.run(scenario(server.node)) == []
