"""A pool lends at most ``pool_size`` connections, the last used one first, and serves waiting callers in order."""

from __future__ import annotations

import threading
from time import monotonic

import pytest

from metacache import Client, InvalidArgumentError, Node, Pool, PoolTimeout, Settings
from metacache.errors import InvalidTypeError
from metacache.testing import Memcached
from tests.pool.rig import PATIENT, Call, held, until
from tests.scripted import Peer, ScriptedServer, answering
from tests.transports.rig import within

THREADS = 16


def test_a_pool_dials_nothing_until_it_is_used(shared_memcached: Memcached) -> None:
    with Pool(shared_memcached.node) as pool:
        assert pool.statistics.created == 0
        assert repr(pool) == f"<Pool {shared_memcached.node.name}: 0 busy, 0 idle, 0 waiting>"
        Client(pool).get("key")
        assert pool.statistics.created == 1
        assert repr(pool) == f"<Pool {shared_memcached.node.name}: 0 busy, 1 idle, 0 waiting>"
    assert repr(pool) == f"<Pool {shared_memcached.node.name}: closed>"


def test_there_are_never_more_connections_than_its_size(shared_memcached: Memcached) -> None:
    with Pool(shared_memcached.node, settings=Settings(timeout=10.0, pool_size=3)) as pool:
        client = Client(pool)
        most: list[int] = []

        def work() -> None:
            for number in range(50):
                key = f"bound:{threading.get_ident()}:{number}"
                assert client.set(key, key.encode())
                assert client.get(key) == key.encode()
                assert client.get_many([key]) == {key: key.encode()}
                known = pool.statistics
                most.append(known.in_use + known.idle)

        for call in [Call(work) for _ in range(THREADS)]:
            call.result()
        known = pool.statistics
        assert max(most) <= 3
        assert (known.in_use, known.waiting) == (0, 0)
        assert 1 <= known.idle <= 3
        assert known.waits > 0
        assert known.wait_seconds > 0


def test_one_thread_at_a_time_never_needs_a_second_connection(shared_memcached: Memcached) -> None:
    with Pool(shared_memcached.node, settings=PATIENT) as pool:
        client = Client(pool)
        for number in range(50):
            client.set("key", b"%d" % number)
            client.get_many(["key", "other"])
        assert (pool.statistics.created, pool.statistics.waits) == (1, 0)


def test_the_connection_used_last_is_used_next() -> None:
    def named(name: bytes) -> tuple[bytes, bytes]:
        return b"VA %d f0" % len(name), name

    scripts = [answering((b"EN", None), named(b"first")), answering((b"EN", None), *[named(b"second")] * 4)]
    with ScriptedServer(*scripts) as server, Pool(server.node, settings=PATIENT) as pool:
        client = Client(pool)
        with held(pool):
            with held(pool):
                pass
            assert [client.get("key") for _ in range(4)] == [b"second"] * 4
        # The first one was put back last.
        assert client.get("key") == b"first"


# --- waiting ---------------------------------------------------------------------------------------------------------


def test_waiting_callers_are_served_in_order() -> None:
    served: list[bytes] = []
    release = threading.Event()

    def script(peer: Peer) -> None:
        release.wait(10.0)
        for asked in (peer.request() for _ in range(9)):
            served.append(asked.line.split(b" ")[1])
            asked.answer(b"EN")
        peer.expect_end()

    settings = Settings(timeout=10.0, pool_size=1)
    with ScriptedServer(script) as server, Pool(server.node, settings=settings) as pool:
        client = Client(pool)
        calls = [Call(lambda: client.get("first"))]
        until(lambda: pool.statistics.in_use == 1)
        for number in range(8):
            calls.append(Call(lambda number=number: client.get(str(number))))  # type: ignore[misc]
            until(lambda number=number: pool.statistics.waiting == number + 1)  # type: ignore[misc]
        assert "1 busy, 0 idle, 8 waiting" in repr(pool)
        release.set()
        for call in calls:
            assert call.result() is None
        assert served == [b"first", *(b"%d" % number for number in range(8))]
        assert pool.statistics.waits == 8


