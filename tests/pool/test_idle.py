"""Idle connections: closed when unused or old, checked before use, and replaced within the call when stale."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import sleep
from typing import Final

import pytest

from metacache import Client, Cluster, Pool, Settings, StoreResult
from metacache.testing import Memcached
from metacache.transports.counters import CloseReason
from tests.certificates import trusting
from tests.conftest import start, start_tls
from tests.pool.rig import PATIENCE, PATIENT, held, open_sockets, until
from tests.scripted import Peer, ScriptedServer, answering, in_turn
from tests.transports.rig import HIT, IDLE

SOON: Final = 0.1  # seconds; a limit that has passed as soon as a test slept a little


def opened(pool: Pool, count: int) -> None:
    """Open *count* connections and leave them idle."""
    with held(pool, count):
        assert pool.statistics.in_use == count
    assert pool.statistics.idle == count


# --- unused, old -----------------------------------------------------------------------------------------------------

USES: Final[dict[str, Callable[[Client[bytes]], object]]] = {
    "one key": lambda client: client.get("key"),
    "a batch": lambda client: client.get_many(["key"]),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("min_idle", [0, 3])
def test_unused_connections_are_closed_while_the_pool_is_used(
    shared_memcached: Memcached, min_idle: int, use: str
) -> None:
    settings = Settings(timeout=PATIENCE, pool_max_idle_time=SOON, pool_min_idle=min_idle)
    with Pool(shared_memcached.node, settings=settings) as pool:
        before = open_sockets()
        opened(pool, 5)
        sleep(2 * SOON)
        USES[use](Client(pool))
        known = pool.statistics
        # The connection just used is not closed, and counts as one of those that stay.
        assert known.idle == max(min_idle, 1)
        assert known.discarded[CloseReason.IDLE] == 5 - max(min_idle, 1)
        assert open_sockets() == before + known.idle


def test_old_connections_are_closed_although_they_are_used(shared_memcached: Memcached) -> None:
    settings = Settings(timeout=PATIENCE, max_lifetime=SOON, pool_min_idle=5)
    with Pool(shared_memcached.node, settings=settings) as pool:
        opened(pool, 2)
        sleep(2 * SOON)
        Client(pool).get("key")
        assert pool.statistics.discarded[CloseReason.OLD] == 2
        assert pool.statistics.idle == 0
        Client(pool).get("key")
        assert pool.statistics.created == 3


def test_without_limits_an_idle_connection_stays(shared_memcached: Memcached) -> None:
    with Pool(shared_memcached.node, settings=PATIENT) as pool:
        opened(pool, 3)
        sleep(2 * SOON)
        Client(pool).get("key")
        pool.reap()
        assert pool.statistics.idle == 3
        assert not any(pool.statistics.discarded.values())


def test_a_connection_in_use_is_never_closed_for_its_age(shared_memcached: Memcached) -> None:
    settings = Settings(timeout=PATIENCE, max_lifetime=SOON, pool_max_idle_time=SOON)
    with Pool(shared_memcached.node, settings=settings) as pool:
        with held(pool, 2):
            sleep(2 * SOON)
            pool.reap()
            assert not any(pool.statistics.discarded.values())
        assert pool.statistics.created == 2


# --- stale -----------------------------------------------------------------------------------------------------------

AFTER_RESTART: Final[dict[str, Callable[[Client[bytes]], object]]] = {
    "get": lambda client: client.get("key") is None,
    "set": lambda client: client.set("key", b"v"),
    "append": lambda client: client.append("none", b"v") is StoreResult.NOT_STORED,
    "get_many": lambda client: client.get_many(["key", "other"]) == {},
    "set_many": lambda client: all(client.set_many({"key": b"v", "other": b"v"}).values()),
    "delete_many": lambda client: not any(client.delete_many(["key", "other"]).values()),
}


@pytest.mark.parametrize("name", AFTER_RESTART)
def test_six_stale_connections_after_a_restart_fail_no_call(memcached: Memcached, name: str) -> None:
    with Pool(memcached.node, settings=PATIENT) as pool:
        client = Client(pool)
        opened(pool, 6)
        memcached.restart()
        sleep(IDLE)
        assert AFTER_RESTART[name](client)
        for number in range(8):
            key = f"key {number}"
            assert client.set(key, b"right")
            assert client.get(key) == b"right"
        assert pool.statistics.discarded[CloseReason.BROKEN] == 0
        assert pool.statistics.discarded[CloseReason.STALE] == 1, "only the connection that is used is checked"
        opened(pool, 6)
        assert pool.statistics.discarded[CloseReason.STALE] == 6


def test_a_read_that_meets_a_stale_connection_is_sent_again_on_a_new_one_not_on_another_stale_one() -> None:
    # The server closes the used connection after the request, so the check before it finds nothing.
    used = in_turn(lambda peer: peer.request().answer(b"EN"), Peer.request, Peer.fin)
    with (
        ScriptedServer(answering((b"EN", None)), used, answering(HIT)) as server,
        Pool(server.node, settings=PATIENT) as pool,
    ):
        opened(pool, 2)
        assert Client(pool).get("key") == b"right"
        assert server.accepted == 3


def test_unrequested_bytes_make_an_idle_connection_stale() -> None:
    answered = threading.Event()

    def rude(peer: Peer) -> None:
        peer.request().answer(b"EN")
        answered.wait(PATIENCE)
        peer.send(b"EN\r\n")
        peer.expect_end()

    with ScriptedServer(rude, answering(HIT)) as server, Pool(server.node, settings=PATIENT) as pool:
        assert Client(pool).get("key") is None
        answered.set()
        sleep(IDLE)
        assert Client(pool).get("key") == b"right"
        assert pool.statistics.discarded[CloseReason.STALE] == 1


def test_idle_connections_that_the_server_closed_cause_no_error() -> None:
    with start("-o", "idle_timeout=1") as server, Pool(server.node, settings=PATIENT) as pool:
        opened(pool, 3)
        with Cluster([server.node]) as other:
            until(lambda: _idle_kicks(other) == 3)
        assert Client(pool).set("key", b"right")
        with held(pool, 3):
            pass
        assert pool.statistics.discarded[CloseReason.STALE] == 3
        assert pool.statistics.discarded[CloseReason.BROKEN] == 0


def _idle_kicks(cluster: Cluster) -> int:
    (stats,) = cluster.stats().values()
    assert isinstance(stats, dict)
    return int(stats["idle_kicks"])


# --- over TLS --------------------------------------------------------------------------------------------------------


def test_over_tls_tickets_make_no_connection_stale_and_a_restart_fails_no_call(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with (
        start_tls(tmp_path_factory.mktemp("tls"), "-m", "256") as server,
        Pool(server.node, settings=Settings(timeout=PATIENCE, tls=trusting())) as pool,
    ):
        client = Client(pool)
        opened(pool, 4)
        for _ in range(3):
            sleep(IDLE)
            opened(pool, 4)
        assert (pool.statistics.created, pool.statistics.discarded[CloseReason.STALE]) == (4, 0)
        server.restart()
        sleep(IDLE)
        with held(pool, 4):
            assert client.set("key", b"right")
            assert client.append("key", b"!")
        assert client.get_many(["key"]) == {"key": b"right!"}
        assert pool.statistics.discarded == {**dict.fromkeys(CloseReason, 0), CloseReason.STALE: 4}
