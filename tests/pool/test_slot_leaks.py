"""No exception leaks a slot of a pool: signals, failed dials, failing serializers, dropped batches."""

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
from tests.transports.test_interrupts import Interrupt, alarm, interrupted

ONE: Final = Settings(timeout=PATIENCE, pool_size=1)


def has_all_slots(pool: Pool) -> bool:
    """Return whether ``pool_size`` connections can be in use at the same time, and none stays in use."""
    began = monotonic()
    with held(pool, pool.statistics.size):
        assert pool.statistics.in_use == pool.statistics.size
    assert monotonic() - began < PATIENCE / 2, "a slot was still in use"
    return pool.statistics.in_use == 0


# --- an interrupt at each point where CPython runs signal handlers ----------------------------------------------------

SWEPT: Final[dict[str, Callable[[Client[bytes]], object]]] = {
    "get": lambda client: client.get("slot:small"),
    "set": lambda client: client.set("slot:other", b"v"),
    "get_many": lambda client: client.get_many(["slot:small", "slot:none"]),
    "set_many": lambda client: client.set_many({"slot:other": b"1", "slot:another": b"2"}),
}


# A socket without an owner is closed by its finalizer; Python drops an exception in a callback of the collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", SWEPT)
@pytest.mark.parametrize("kind", ["warm", "cold", "limited"])
def test_wherever_a_signal_interrupts_a_call_the_next_one_is_right_and_no_slot_leaks(
    shared_memcached: Memcached, name: str, kind: str
) -> None:
    limit = 1e-6 if kind == "limited" else None  # reviews the idle connections in every call
    settings = Settings(timeout=PATIENCE, pool_size=1, max_lifetime=limit, pool_max_idle_time=limit)
    pool = Pool(shared_memcached.node, settings=settings)
    Client(pool).set("slot:small", b"slot:small:value")
    for at in range(1, 2000):
        if kind == "cold":
            pool.close()
            pool = Pool(shared_memcached.node, settings=settings)
        client = Client(pool)
        was_interrupted = interrupted(SWEPT[name], client, at)
        assert client.get("slot:small") == b"slot:small:value", f"interrupted at point {at}"
        assert client.get_many(["slot:none", "slot:small"]) == {"slot:small": b"slot:small:value"}
        assert has_all_slots(pool), f"interrupted at point {at}"
        if not was_interrupted:
            assert at > 10
            break
    pool.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", ["get", "get_many"])
def test_wherever_a_signal_interrupts_a_call_a_waiting_thread_is_served(shared_memcached: Memcached, name: str) -> None:
    with Pool(shared_memcached.node, settings=ONE) as pool:
        client = Client(pool)
        client.set("slot:small", b"slot:small:value")
        waiting: list[Call[bytes | None]] = []

        def enter() -> Call[bytes | None]:
            call = Call(lambda: client.get("slot:small"))
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
            was_interrupted = interrupted(run if name == "get_many" else SWEPT[name], client, at)
            for call in waiting:
                assert call.result() == b"slot:small:value"
            assert monotonic() - began < PATIENCE / 2, f"interrupted at point {at}, it waited for its deadline"
            waiting.clear()
            if not was_interrupted:
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
        assert has_all_slots(pool)
        assert pool.statistics.created == 1


# --- failures --------------------------------------------------------------------------------------------------------


# The garbage collector may find objects here that an interrupt in an earlier test left half-made.
@pytest.mark.filterwarnings("ignore:.*unclosed", "ignore:Exception ignored in")
def test_failed_dials_leak_no_slot_and_no_descriptor(memcached: Memcached) -> None:
    with Pool(memcached.node, settings=Settings(timeout=PATIENCE, pool_size=2)) as pool:
        client = Client(pool)
        memcached.kill()
        gc.collect()  # the garbage of other tests
        before = open_sockets()
        for _ in range(5):
            with pytest.raises(ConnectError):
                client.get("key")
            assert {type(error) for error in client.get_many_outcomes(["a"]).errors.values()} == {ConnectError}
        assert open_sockets() == before
        assert (pool.statistics.in_use, pool.statistics.created) == (0, 0)
        memcached.restart()
        assert has_all_slots(pool)


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
    """A serializer whose `dumps` and `loads` fail."""

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
        assert client.set("slot:failing", b"good")
        for _ in range(3):
            with pytest.raises(SerializationError):
                client.set("slot:failing", b"bad")
            with pytest.raises(SerializationError):
                client.get("slot:failing")
            assert client.get_many_outcomes(["slot:failing"]).errors
        assert has_all_slots(pool)
        assert pool.statistics.created == 1
        assert not any(pool.statistics.discarded.values())


# --- batches that are dropped ----------------------------------------------------------------------------------------


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


# --- counts ----------------------------------------------------------------------------------------------------------


def test_the_counts_of_freed_connections_are_right_and_need_constant_memory(
    shared_memcached: Memcached,
) -> None:
    gc.collect()
    before = _counts_alive()
    with Pool(shared_memcached.node, settings=ONE) as pool:
        for _ in range(50):
            begin(pool).advance(monotonic())  # and drops it
        assert pool.statistics.created == 50
        with held(pool):
            assert pool.statistics.created == 51
        assert pool.statistics.in_use == 0
        assert _counts_alive() - before <= 3


def _counts_alive() -> int:
    return sum(isinstance(each, SocketCounts) for each in gc.get_objects())
