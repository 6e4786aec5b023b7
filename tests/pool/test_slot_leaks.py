"""A place in a pool is never lost, whatever is raised where: signals, failed dials, serializers, dropped batches."""

from __future__ import annotations

import gc
from collections.abc import Callable
from time import monotonic
from typing import Final

import pytest
from typing_extensions import override

from metacache import Client, ConnectError, Node, Pool, SerializationError, Settings
from metacache.testing import Memcached
from metacache.transports.counters import CloseReason, SocketCounts
from tests.pool.rig import PATIENCE, PATIENT, Call, begin, held, open_sockets, until
from tests.scripted import Peer, ScriptedServer, answering, silent
from tests.transports.rig import HIT
from tests.transports.test_interrupts import Interrupt, alarm, struck

ONE: Final = Settings(timeout=PATIENCE, pool_size=1)


def has_all_places(pool: Pool) -> bool:
    """Tell whether as many connections as there is room for can be in use at once, and are free then."""
    began = monotonic()
    with held(pool, pool.statistics.size):
        assert pool.statistics.in_use == pool.statistics.size
    assert monotonic() - began < PATIENCE / 2, "somebody still held a place"
    return pool.statistics.in_use == 0


# --- a sweep over every place where a signal can strike ---------------------------------------------------------------

SWEPT: Final[dict[str, Callable[[Client[bytes]], object]]] = {
    "get": lambda client: client.get("place:small"),
    "set": lambda client: client.set("place:other", b"v"),
    "get_many": lambda client: client.get_many(["place:small", "place:none"]),
    "set_many": lambda client: client.set_many({"place:other": b"1", "place:another": b"2"}),
}


# A socket that nobody owned yet is closed by its own end; what strikes in a callback of the collector goes no further.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", SWEPT)
@pytest.mark.parametrize("kind", ["warm", "cold", "limited"])
def test_wherever_a_signal_interrupts_a_call_the_next_one_is_right_and_no_slot_leaks(
    shared_memcached: Memcached, name: str, kind: str
) -> None:
    limit = 1e-6 if kind == "limited" else None  # looks through the idle every time
    settings = Settings(timeout=PATIENCE, pool_size=1, max_lifetime=limit, pool_max_idle_time=limit)
    pool = Pool(shared_memcached.node, settings=settings)
    Client(pool).set("place:small", b"place:small:value")
    for at in range(1, 2000):
        if kind == "cold":
            pool.close()
            pool = Pool(shared_memcached.node, settings=settings)
        client = Client(pool)
        was_struck = struck(SWEPT[name], client, at)
        assert client.get("place:small") == b"place:small:value", f"struck at place {at}"
        assert client.get_many(["place:none", "place:small"]) == {"place:small": b"place:small:value"}
        assert has_all_places(pool), f"struck at place {at}"
        if not was_struck:
            assert at > 10
            break
    pool.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", ["get", "get_many"])
def test_wherever_a_signal_interrupts_a_call_a_waiting_thread_is_served(shared_memcached: Memcached, name: str) -> None:
    with Pool(shared_memcached.node, settings=ONE) as pool:
        client = Client(pool)
        client.set("place:small", b"place:small:value")
        waiting: list[Call[bytes | None]] = []

        def enter() -> Call[bytes | None]:
            call = Call(lambda: client.get("place:small"))
            until(lambda: pool.statistics.waiting == 1)
            return call

        def run(_: Client[bytes]) -> None:
            exchange = begin(pool)
            waiting.append(enter())
            while not exchange.advance(monotonic()):
                pass
            exchange.outcomes()

        for at in range(1, 400):
            began = monotonic()
            was_struck = struck(run if name == "get_many" else SWEPT[name], client, at)
            for call in waiting:
                assert call.result() == b"place:small:value"
            assert monotonic() - began < PATIENCE / 2, f"struck at place {at}, it waited for its deadline"
            waiting.clear()
            if not was_struck:
                break


def test_a_signal_while_waiting_for_a_slot_leaves_the_queue(shared_memcached: Memcached) -> None:
    with Pool(shared_memcached.node, settings=ONE) as pool:
        client = Client(pool)
        with held(pool):
            with alarm(0.05), pytest.raises(Interrupt):
                client.get("key")
            with alarm(0.05), pytest.raises(Interrupt):
                client.get_many(["key"])
            assert pool.statistics.waiting == 0
        assert has_all_places(pool)
        assert pool.statistics.created == 1


# --- failures --------------------------------------------------------------------------------------------------------


# What a signal struck while it was made, in a test before this one, is found by the garbage collector in here.
@pytest.mark.filterwarnings("ignore:.*unclosed", "ignore:Exception ignored in")
def test_failed_dials_leak_no_slot_and_no_descriptor(memcached: Memcached) -> None:
    with Pool(memcached.node, settings=Settings(timeout=PATIENCE, pool_size=2)) as pool:
        client = Client(pool)
        memcached.kill()
        gc.collect()  # what other tests have left
        before = open_sockets()
        for _ in range(5):
            with pytest.raises(ConnectError):
                client.get("key")
            assert {type(error) for error in client.get_many_outcomes(["a"]).errors.values()} == {ConnectError}
        assert open_sockets() == before
        assert (pool.statistics.in_use, pool.statistics.created) == (0, 0)
        memcached.restart()
        assert has_all_places(pool)


