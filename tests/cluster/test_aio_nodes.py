"""Pools and clusters of shared connections: which connection takes a request, and the states of a node that fails."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Final

import attrs
import pytest

from metacache import (
    AsyncClient,
    AsyncCluster,
    AsyncPool,
    AuthenticationError,
    Batch,
    BatchError,
    ClosedError,
    ConnectError,
    InvalidArgumentError,
    MetacacheError,
    Node,
    NodeDownError,
    NodeState,
    OperationTimeout,
    RendezvousRouter,
    Settings,
    connect_async,
)
from metacache.operations.batches import GET_MANY
from metacache.testing import Memcached
from tests.conftest import start
from tests.scripted import Peer, ScriptedServer, silent
from tests.transports.aio_rig import HIT, PATIENT, nothing_left, run_alone, until

UNHEARD: Final = Node("127.0.0.1:1")
QUICK: Final = Settings(timeout=0.3, connect_timeout=0.3)
KEYS: Final = [f"key:{n}" for n in range(300)]
ITEMS: Final = {key: key.encode() for key in KEYS}


# --- pools -----------------------------------------------------------------------------------------------------------


@pytest.mark.both_loops
async def test_a_pool_opens_a_further_connection_when_those_open_are_full(memcached: Memcached) -> None:
    settings = attrs.evolve(PATIENT, pool_size=4, max_pipeline=2)
    async with nothing_left(), AsyncPool(memcached.node, settings=settings) as pool:
        client = AsyncClient(pool)
        assert await client.set("key", b"v")
        assert pool.statistics.created == 1
        memcached.freeze()
        calls: list[asyncio.Task[bytes | None]] = []
        for _ in range(20):
            calls.append(asyncio.create_task(client.get("key")))
            await asyncio.sleep(0)
            await until(lambda: pool.statistics.waiting == 0)
        memcached.thaw()
        assert await asyncio.gather(*calls) == [b"v"] * 20
        # Three: the fourth is reserved for large values.
        assert pool.statistics.created == 3
        assert await client.set("large", b"x" * 100_000)
        assert pool.statistics.created == 4
        assert "0 busy, 4 idle, 0 waiting" in repr(pool)


async def test_a_pool_closes_what_is_idle_for_too_long(shared_memcached: Memcached) -> None:
    settings = attrs.evolve(PATIENT, pool_max_idle_time=0.05)
    async with nothing_left(), connect_async(shared_memcached.url, settings=settings) as client:
        assert await client.set("key", b"v")
        await asyncio.sleep(0.1)
        assert await client.get("key") == b"v"


async def test_a_closed_pool_refuses(shared_memcached: Memcached) -> None:
    pool = AsyncPool(shared_memcached.node)
    await pool.aclose()
    await pool.aclose()
    with pytest.raises(ClosedError):
        await AsyncClient(pool).get("key")


# --- clusters --------------------------------------------------------------------------------------------------------


class Servers:
    """Three private servers."""

    def __init__(self, servers: Iterable[Memcached]) -> None:
        self.all = list(servers)
        self.nodes = [server.node for server in self.all]

    def of(self, name: str) -> Memcached:
        return next(server for server in self.all if server.node.name == name)


async def three(stack: AsyncExitStack) -> Servers:
    return Servers(stack.enter_context(start()) for _ in range(3))


@pytest.mark.both_loops
async def test_a_batch_goes_to_all_nodes_and_a_frozen_one_fails_only_its_own_keys() -> None:
    async with AsyncExitStack() as stack:
        servers = await three(stack)
        cluster = await stack.enter_async_context(AsyncCluster(servers.nodes, settings=QUICK))
        client = cluster.client()
        assert all((await client.set_many(ITEMS)).values())
        assert await client.get_many(KEYS) == ITEMS
        assert await asyncio.gather(*map(client.get, KEYS)) == list(ITEMS.values())
        frozen = servers.all[1]
        theirs = {key for key in KEYS if cluster.router.pick(key.encode()) == frozen.node}
        frozen.freeze()
        with pytest.raises(BatchError) as caught:
            await client.get_many(KEYS)
        assert caught.value.results.keys() == set(KEYS) - theirs
        assert {type(error) for error in caught.value.errors.values()} == {OperationTimeout}
        frozen.thaw()
        assert (await client.with_options(on_error="miss", timeout=5.0).get_many(KEYS)) == ITEMS


@pytest.mark.alone
async def test_a_node_that_fails_three_times_is_down_fails_fast_and_is_used_again() -> None:
    seen: list[tuple[NodeState, NodeState]] = []
    async with AsyncExitStack() as stack:
        servers = await three(stack)
        cluster = AsyncCluster(
            servers.nodes, settings=QUICK, on_state_change=lambda _, before, now: seen.append((before, now))
        )
        await stack.enter_async_context(cluster)
        client = cluster.client()
        key = KEYS[0]
        owner = servers.of(cluster.router.pick(key.encode()).name)
        assert await client.set(key, b"v")
        owner.kill()
        for _ in range(3):
            with pytest.raises(MetacacheError):
                await client.set(key, b"v")
        began = time.monotonic()
        for _ in range(100):
            with pytest.raises(NodeDownError):
                await client.get(key)
        assert time.monotonic() - began < 0.25
        owner.restart()
        await until(lambda: cluster.states[owner.node] is NodeState.DOWN)

        end = time.monotonic() + 10.0
        while cluster.states[owner.node] is not NodeState.UP:
            assert time.monotonic() < end
            try:
                await client.set(key, b"v")
            except NodeDownError:
                await asyncio.sleep(0.02)
        assert await client.get(key) == b"v"
        assert seen[0] == (NodeState.UP, NodeState.SUSPECT)
        assert seen[-1] == (NodeState.PROBING, NodeState.UP)


async def test_with_next_the_keys_of_a_dead_node_are_served_by_the_next() -> None:
    async with AsyncExitStack() as stack:
        servers = await three(stack)
        settings = attrs.evolve(QUICK, on_node_down="next")
        cluster = await stack.enter_async_context(AsyncCluster(servers.nodes, settings=settings))
        client = cluster.client()
        dead = servers.all[0]
        dead.kill()
        key = next(key for key in KEYS if cluster.router.pick(key.encode()) == dead.node)
        for _ in range(2):
            with pytest.raises(ConnectError):
                await client.set(key, b"v")
        assert await client.set(key, b"v"), "the third failure was the node's end, and the next one serves"
        assert await client.get(key) == b"v"
        assert all((await client.set_many(ITEMS)).values())
        assert await client.get_many(KEYS) == ITEMS


@pytest.mark.both_loops
async def test_setting_nodes_moves_only_the_keys_that_the_router_moves_and_fails_no_request() -> None:
    async with AsyncExitStack() as stack:
        servers = await three(stack)
        cluster = await stack.enter_async_context(AsyncCluster(servers.nodes[:2], settings=PATIENT))
        client = cluster.client()
        assert all((await client.set_many(ITEMS)).values())
        done = asyncio.Event()

        async def load() -> None:
            while not done.is_set():
                await asyncio.gather(*map(client.get, KEYS))

        tasks = [asyncio.create_task(load()) for _ in range(3)]
        for nodes in (servers.nodes, servers.nodes[:2], servers.nodes, servers.nodes[1:], servers.nodes):
            cluster.set_nodes(nodes)
            await asyncio.sleep(0.02)
        done.set()
        await asyncio.gather(*tasks)
        before, after = RendezvousRouter(servers.nodes[:2]), RendezvousRouter(servers.nodes)
        stayed = [key for key in KEYS if before.pick(key.encode()) == after.pick(key.encode())]
        assert await client.get_many(stayed) == {key: ITEMS[key] for key in stayed}
        with pytest.raises(InvalidArgumentError):
            cluster.set_nodes([])
        assert cluster.nodes == after.nodes


async def test_every_node_is_asked_and_a_dead_one_has_its_error() -> None:
    async with AsyncExitStack() as stack:
        servers = await three(stack)
        cluster = await stack.enter_async_context(AsyncCluster(servers.nodes, settings=PATIENT))
        dead = servers.all[2]
        dead.kill()
        pings = await cluster.ping()
        assert isinstance(pings.pop(dead.node), ConnectError)
        assert list(pings.values()) == [True, True]
        versions = await cluster.version()
        assert all(str(version).startswith("1.") for node, version in versions.items() if node != dead.node)
        stats = await cluster.stats("settings")
        alive = stats[servers.nodes[0]]
        assert isinstance(alive, dict)
        assert alive["maxbytes"]
        assert [each is True for each in (await cluster.flush_all()).values()].count(True) == 2
        with pytest.raises(InvalidArgumentError):
            await cluster.stats("a\r\nb")


async def test_a_node_that_is_removed_while_every_node_is_asked_is_in_the_answer(memcached: Memcached) -> None:
    async with nothing_left(), AsyncCluster([memcached.node, UNHEARD], settings=PATIENT) as cluster:
        asked = asyncio.create_task(cluster.version())
        await asyncio.sleep(0)
        cluster.set_nodes([memcached.node])
        answers = await asked
        assert isinstance(answers[memcached.node], str)
        assert isinstance(answers[UNHEARD], ClosedError | ConnectError)


# --- nodes that are found --------------------------------------------------------------------------------------------


@pytest.mark.both_loops
async def test_nodes_are_found_when_first_used_and_a_failure_is_tried_again(shared_memcached: Memcached) -> None:
    asked: list[AsyncCluster] = []

    async def find(cluster: AsyncCluster, /) -> list[Node]:
        asked.append(cluster)
        if len(asked) == 1:
            raise ConnectError("not yet")
        return [shared_memcached.node]

    async with nothing_left(), AsyncCluster(find, settings=PATIENT) as cluster:
        client = cluster.client()
        assert asked == []
        with pytest.raises(ConnectError, match="not yet"):
            await client.get("key")
        stored = await asyncio.gather(*(client.set(f"key:{n}", b"v") for n in range(10)))
        assert all(stored)
        assert asked == [cluster, cluster]
        assert await client.get_many(["key:1"]) == {"key:1": b"v"}


@pytest.mark.both_loops
@pytest.mark.parametrize("error", [ConnectError("no answer"), AuthenticationError("no credentials")])
async def test_a_batch_has_an_error_for_each_request_if_the_nodes_are_not_found(error: MetacacheError) -> None:
    async def find(_: AsyncCluster, /) -> list[Node]:
        raise error

    batch = Batch(GET_MANY, ["a", "b"], [b"a", b"b"], [b"mg a v f", b"mg b v f"])
    async with nothing_left(), AsyncCluster(find, settings=PATIENT) as cluster:
        replies = await cluster.run_batch(batch, deadline=math.inf)
        assert {index: type(each) for index, each in replies.errors.items()} == dict.fromkeys((0, 1), type(error))
        assert {each.operation for each in replies.errors.values()} == {"get_many"}


async def test_a_url_of_a_source_finds_its_nodes(shared_memcached: Memcached) -> None:
    url = f"memcached+dns://localhost:{shared_memcached.port}"
    async with nothing_left(), connect_async(url, str, settings=PATIENT, prefix="dns:") as client:
        assert await client.set("key", "v")
        assert await client.get("key") == "v"


async def test_a_cluster_may_be_closed_while_it_finds_its_nodes() -> None:
    async def find(_: AsyncCluster, /) -> list[Node]:
        await asyncio.Event().wait()
        return []

    async with nothing_left():
        cluster = AsyncCluster(find, settings=PATIENT)
        task = asyncio.create_task(cluster.client().get("key"))
        await asyncio.sleep(0.01)
        await cluster.aclose()
        with pytest.raises(ClosedError):
            await task


@pytest.mark.both_loops
async def test_a_cluster_whose_nodes_are_set_before_its_first_use_finds_none(shared_memcached: Memcached) -> None:
    async def find(_: AsyncCluster, /) -> list[Node]:
        raise AssertionError("the nodes are known")

    async with nothing_left(), AsyncCluster(find, settings=PATIENT) as cluster:
        cluster.set_nodes([shared_memcached.node])
        assert await cluster.client().set("key", b"v")
        assert cluster.nodes == (shared_memcached.node,)


@pytest.mark.both_loops
@pytest.mark.parametrize("answer", [[Node("127.0.0.1:1")], []])
async def test_nodes_that_are_set_while_the_cluster_finds_others_stay(
    shared_memcached: Memcached, answer: list[Node]
) -> None:
    looking, go_on = asyncio.Event(), asyncio.Event()

    async def find(_: AsyncCluster, /) -> list[Node]:
        looking.set()
        await go_on.wait()
        return answer

    async with nothing_left(), AsyncCluster(find, settings=PATIENT) as cluster:
        client = cluster.client()
        waiting = asyncio.create_task(client.get_many(["none"]))
        await looking.wait()
        cluster.set_nodes([shared_memcached.node])
        assert await client.set("set", b"v"), "they are used immediately"
        go_on.set()
        assert await waiting == {}
        assert await client.get("set") == b"v"
        assert cluster.nodes == (shared_memcached.node,)


def test_a_pool_that_is_drained_when_the_loop_ends_is_closed_with_its_cluster(shared_memcached: Memcached) -> None:
    body = """
        import asyncio, gc, sys
        from metacache import AsyncCluster, Node, Settings
        going, staying = Node(sys.argv[1]), Node(sys.argv[2])
        cluster = AsyncCluster([going, staying], settings=Settings(timeout=10.0))
        client = cluster.client()

        async def main():
            key = next(key for key in map(str, range(1000)) if cluster.router.pick(key.encode()) == going)
            asyncio.create_task(client.get(key))
            while not cluster.statistics[going].created:
                await asyncio.sleep(0.001)
            cluster.set_nodes([staying])
            await asyncio.sleep(0)  # the drain begins, and waits for a reply that never comes
            assert await client.set("drained", b"v")

        asyncio.run(main())
        asyncio.run(cluster.aclose())
        asyncio.run(cluster.aclose())
        del cluster, client
        gc.collect()
        print("done")
    """
    with ScriptedServer(silent) as server:
        assert run_alone(body, server.node.name, shared_memcached.node.name) == "done\n"


@pytest.mark.both_loops
async def test_a_request_that_runs_on_a_removed_node_is_answered_before_its_connection_closes() -> None:
    asked, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        request = peer.request()
        asked.set()
        assert go_on.wait(10.0)
        request.answer(*HIT)
        peer.expect_end()
        ended.set()

    async with nothing_left():
        with ScriptedServer(script) as going, ScriptedServer() as staying:
            async with AsyncCluster([going.node], settings=PATIENT) as cluster:
                call = asyncio.create_task(cluster.client().get("key"))
                await until(asked.is_set)
                cluster.set_nodes([staying.node])
                go_on.set()
                assert await call == b"right"
                await until(ended.is_set)
