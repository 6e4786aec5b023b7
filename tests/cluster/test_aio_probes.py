"""Batches of an asyncio client on a node that is down, while one of them probes it."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import AsyncExitStack
from typing import Final

import pytest

from metacache import AsyncCluster, BatchError, MetacacheError, Node, NodeDownError, NodeState, Settings
from metacache.settings import OnNodeDown
from tests.conftest import start
from tests.transports.aio_rig import until

KEYS: Final = [f"key:{n}" for n in range(100)]
ITEMS: Final = {key: key.encode() for key in KEYS}


@pytest.mark.both_loops
@pytest.mark.parametrize("on_node_down", ["fail", "next"])
async def test_one_batch_probes_a_node_that_is_down_and_other_batches_neither_wait_nor_end_the_probe(
    on_node_down: OnNodeDown,
) -> None:
    changes: list[tuple[NodeState, NodeState]] = []

    def listen(_: Node, before: NodeState, after: NodeState) -> None:
        changes.append((before, after))

    async with AsyncExitStack() as stack:
        three = [stack.enter_context(start()) for _ in range(3)]
        dead = three[1]
        nodes = [server.node for server in three]
        settings = Settings(timeout=2.0, on_node_down=on_node_down)
        cluster = await stack.enter_async_context(AsyncCluster(nodes, settings=settings, on_state_change=listen))
        client = cluster.client()
        lost = {key for key in KEYS if cluster.router.pick(key.encode()) == dead.node}
        dead.kill()
        while cluster.states[dead.node] is not NodeState.DOWN:
            with contextlib.suppress(MetacacheError):
                await client.get(min(lost))
        dead.restart()
        dead.freeze()
        await asyncio.sleep(0.7)  # the first probe is due
        prober = asyncio.create_task(client.get_many(KEYS))
        await until(lambda: cluster.states[dead.node] is NodeState.PROBING)
        if on_node_down == "next":
            assert all((await client.set_many(ITEMS)).values())
            assert await prober == ITEMS, "its probe failed, and the next nodes served it"
        else:
            with pytest.raises(BatchError) as failed:
                await client.set_many(ITEMS)
            assert failed.value.errors.keys() == lost
            assert {type(error) for error in failed.value.errors.values()} == {NodeDownError}
            with pytest.raises(BatchError) as failed:
                await prober
            assert failed.value.errors.keys() == lost
            assert failed.value.results.keys() == ITEMS.keys() - lost
        assert changes[2:] == [(NodeState.DOWN, NodeState.PROBING), (NodeState.PROBING, NodeState.DOWN)]
        dead.thaw()
        while cluster.states[dead.node] is not NodeState.UP:
            with contextlib.suppress(BatchError):
                await client.get_many(KEYS)
            await asyncio.sleep(0.02)
        assert all((await client.set_many(ITEMS)).values())
        assert await client.get_many(KEYS) == ITEMS


@pytest.mark.both_loops
async def test_with_next_the_batch_that_finds_a_node_dead_moves_its_keys_in_the_same_call() -> None:
    async with AsyncExitStack() as stack:
        three = [stack.enter_context(start()) for _ in range(3)]
        settings = Settings(timeout=2.0, on_node_down="next")
        nodes = [server.node for server in three]
        client = (await stack.enter_async_context(AsyncCluster(nodes, settings=settings))).client()
        three[1].kill()
        for _ in range(2):
            with pytest.raises(BatchError):
                await client.set_many(ITEMS)
        assert all((await client.set_many(ITEMS)).values()), "the third failure was the node's end"
        assert await client.get_many(KEYS) == ITEMS
