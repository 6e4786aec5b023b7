"""Rare failures of asyncio clusters: an on_failure that raises, unexpected dial errors, nodes set during a probe."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import attrs
import pytest

from metacache import (
    AsyncClient,
    AsyncCluster,
    AsyncConnection,
    AuthenticationError,
    BatchError,
    ClosedError,
    ConnectError,
    InvalidArgumentError,
    MetacacheError,
    Node,
    NodeState,
    OperationTimeout,
    ProtocolError,
    Settings,
)
from metacache.testing import Memcached
from tests.conftest import start
from tests.pool.test_aio_full_servers import first_stored, full
from tests.scripted import Peer, ScriptedServer, silent
from tests.transports.aio_rig import PATIENT, nothing_left, settled, until


def failing(_: MetacacheError) -> None:
    raise ValueError("the hook is broken")


@pytest.mark.both_loops
async def test_an_on_failure_that_raises_fails_no_request_and_leaves_no_socket(
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = Settings(timeout=0.2, max_in_flight=1)
    async with nothing_left():
        with ScriptedServer(silent, silent) as server:
            connection = AsyncConnection(server.node, settings=settings, on_failure=failing)
            async with AsyncClient(connection, owns=True) as client:
                began = time.monotonic()
                failures = await settled(client.get("a"), client.with_options(timeout=0.5).get("b"))
                assert time.monotonic() - began < 5.0
                assert [isinstance(failure, MetacacheError) for failure in failures] == [True, True]
    assert "the hook is broken" in caplog.text


@pytest.mark.both_loops
async def test_a_foreign_exception_in_a_dial_is_a_local_error_and_is_reported_to_the_loop(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, shared_memcached: Memcached
) -> None:
    caplog.set_level(logging.CRITICAL)
    dials: list[int] = []

    async def broken(*_: Any, **__: Any) -> object:  # Any: not looked at
        dials.append(1)
        raise RuntimeError("unexpected")

    loop = asyncio.get_running_loop()
    reported: list[object] = []

    def report(context: dict[str, object]) -> None:
        reported.append(context["exception"])

    async with nothing_left(), AsyncClient(AsyncConnection(shared_memcached.node), owns=True) as client:
        with monkeypatch.context() as patched:
            patched.setattr(loop, "create_connection", broken)
            patched.setattr(loop, "call_exception_handler", report)
            with pytest.raises(ConnectError, match="RuntimeError") as raised:
                await client.get("key")
            assert raised.value.is_local
            await until(lambda: bool(reported))
            assert reported == [raised.value.__cause__]
            assert len(dials) == 1
        assert await client.set("key", b"v")


@pytest.mark.both_loops
async def test_a_refused_password_fails_only_the_keys_of_its_node() -> None:
    def refusing(peer: Peer) -> None:
        peer.request()
        peer.send(b"CLIENT_ERROR authentication failure\r\n")
        peer.expect_end()

    settings = attrs.evolve(PATIENT, username="user", password="secret")
    async with nothing_left():
        with start() as good, ScriptedServer(refusing, refusing, refusing) as bad:
            nodes = [Node(good.node.address, name="good"), Node(bad.node.address, name="bad")]
            async with AsyncCluster(nodes, settings=settings) as cluster:
                client = cluster.client()
                items = {f"key-{number}": b"v" for number in range(40)}
                theirs = {key for key in items if cluster.router.pick(key.encode()).name == "bad"}
                outcomes = await client.set_many_outcomes(items)
                assert outcomes.results.keys() == items.keys() - theirs
                assert outcomes.errors.keys() == theirs
                assert {type(error) for error in outcomes.errors.values()} == {AuthenticationError}
                with pytest.raises(BatchError) as raised:
                    await client.get_many(items)
                assert raised.value.results.keys() == items.keys() - theirs
                with pytest.raises(AuthenticationError) as refused:
                    await client.get(min(theirs))
                assert (refused.value.operation, refused.value.key) == ("get", min(theirs))


@pytest.mark.both_loops
async def test_the_error_of_a_full_server_names_the_key_of_each_caller_and_nothing_was_applied() -> None:
    async with full() as (server, _), AsyncClient(AsyncConnection(server.node, settings=PATIENT), owns=True) as client:
        for _ in range(3):
            failures = await settled(*(client.append(f"key-{number}", b"x") for number in range(3)))
            for number, failure in enumerate(failures):
                assert isinstance(failure, ConnectError)
                assert (failure.operation, failure.key) == ("append", f"key-{number}")
                assert not failure.maybe_applied


@pytest.mark.both_loops
async def test_large_values_share_a_connection_with_small_ones_when_a_full_server_refuses_another() -> None:
    settings = attrs.evolve(PATIENT, pool_size=4)
    async with full() as (server, crowd), AsyncCluster([server.node], settings=settings) as cluster:
        client = cluster.client()
        crowd.leave(1)
        await first_stored(client)
        await settled(client.set("large", b"x" * 70_000))
        for _ in range(5):
            assert await client.set("large", b"x" * 70_000)
        assert cluster.states[server.node] is NodeState.UP


async def test_a_closed_cluster_refuses_requests_also_when_its_node_is_down() -> None:
    cluster = AsyncCluster([Node("127.0.0.1:1")], settings=PATIENT)
    client = cluster.client()
    for _ in range(3):
        with pytest.raises(ConnectError):
            await client.get("key")
    await cluster.aclose()
    for view in (client, client.with_options(on_error="miss")):
        with pytest.raises(ClosedError):
            await view.get("key")


@pytest.mark.both_loops
@pytest.mark.parametrize("on_node_down", ["fail", "next"])
async def test_when_other_nodes_are_set_during_a_probe_the_new_ones_serve(on_node_down: Any) -> None:  # Any: a literal
    settings = Settings(timeout=2.0, on_node_down=on_node_down)
    with start() as first, start() as second, start() as third:
        nodes = [Node(server.node.address, name=name) for server, name in zip((first, second), "ab", strict=True)]
        async with AsyncCluster(nodes, settings=settings) as cluster:
            client = cluster.client()
            key = next(key for key in map(str, range(1000)) if cluster.router.pick(key.encode()).name == "a")
            first.kill()
            while cluster.states[nodes[0]] is not NodeState.DOWN:
                await settled(client.get(key))
            first.restart()
            first.freeze()
            await asyncio.sleep(0.7)
            calls = [asyncio.create_task(client.get(key)), asyncio.create_task(client.get_many([key]))]
            await until(lambda: cluster.states[nodes[0]] is NodeState.PROBING)
            cluster.set_nodes([Node(third.node.address, name="c")])
            first.thaw()
            found = await settled(*calls)
            assert found[0] is None
            # The batch did not probe. The nodes at its beginning decided whether it was refused or moved.
            assert found[1] == {} if on_node_down == "next" else isinstance(found[1], BatchError)


async def test_a_connection_that_is_closed_in_another_loop_while_it_dials_leaves_no_socket() -> None:
    settings = Settings(timeout=5.0, connect_timeout=5.0, username="user", password="secret")

    def slow(peer: Peer) -> None:
        peer.request()
        peer.expect_end()

    with ScriptedServer(slow) as server:
        connection = AsyncConnection(server.node, settings=settings)
        call = asyncio.ensure_future(settled(AsyncClient(connection).get("key")))
        await until(lambda: connection.counts.dialled == 1)
        await asyncio.to_thread(lambda: asyncio.run(connection.aclose()))
        assert [type(failure) for failure in await call] == [ClosedError]
    # The script ends: it has read the end of the connection.


@pytest.mark.both_loops
async def test_a_request_whose_deadline_has_passed_charges_no_node(shared_memcached: Memcached) -> None:
    async with AsyncCluster([shared_memcached.node], settings=PATIENT) as cluster:
        client = cluster.client()
        for _ in range(4):
            with pytest.raises(OperationTimeout) as raised:
                await client.with_options(timeout=1e-9).get("key")
            assert raised.value.is_local
        assert cluster.states[shared_memcached.node] is NodeState.UP


def test_nodes_are_set_only_where_a_loop_runs() -> None:
    nodes = [Node("127.0.0.1:1"), Node("127.0.0.1:2")]
    cluster = AsyncCluster(nodes)
    with pytest.raises(InvalidArgumentError, match="event loop"):
        cluster.set_nodes(nodes[:1])
    assert cluster.nodes == tuple(nodes)


@pytest.mark.both_loops
async def test_a_server_that_reads_slowly_is_not_silent() -> None:
    size = 48_000_000

    def slow(peer: Peer) -> None:
        taken = 0
        while taken < size:
            taken += len(peer.sock.recv(1_000_000))
            time.sleep(0.02)
        peer.send(b"HD O99999\r\n")  # it belongs to no request: the ProtocolError shows that the client waited for it
        silent(peer)

    settings = attrs.evolve(PATIENT, timeout=0.5)
    async with nothing_left():
        with ScriptedServer(slow) as server:
            async with AsyncClient(AsyncConnection(server.node, settings=settings), owns=True, timeout=10.0) as client:
                began = time.monotonic()
                with pytest.raises(ProtocolError):
                    await client.set("key", b"x" * size)
                assert time.monotonic() - began > settings.timeout
                await asyncio.sleep(0.01)  # the loop closes the socket, which the script waits for
