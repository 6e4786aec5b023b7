"""Which errors are failures of a node. A caller without time left, or without a descriptor, charges no node."""

from __future__ import annotations

import os
import re
import resource
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Final

import attrs
import pytest

from metacache import (
    AsyncCluster,
    Client,
    Cluster,
    ConnectError,
    Node,
    NodeDownError,
    OperationTimeout,
    PoolTimeout,
    Settings,
)
from metacache.observe import NodeState
from metacache.testing import Memcached
from tests.cluster.rig import NOWHERE, PATIENT, failure_of, state_of
from tests.pool.rig import Call, begin, finish, until
from tests.transports.test_deadlines import deaf_listener

NO_TIME: Final = 1e-9  # seconds: they have passed before a request can begin

USES: Final[dict[str, Callable[[Client[bytes]], object]]] = {
    "read": lambda client: client.get("key"),
    "write": lambda client: client.set("key", b"v"),
    "batch": lambda client: client.get_many(["a", "b"]),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("state", ["connected", "not connected"])
def test_a_caller_without_time_left_takes_no_node_down(memcached: Memcached, use: str, state: str) -> None:
    with Cluster([memcached.node], settings=PATIENT) as cluster, Cluster([memcached.node], settings=PATIENT) as other:
        client = cluster.client()
        if state == "connected":
            assert client.set("key", b"value")
        hasty = client.with_options(timeout=NO_TIME)
        commands = _commands(other)
        for _ in range(5):
            failure = failure_of(lambda: USES[use](hasty))
            assert not failure.maybe_applied
            assert re.search("no time was left|give a longer timeout", str(failure))
            assert state_of(cluster, memcached.node.name) is NodeState.UP
        assert _commands(other) == commands, "nothing was sent"
        assert client.set("key", b"value")
        assert client.get("key") == b"value"
        (statistics,) = cluster.statistics.values()
        assert statistics.created == 1, "no connection was given up"
        assert not any(statistics.discarded.values())
        assert (statistics.in_use, statistics.idle) == (0, 1)


def test_a_caller_without_time_to_resolve_a_name_charges_no_node() -> None:
    node = Node("localhost:1", name="named")  # refuses every connection
    with Cluster([node], settings=PATIENT) as cluster:
        client = cluster.client()
        for _ in range(3):
            assert isinstance(failure_of(lambda: client.with_options(timeout=NO_TIME).get("key")), ConnectError)
            assert state_of(cluster, "named") is NodeState.UP
        assert isinstance(failure_of(lambda: client.get("key")), ConnectError)
        assert state_of(cluster, "named") is NodeState.SUSPECT


def test_a_dial_that_uses_up_the_time_is_a_failure_of_the_node() -> None:
    with deaf_listener() as node, Cluster([node], settings=attrs.evolve(PATIENT, timeout=0.1)) as cluster:
        client = cluster.client()
        for state in (NodeState.SUSPECT, NodeState.SUSPECT, NodeState.DOWN):
            assert isinstance(failure_of(lambda: client.get("key")), ConnectError)
            assert state_of(cluster, node.name) is state
        assert isinstance(failure_of(lambda: client.get("key")), NodeDownError)


def test_a_caller_without_time_leaves_the_probe_to_others(memcached: Memcached) -> None:
    changes: list[tuple[NodeState, NodeState]] = []

    def listen(_: Node, before: NodeState, after: NodeState) -> None:
        changes.append((before, after))

    with Cluster([memcached.node], settings=PATIENT, on_state_change=listen) as cluster:
        client = cluster.client()
        memcached.kill()
        for _ in range(3):
            assert isinstance(failure_of(lambda: client.get("key")), ConnectError)
        memcached.restart()
        hasty = client.with_options(timeout=NO_TIME)
        due = monotonic() + 0.7
        until(lambda: isinstance(failure_of(lambda: hasty.get("key")), NodeDownError) and monotonic() > due)
        assert changes[-1] == (NodeState.SUSPECT, NodeState.DOWN)
        assert client.get("key") is None, "the next caller probes immediately"


def test_time_spent_waiting_for_a_connection_is_no_failure_of_the_node_and_nothing_is_sent(
    memcached: Memcached,
) -> None:
    with Cluster([memcached.node], settings=attrs.evolve(PATIENT, pool_size=1)) as cluster:
        client = cluster.client()
        hasty = client.with_options(timeout=0.05)
        commands = _commands(cluster)
        for _ in range(3):
            exchange = begin(cluster)
            call = Call(lambda: failure_of(lambda: hasty.get("key")))
            assert isinstance(call.result(), PoolTimeout)
            errors = hasty.get_many_outcomes(["a", "b"]).errors
            assert {type(error) for error in errors.values()} == {PoolTimeout}
            assert state_of(cluster, memcached.node.name) is NodeState.UP, "before a reply could make it so"
            finish(exchange)
        assert _commands(cluster) == commands + 3, "those of the batches, and no other"
        (statistics,) = cluster.statistics.values()
        assert (statistics.in_use, statistics.idle, statistics.waiting) == (0, 1, 0)
        assert client.get("key") is None


def _commands(cluster: Cluster) -> int:
    """Return the number of reads and writes that the server has counted."""
    (stats,) = cluster.stats().values()
    assert isinstance(stats, dict)
    return int(stats["cmd_get"]) + int(stats["cmd_set"])


# --- what this process lacks -----------------------------------------------------------------------------------------


@contextmanager
def no_descriptors() -> Generator[None]:
    """Use up the descriptors of this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 3, hard))
        with suppress(OSError):
            while True:
                stack.callback(os.close, os.dup(0))
        yield


def test_a_process_without_descriptors_takes_no_node_down(memcached: Memcached) -> None:
    with Cluster([memcached.node], settings=PATIENT) as cluster:
        client = cluster.client()
        with no_descriptors():
            errors = [failure_of(lambda: client.get("key")) for _ in range(5)]
            outcomes = client.get_many_outcomes(["a", "b"])
        assert {type(error) for error in [*errors, *outcomes.errors.values()]} == {ConnectError}
        assert all("Too many open files" in str(error) for error in errors)
        assert state_of(cluster, memcached.node.name) is NodeState.UP
        assert client.get("key") is None


def test_a_name_that_cannot_be_resolved_without_a_descriptor_takes_no_node_down(memcached: Memcached) -> None:
    node = Node(memcached.node.name.replace("127.0.0.1", "localhost"), name="named")
    with Cluster([node], settings=PATIENT) as cluster:
        client = cluster.client()
        with no_descriptors():
            errors = [failure_of(lambda: client.get("key")) for _ in range(3)]
        assert {type(error) for error in errors} == {ConnectError}
        assert all("Too many open files" in str(error) for error in errors)
        assert state_of(cluster, "named") is NodeState.UP
        assert client.get("key") is None


def test_a_process_without_threads_takes_no_node_down(memcached: Memcached, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")  # the text of CPython

    node = Node(memcached.node.name.replace("127.0.0.1", "localhost"), name="named")
    with Cluster([node], settings=PATIENT) as cluster:
        client = cluster.client()
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", start)
            errors = [failure_of(lambda: client.get("key")) for _ in range(3)]
        assert {type(error) for error in errors} == {ConnectError}
        assert all("can't start new thread" in str(error) for error in errors)
        assert state_of(cluster, "named") is NodeState.UP
        assert client.get("key") is None


async def test_an_asyncio_process_without_descriptors_takes_no_node_down(memcached: Memcached) -> None:
    async with AsyncCluster([memcached.node], settings=PATIENT) as cluster:
        client = cluster.client()
        with no_descriptors():
            for _ in range(5):
                with pytest.raises(ConnectError, match="Too many open files"):
                    await client.get("key")
        assert cluster.states[memcached.node] is NodeState.UP
        assert await client.get("key") is None


async def test_an_asyncio_caller_without_time_left_takes_no_node_down(memcached: Memcached) -> None:
    async with AsyncCluster([memcached.node], settings=PATIENT) as cluster:
        client = cluster.client()
        for _ in range(5):
            with pytest.raises(OperationTimeout):
                await client.with_options(timeout=NO_TIME).get("key")
        assert cluster.states[memcached.node] is NodeState.UP
        assert await client.get("key") is None


def test_a_refused_connection_is_a_failure_of_the_node() -> None:
    with Cluster([NOWHERE], settings=Settings()) as cluster:
        error = failure_of(lambda: cluster.client().get("key"))
        assert isinstance(error, ConnectError)
        assert not error.is_local
        assert state_of(cluster, "nowhere") is NodeState.SUSPECT
