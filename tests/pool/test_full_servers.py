"""A server that accepts no further connection: callers wait for the open connections and use them first."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

import pytest

from metacache import BatchError, Client, Cluster, ConnectError, NodeState, Pool, PoolTimeout, Settings
from metacache.testing import Memcached
from metacache.transports.limits import RETRY
from tests.cluster.rig import failure_of
from tests.conftest import start
from tests.full_server import FEW, Crowd
from tests.pool.rig import PATIENCE, Call, begin, finish, held, until
from tests.transports.rig import within

FOUR: Final = Settings(timeout=PATIENCE, pool_size=4)

USES: Final[dict[str, Callable[[Client[bytes]], object]]] = {
    "one key": lambda client: client.get("key"),
    "a batch": lambda client: client.get_many(["key"]).get("key"),
}


@contextmanager
def full(pool: Callable[[Memcached], Pool]) -> Generator[tuple[Pool, Client[bytes], Crowd]]:
    """Yield a pool that has one connection to a server that accepts no further one."""
    with start(*FEW) as server, pool(server) as made:
        client, crowd = Client(made), Crowd(server)
        client.set("key", b"right")
        crowd.fill()
        yield made, client, crowd
        crowd.leave()


def refused(use: Callable[[], object]) -> bool:
    """Return whether *use* fails because no connection could be made."""
    failure = failure_of(use)
    failures = failure.errors.values() if isinstance(failure, BatchError) else [failure]
    return {type(each) for each in failures} == {ConnectError}


@pytest.mark.parametrize("use", USES)
def test_after_a_refusal_callers_wait_for_the_connection_that_is_in_use(use: str) -> None:
    with full(lambda server: Pool(server.node, settings=FOUR)) as (pool, client, _):
        with held(pool):
            assert refused(lambda: USES[use](client))
            created = pool.statistics.created
            calls = [Call(lambda: USES[use](client)) for _ in range(3)]
            until(lambda: pool.statistics.waiting == 3)
        assert [call.result() for call in calls] == [b"right"] * 3
        assert pool.statistics.created == created
        assert (pool.statistics.in_use, pool.statistics.idle) == (0, 1)


@pytest.mark.parametrize("use", USES)
def test_a_connection_whose_dial_failed_is_not_lent_before_an_idle_one(use: str) -> None:
    with full(lambda server: Pool(server.node, settings=FOUR)) as (pool, client, _):
        other = begin(pool)
        assert refused(lambda: USES[use](client))
        finish(other)
        with held(pool):
            finish(other)
        created = pool.statistics.created
        assert [USES[use](client) for _ in range(3)] == [b"right"] * 3
        assert pool.statistics.created == created


@pytest.mark.parametrize("use", USES)
def test_a_waiter_dials_again_some_time_after_a_refused_dial(use: str) -> None:
    with full(lambda server: Pool(server.node, settings=FOUR)) as (pool, client, crowd), held(pool):
        assert refused(lambda: USES[use](client))
        crowd.leave()
        assert USES[use](client) == b"right"
        assert (pool.statistics.in_use, pool.statistics.idle) == (1, 1)


def test_a_pool_timeout_on_a_full_server_names_the_servers_limit() -> None:
    with full(lambda server: Pool(server.node, settings=FOUR)) as (pool, client, _), held(pool):
        assert refused(lambda: client.get("key"))
        with pytest.raises(PoolTimeout, match=r"no further one could be made; .*\(-c\)"):
            client.with_options(timeout=0.1).get("key")


def test_when_the_last_connection_is_lost_waiting_callers_dial_immediately(memcached: Memcached) -> None:
    with Pool(memcached.node, settings=FOUR) as pool:
        client = Client(pool)
        assert client.get("key") is None
        other = begin(pool)
        memcached.kill()
        assert refused(lambda: client.get("key"))
        calls = [Call(lambda: refused(lambda: client.get("key"))) for _ in range(3)]
        until(lambda: pool.statistics.waiting == 3)
        with within(0.0, RETRY / 2):
            finish(other)  # it meets the lost connection, and its dial fails
            assert all(call.result() for call in calls)
        assert (pool.statistics.in_use, pool.statistics.idle) == (0, 0)
        memcached.restart()
        assert client.get("key") is None


def test_a_full_node_is_not_down_while_it_serves_the_connections_that_it_has() -> None:
    with start(*FEW) as server, Cluster([server.node], settings=FOUR) as cluster:
        client, crowd = cluster.client(), Crowd(server)
        client.set("key", b"right")
        crowd.fill()
        exchange = begin(cluster)
        assert refused(lambda: client.get("key"))
        calls = [Call(lambda: client.get("key")) for _ in range(4)]
        until(lambda: cluster.statistics[server.node].waiting == 4)
        finish(exchange)
        assert [call.result() for call in calls] == [b"right"] * 4
        assert cluster.states[server.node] is NodeState.UP
        crowd.leave()
