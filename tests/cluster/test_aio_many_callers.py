"""Tasks that meet at one node: what waits is counted, dials that fail together are one event, a close ends batches."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
from collections.abc import Callable
from time import monotonic
from typing import Final

import attrs
import pytest

from metacache import (
    AsyncClient,
    AsyncCluster,
    AsyncPool,
    AsyncTransport,
    BatchError,
    Called,
    ClosedError,
    ConnectError,
    Exchanged,
    Node,
    NodeState,
    OperationTimeout,
    Settings,
)
from metacache.observe import Event
from metacache.testing import Memcached
from tests.conftest import start
from tests.scripted import Peer, ScriptedServer, answering
from tests.transports.aio_rig import HIT, PATIENCE, PATIENT, nothing_left, settled, sockets, until

KEYS: Final = [f"many:{number}" for number in range(2000)]
ITEMS: Final = {key: key.encode() * 100 for key in KEYS}


# --- what waits ------------------------------------------------------------------------------------------------------


@pytest.mark.both_loops
async def test_a_pool_counts_requests_that_wait_because_its_connections_are_full_and_how_long() -> None:
    go_on = threading.Event()

    def slow(peer: Peer) -> None:
        first = peer.requests(2)
        assert go_on.wait(PATIENCE)
        for asked in first:
            asked.answer(*HIT)
        answering(*[HIT] * 3)(peer)

    settings = attrs.evolve(PATIENT, pool_size=1, max_in_flight=2)
    with ScriptedServer(slow) as server:
        async with AsyncPool(server.node, settings=settings) as pool:
            client = AsyncClient(pool)
            calls = [asyncio.create_task(client.get(key)) for key in "abcde"]
            await until(lambda: pool.statistics.waits == 3)
            since, before = monotonic(), pool.statistics
            assert (before.in_use, before.waiting) == (1, 3)
            await asyncio.sleep(0.05)
            waited = pool.statistics.wait_seconds - before.wait_seconds
            assert waited > 2.5 * 0.05, "each of the three adds its own time"
            go_on.set()
            assert await asyncio.gather(*calls) == [b"right"] * 5
            known = pool.statistics
            assert (known.in_use, known.waiting, known.waits) == (0, 0, 3)
            assert waited <= known.wait_seconds <= before.wait_seconds + 3 * (monotonic() - since)
            await asyncio.sleep(0.01)
            assert pool.statistics.wait_seconds == known.wait_seconds, "the time of those that have gone stands still"


@pytest.mark.both_loops
async def test_a_pool_counts_no_wait_while_its_connections_have_room(shared_memcached: Memcached) -> None:
    async with AsyncPool(shared_memcached.node, settings=attrs.evolve(PATIENT, pool_size=2)) as pool:
        client = AsyncClient(pool)
        await asyncio.gather(*(client.get(key) for key in KEYS[:50]))
        assert (pool.statistics.waits, pool.statistics.wait_seconds) == (0, 0.0)


# --- dials that fail together ----------------------------------------------------------------------------------------


@pytest.mark.both_loops
async def test_dials_of_one_pool_that_fail_at_the_same_time_are_one_event() -> None:
    """A pool dials two connections at the same time: one of them is for large values."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # it does not listen: every dial is refused
        node = Node(f"127.0.0.1:{unused.getsockname()[1]}")
        async with nothing_left(), AsyncCluster([node], settings=attrs.evolve(PATIENT, pool_size=2)) as cluster:
            client = cluster.client()
            states: list[NodeState] = []
            for calls in (
                [client.get("small"), client.set("large", bytes(1_000_000))],
                [client.get("small")],
                [client.get("small")],
            ):
                failures = await asyncio.gather(*calls, return_exceptions=True)
                assert {type(failure) for failure in failures} == {ConnectError}
                states.append(cluster.states[node])
            assert states == [NodeState.SUSPECT, NodeState.SUSPECT, NodeState.DOWN], "three events take a node down"


# --- a batch and a close ---------------------------------------------------------------------------------------------


def pool_of(nodes: list[Node], settings: Settings) -> AsyncTransport:
    return AsyncPool(nodes[0], settings=settings)


def cluster_of(nodes: list[Node], settings: Settings) -> AsyncTransport:
    return AsyncCluster(nodes, settings=settings)


