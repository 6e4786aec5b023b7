"""Closing a pool: running requests finish, waiting and new ones are refused, no socket leaks. Also forks."""

from __future__ import annotations

import threading
from time import monotonic

import pytest

from metacache import Client, ClientError, ClosedError, Pool, Settings
from metacache.cluster import admin
from metacache.testing import Memcached
from tests.pool.rig import PATIENCE, PATIENT, Call, begin, finish, held, open_sockets, until
from tests.scripted import Peer, ScriptedServer, answering
from tests.transports.rig import HIT
from tests.transports.test_forking import CHILD, in_child


def test_closing_a_pool_lets_a_running_request_finish_and_closes_its_connection_then() -> None:
    asked, release = threading.Event(), threading.Event()

    def slow(peer: Peer) -> None:
        first = peer.request()
        asked.set()
        release.wait(PATIENCE)
        first.answer(*HIT)
        peer.expect_end()

    with ScriptedServer(slow) as server, Pool(server.node, settings=PATIENT) as pool:
        call = Call(lambda: Client(pool).get("key"))
        assert asked.wait(PATIENCE)
        pool.close()
        with pytest.raises(ClosedError):
            Client(pool).get("key")
        release.set()
        assert call.result() == b"right"


def test_closing_a_pool_lets_a_started_exchange_finish(shared_memcached: Memcached) -> None:
    before = open_sockets()
    pool = Pool(shared_memcached.node, settings=PATIENT)
    exchange = begin(pool)
    pool.close()
    finish(exchange)
    assert exchange.outcomes().errors == {}
    assert open_sockets() == before


def test_closing_a_pool_refuses_waiting_callers_immediately(shared_memcached: Memcached) -> None:
    with Pool(shared_memcached.node, settings=Settings(timeout=PATIENCE, pool_size=1)) as pool, held(pool):
        client = Client(pool)
        calls = [Call[object](lambda: client.get("key")), Call[object](lambda: client.get_many(["a"]))]
        until(lambda: pool.statistics.waiting == 2)
        began = monotonic()
        pool.close()
        for call in calls:
            with pytest.raises(ClosedError, match="the pool was closed"):
                call.result()
        assert monotonic() - began < PATIENCE / 2


def test_a_closed_pool_refuses_every_operation_and_may_be_closed_again(shared_memcached: Memcached) -> None:
    before = open_sockets()
    with Pool(shared_memcached.node, settings=PATIENT) as pool:
        with held(pool, 3):
            pass
        assert open_sockets() == before + 3
    pool.close()
    assert open_sockets() == before
    client = Client(pool)
    for operation in (lambda: client.get("k"), lambda: client.set("k", b""), lambda: client.get_many(["k"])):
        with pytest.raises(ClosedError, match="the pool was closed"):
            operation()
    assert (pool.statistics.in_use, pool.statistics.idle) == (0, 0)


def test_connections_closed_by_closing_the_pool_are_not_counted_as_discarded(shared_memcached: Memcached) -> None:
    pool = Pool(shared_memcached.node, settings=PATIENT)
    with held(pool, 3):
        exchange = begin(pool)
    pool.close()  # three are idle, one is in use
    finish(exchange)
    assert pool.statistics.created == 4
    assert not any(pool.statistics.discarded.values())


def test_a_closed_pool_has_nothing_in_use_although_its_connections_are_still_referenced(
    shared_memcached: Memcached,
) -> None:
    pool = Pool(shared_memcached.node, settings=PATIENT)
    with held(pool):
        pass
    with pytest.raises(ClientError) as kept:  # the traceback of an error refers to the stream
        pool.run(admin.stats("nonsense"))
    exchange = begin(pool)
    other = begin(pool)
    finish(other)
    assert (pool.statistics.in_use, pool.statistics.idle) == (1, 1)
    streams = pool.lending._checkout.all()
    pool.close()
    assert (pool.statistics.in_use, pool.statistics.idle) == (1, 0), "the running exchange may finish"
    finish(exchange)
    assert (pool.statistics.in_use, pool.statistics.idle) == (0, 0)
    assert len(streams) == 2
    assert kept.value.node == shared_memcached.node.name


def test_closing_while_threads_work_gives_each_its_value_or_a_closed_error(shared_memcached: Memcached) -> None:
    before = open_sockets()
    for _ in range(10):
        pool = Pool(shared_memcached.node, settings=Settings(timeout=PATIENCE, pool_size=2))
        client = Client(pool)
        client.set("closing", b"right")
        started = threading.Barrier(5)

        def work(client: Client[bytes] = client, started: threading.Barrier = started) -> int:
            started.wait(PATIENCE)
            for count in range(100_000):
                try:
                    assert client.get("closing") == b"right"
                    assert client.get_many(["closing"]) == {"closing": b"right"}
                except ClosedError:
                    return count
            raise AssertionError("the pool was not closed")

        calls = [Call(work) for _ in range(4)]
        started.wait(PATIENCE)
        pool.close()
        for call in calls:
            call.result()
        assert (pool.statistics.in_use, pool.statistics.waiting) == (0, 0)
    until(lambda: open_sockets() == before)


# --- forks -----------------------------------------------------------------------------------------------------------


def test_a_forked_child_dials_its_own_connection_and_the_parent_keeps_its_pool() -> None:
    with (
        ScriptedServer(answering((b"EN", None), HIT, HIT), answering(CHILD)) as server,
        Pool(server.node, settings=PATIENT) as pool,
    ):
        client = Client(pool)
        assert client.get("key") is None
        assert client.get("key") == b"right"
        assert in_child(lambda: client.get("key")) == b"child"
        assert client.get("key") == b"right"
        assert server.accepted == 2


def test_a_forked_child_has_all_slots_although_threads_of_the_parent_hold_and_wait_for_them(
    shared_memcached: Memcached,
) -> None:
    with Pool(shared_memcached.node, settings=Settings(timeout=PATIENCE, pool_size=2)) as pool:
        client = Client(pool)
        assert client.set("forked", b"right")

        def child() -> bytes:
            with held(pool, 2):
                known = pool.statistics
            return b"%d %d %d %b" % (known.in_use, known.idle, known.waiting, client.get("forked") or b"")

        with held(pool, 2):
            call = Call(lambda: client.get("forked"))
            until(lambda: pool.statistics.waiting == 1)
            assert in_child(child) == b"2 0 0 right"
        assert call.result() == b"right"
        assert pool.statistics.created == 2


def test_a_child_of_a_closed_pool_has_a_closed_pool(shared_memcached: Memcached) -> None:
    pool = Pool(shared_memcached.node)
    pool.close()
    assert in_child(lambda: Client(pool).get("key")).startswith(b"ClosedError")