def test_a_timeout_closes_the_connection_and_frees_its_slot() -> None:
    settings = Settings(timeout=0.1, pool_size=1)
    with ScriptedServer(silent, silent, answering(HIT)) as server, Pool(server.node, settings=settings) as pool:
        client = Client(pool)
        with pytest.raises(TimeoutError):
            client.get("key")
        assert client.get_many_outcomes(["a", "b"]).errors.keys() == {"a", "b"}
        assert pool.statistics.discarded[CloseReason.BROKEN] == 2
        assert (pool.statistics.in_use, pool.statistics.idle) == (0, 0)
        assert client.with_options(timeout=PATIENCE).get("key") == b"right"


class Failing:
    """A serializer that works neither way."""

    wire_id: int = 96
    fingerprint: int = 0

    def dumps(self, value: bytes, /) -> bytes:
        if value == b"bad":
            raise KeyError(value)
        return value

    def loads(self, data: bytes, /) -> bytes:
        raise KeyError(data)

    @override
    def __repr__(self) -> str:
        return "Failing()"


def test_an_error_in_a_serializer_leaves_the_connection_open(shared_memcached: Memcached) -> None:
    with Pool(shared_memcached.node, settings=ONE) as pool:
        client = Client(pool, Failing(), on_undecodable="raise")
        assert client.set("place:failing", b"good")
        for _ in range(3):
            with pytest.raises(SerializationError):
                client.set("place:failing", b"bad")
            with pytest.raises(SerializationError):
                client.get("place:failing")
            assert client.get_many_outcomes(["place:failing"]).errors
        assert has_all_places(pool)
        assert pool.statistics.created == 1
        assert not any(pool.statistics.discarded.values())


# --- batches dropped half-way ----------------------------------------------------------------------------------------


def test_an_exchange_ended_early_frees_its_slot_and_its_replies_reach_no_other_request() -> None:
    def half(peer: Peer) -> None:
        peer.send(peer.request().reply(b"VA 5 f0", b"wrong")[:-4])
        silent(peer)

    with ScriptedServer(half, answering(HIT)) as server, Pool(server.node, settings=ONE) as pool:
        exchange = begin(pool)
        assert not exchange.advance(monotonic())
        assert pool.statistics.in_use == 1
        assert set(exchange.outcomes().errors) == {0}
        assert pool.statistics.in_use == 0
        assert pool.statistics.discarded[CloseReason.BROKEN] == 1
        assert Client(pool).get("key") == b"right"


def test_a_batch_that_is_garbage_collected_frees_its_slot() -> None:
    with ScriptedServer(silent, answering(HIT)) as server, Pool(server.node, settings=ONE) as pool:
        exchange = begin(pool)
        exchange.advance(monotonic())
        del exchange
        gc.collect()
        assert Client(pool).get("key") == b"right"


def test_a_waiter_is_served_when_a_lent_connection_is_garbage_collected(shared_memcached: Memcached) -> None:
    with Pool(shared_memcached.node, settings=ONE) as pool:
        exchange = begin(pool)
        exchange.advance(monotonic())
        call = Call(lambda: Client(pool).get("absent"))
        until(lambda: pool.statistics.waiting == 1)
        began = monotonic()
        del exchange
        gc.collect()
        assert call.result() is None
        assert monotonic() - began < PATIENCE / 2


def test_outcomes_may_be_called_twice_and_free_the_slot_once(shared_memcached: Memcached) -> None:
    with Pool(shared_memcached.node, settings=PATIENT) as pool:
        exchange = begin(pool)
        while not exchange.advance(monotonic()):
            pass
        assert exchange.outcomes().errors == exchange.outcomes().errors == {}
        assert pool.statistics.idle == 1


def test_a_node_that_is_not_there_is_an_error_of_each_key() -> None:
    with Pool(Node("127.0.0.1:1"), settings=ONE) as pool:
        errors = Client(pool).set_many_outcomes({"a": b"1", "b": b"2"}).errors
        assert {type(error) for error in errors.values()} == {ConnectError}
        assert not any(error.maybe_applied for error in errors.values())
        assert pool.statistics.in_use == 0


# --- the account -----------------------------------------------------------------------------------------------------


def test_the_counts_of_freed_connections_are_right_and_need_constant_memory(
    shared_memcached: Memcached,
) -> None:
    gc.collect()
    before = _tallies()
    with Pool(shared_memcached.node, settings=ONE) as pool:
        for _ in range(50):
            begin(pool).advance(monotonic())  # and drops it
        assert pool.statistics.created == 50
        with held(pool):
            assert pool.statistics.created == 51
        assert pool.statistics.in_use == 0
        assert _tallies() - before <= 3


def _tallies() -> int:
    return sum(isinstance(each, SocketCounts) for each in gc.get_objects())