def ends_of(outcome: dict[str, bytes] | BaseException) -> dict[str, object]:
    """Return the end of each key of a `get_many` of all keys: its value, or its error."""
    if isinstance(outcome, BatchError):
        return {str(key): end for key, end in (*outcome.results.items(), *outcome.errors.items())}
    return dict.fromkeys(KEYS, outcome) if isinstance(outcome, BaseException) else dict(outcome)


@pytest.mark.both_loops
@pytest.mark.parametrize("make", [pool_of, cluster_of])
async def test_a_batch_in_flight_at_a_close_ends_with_its_values_or_closed_errors(
    shared_memcached: Memcached, make: Callable[[list[Node], Settings], AsyncTransport]
) -> None:
    """Close after each number of turns of the loop, until the batch is over before the close."""
    nodes = [Node(shared_memcached.node.address, name=name) for name in "ab"]
    before = sockets()
    ends: set[type] = set()
    was_over = False
    async with AsyncClient(make(nodes, PATIENT), owns=True) as client:
        await client.set_many(ITEMS)
    for turns in (*range(40), *range(40, 4000, 40)):
        async with nothing_left():
            transport = make(nodes, PATIENT)
            batch = asyncio.create_task(AsyncClient(transport).get_many(KEYS))
            for _ in range(turns):
                await asyncio.sleep(0)
            was_over = batch.done()
            async with asyncio.timeout(PATIENCE):
                await transport.aclose()
                (outcome,) = await settled(batch)
        found = ends_of(outcome)
        assert found.keys() == ITEMS.keys()
        ends |= {type(end) for end in found.values()}
        assert all(isinstance(end, ClosedError) or end == ITEMS[key] for key, end in found.items())
        if was_over:
            break
    assert was_over
    assert ends == {bytes, ClosedError}, "some closes came before the requests were written, some after"
    assert sockets() <= before


@pytest.mark.both_loops
@pytest.mark.parametrize("verb", ["get_many", "set_many"])
async def test_a_close_ends_a_batch_on_a_frozen_node_and_on_a_good_one(verb: str) -> None:
    settings = Settings(timeout=0.3, connect_timeout=10.0)
    with start() as good, start() as frozen:
        nodes = [Node(good.node.address, name="good"), Node(frozen.node.address, name="frozen")]
        async with nothing_left():
            cluster = AsyncCluster(nodes, settings=settings)
            client = cluster.client()
            await client.with_options(timeout=PATIENCE).set_many(ITEMS)
            frozen.freeze()
            argument = ITEMS if verb == "set_many" else KEYS
            batch = asyncio.create_task(getattr(client, verb)(argument))
            await asyncio.sleep(0.05)
            assert not batch.done()
            async with asyncio.timeout(PATIENCE):
                await cluster.aclose()
                (outcome,) = await settled(batch)
        assert isinstance(outcome, BatchError)
        of_frozen = {key for key in KEYS if cluster.router.pick(key.encode()).name == "frozen"}
        assert outcome.errors.keys() == of_frozen
        assert {type(error) for error in outcome.errors.values()} <= {OperationTimeout, ClosedError}
        assert {error.node for error in outcome.errors.values()} == {"frozen"}
        assert outcome.results.keys() == ITEMS.keys() - of_frozen
        frozen.thaw()


class Silent:
    """An observer that does nothing."""

    def called(self, event: Called, /) -> None:
        pass

    def exchanged(self, event: Exchanged, /) -> None:
        pass

    def happened(self, event: Event, /) -> None:
        pass


@pytest.mark.parametrize("observer", [None, Silent()], ids=["plain", "observed"])
async def test_a_batch_that_is_cancelled_before_its_parts_start_leaves_no_coroutine_behind(
    observer: Silent | None, recwarn: pytest.WarningsRecorder
) -> None:
    keys = [f"key-{number}" for number in range(50)]
    with Memcached() as one, Memcached() as other:
        async with AsyncCluster([one.node, other.node], observer=observer) as cluster:
            client = AsyncClient(cluster)
            await client.set_many(dict.fromkeys(keys, b"value"))
            for _ in range(3):
                reading = asyncio.create_task(client.get_many(keys))
                await asyncio.sleep(0)  # the parts are queued, and their tasks have not run
                reading.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await reading
            assert await client.get_many(keys) == dict.fromkeys(keys, b"value")
    gc.collect()
    assert [str(each.message) for each in recwarn.list] == []