def test_a_full_pool_is_a_timeout_at_the_deadline_that_says_what_to_do(shared_memcached: Memcached) -> None:
    with Pool(shared_memcached.node, settings=Settings(timeout=0.2, pool_size=2)) as pool:
        client = Client(pool)
        with held(pool, 2), within(0.19, 2.0), pytest.raises(PoolTimeout, match="all 2 connections") as raised:
            client.get("absent")
        assert (raised.value.node, raised.value.operation, raised.value.key) == (pool_node(pool), "get", "absent")
        assert "raise pool_size" in str(raised.value)
        assert client.get("absent") is None
        assert pool.statistics.wait_seconds >= 0.19


def pool_node(pool: Pool) -> str:
    return repr(pool).split(": ")[0].removeprefix("<Pool ")


def test_with_pool_wait_0_a_full_pool_refuses_immediately(shared_memcached: Memcached) -> None:
    with Pool(shared_memcached.node, settings=Settings(timeout=10.0, pool_size=1, pool_wait=0)) as pool:
        client = Client(pool)
        client.get("key")
        with held(pool), within(0.0, 1.0):
            with pytest.raises(PoolTimeout):
                client.get("key")
            outcomes = client.get_many_outcomes(["a", "b"])
            assert {type(error) for error in outcomes.errors.values()} == {PoolTimeout}
        assert client.get("absent") is None
        assert pool.statistics.waits == 0


def test_pool_wait_bounds_the_wait_within_the_deadline(shared_memcached: Memcached) -> None:
    with Pool(shared_memcached.node, settings=Settings(timeout=10.0, pool_size=1, pool_wait=0.1)) as pool:
        client = Client(pool)
        with held(pool), within(0.09, 2.0), pytest.raises(PoolTimeout):
            client.get("key")


def test_a_batch_waits_for_a_connection_until_its_deadline(shared_memcached: Memcached) -> None:
    with Pool(shared_memcached.node, settings=Settings(timeout=10.0, pool_size=1)) as pool:
        client = Client(pool, timeout=0.4)
        with held(pool), within(0.39, 2.0):
            outcomes = client.get_many_outcomes(["a", "b"])
        assert {type(error) for error in outcomes.errors.values()} == {PoolTimeout}


def test_a_waiter_gets_the_connection_as_soon_as_it_is_free(shared_memcached: Memcached) -> None:
    with Pool(shared_memcached.node, settings=Settings(timeout=10.0, pool_size=1)) as pool:
        client = Client(pool)
        with held(pool):
            call = Call(lambda: (client.get("key"), monotonic()))
            until(lambda: pool.statistics.waiting == 1)
            freed = monotonic()
        assert call.result()[1] - freed < 2.0
        assert pool.statistics.created == 1


def test_callers_that_time_out_leave_the_queue(shared_memcached: Memcached) -> None:
    with Pool(shared_memcached.node, settings=Settings(timeout=10.0, pool_size=1)) as pool:
        with held(pool):
            calls = [Call(lambda: Client(pool, timeout=0.05).get("key")) for _ in range(4)]
            patient = Call(lambda: Client(pool).get("absent"))
            for call in calls:
                with pytest.raises(PoolTimeout):
                    call.result()
            until(lambda: pool.statistics.waiting == 1)
        assert patient.result() is None
        assert pool.statistics.waiting == 0


# --- arguments and statistics ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["127.0.0.1:11211", None, [Node("a")]])
def test_a_pool_of_something_else_is_refused(source: object) -> None:
    with pytest.raises(InvalidTypeError, match="a pool takes a Node"):
        Pool(source)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # wrong on purpose


@pytest.mark.parametrize("size", [0, -1])
def test_a_pool_size_below_one_is_refused(size: int) -> None:
    with pytest.raises(InvalidArgumentError, match="pool_size"):
        Settings(pool_size=size)


def test_the_statistics_count_connections_in_use_and_idle_ones() -> None:
    with (
        ScriptedServer(answering((b"EN", None)), answering((b"EN", None))) as server,
        Pool(server.node, settings=PATIENT) as pool,
    ):
        with held(pool, 2):
            known = pool.statistics
            assert (known.size, known.in_use, known.idle, known.created) == (8, 2, 0, 2)
        known = pool.statistics
        assert (known.in_use, known.idle, known.waits) == (0, 2, 0)
        assert not any(known.discarded.values())
