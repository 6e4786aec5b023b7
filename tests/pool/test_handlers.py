"""A signal handler that uses the same pool as the thread that it interrupts, at any point of the thread's call."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from time import monotonic
from types import FrameType
from typing import Final

import pytest

from metacache import Client, Connection, Pool, PoolTimeout, Settings
from metacache.pool.statistics import PoolStatistics
from metacache.testing import Memcached
from metacache.transports.blocking.checkout import Checkout, Waker
from tests.pool.rig import PATIENCE, PATIENT, Call, held
from tests.transports.test_interrupts import PACKAGE

KEY: Final = "handled"


class Meddler:
    """Calls *meddle* at the *at*-th point inside the package at which CPython runs signal handlers."""

    def __init__(self, at: int, meddle: Callable[[], object]) -> None:
        self.left = at
        self._meddle = meddle

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        if event in ("call", "c_return") and frame.f_code.co_filename.startswith(PACKAGE):
            self.left -= 1
            if self.left == 0:
                sys.setprofile(None)
                self._meddle()


def meddled(operation: Callable[[], object], at: int, meddle: Callable[[], object]) -> bool:
    """Run *operation*, with *meddle* called at its *at*-th point; return whether it had that many points.

    A call that hangs fails the test.
    """

    def run() -> bool:
        meddler = Meddler(at, meddle)
        sys.setprofile(meddler)
        try:
            operation()
        finally:
            sys.setprofile(None)
        return meddler.left <= 0

    return Call(run).result()


USES: Final[dict[str, Callable[[Client[bytes]], object]]] = {
    "get": lambda client: client.get(KEY),
    "get_many": lambda client: client.get_many([KEY])[KEY],
}


@pytest.mark.parametrize("inner", USES)
@pytest.mark.parametrize("outer", USES)
@pytest.mark.parametrize("is_cold", [False, True])
def test_a_signal_handler_and_the_call_that_it_interrupts_may_use_the_same_pool(
    shared_memcached: Memcached, outer: str, inner: str, *, is_cold: bool
) -> None:
    settings = Settings(timeout=PATIENCE, pool_size=2)  # one for each
    pool = Pool(shared_memcached.node, settings=settings)
    Client(pool).set(KEY, b"value")
    for at in range(1, 1000):
        if is_cold:
            pool.close()
            pool = Pool(shared_memcached.node, settings=settings)
        client = Client(pool)
        served: list[object] = []
        is_done = not meddled(
            lambda client=client, served=served: served.append(USES[outer](client)),  # type: ignore[misc]
            at,
            lambda client=client, served=served: served.append(USES[inner](client)),  # type: ignore[misc]
        )
        assert served == [b"value"] * (1 if is_done else 2), f"meddled at point {at}"
        with held(pool, 2):
            assert pool.statistics.in_use == 2
        assert (pool.statistics.in_use, pool.statistics.waiting) == (0, 0)
        assert pool.statistics.created <= 2
        if is_done:
            assert at > 10
            break
    pool.close()


@pytest.mark.parametrize("is_pool", [False, True])
def test_a_handler_that_interrupted_the_user_of_the_only_slot_times_out_alone(
    shared_memcached: Memcached, *, is_pool: bool
) -> None:
    node, settings = shared_memcached.node, Settings(timeout=PATIENCE, pool_size=1)
    transport = Pool(node, settings=settings) if is_pool else Connection(node, settings=settings)
    client = Client(transport, owns=True)
    hasty = client.with_options(timeout=0.02)
    client.set(KEY, b"value")
    refused: list[PoolTimeout] = []

    def use() -> None:
        try:
            assert hasty.get(KEY) == b"value"
        except PoolTimeout as error:
            refused.append(error)

    for at in range(1, 1000):
        got: list[bytes | None] = []
        if not meddled(lambda got=got: got.append(client.get(KEY)), at, use):  # type: ignore[misc]
            break
        assert got == [b"value"], f"meddled at point {at}"
    assert refused
    client.close()


def test_signal_handlers_may_read_through_the_pool_that_they_interrupt(shared_memcached: Memcached) -> None:
    served = 0
    pool = Pool(shared_memcached.node, settings=PATIENT)
    Client(pool).set(KEY, b"value")

    def handle(_: int, __: FrameType | None) -> None:
        nonlocal served
        assert Client(pool).get(KEY) == b"value"
        served += 1

    before = signal.signal(signal.SIGALRM, handle)
    try:
        for number in range(400):
            old, pool = pool, Pool(shared_memcached.node, settings=PATIENT)
            old.close()
            signal.setitimer(signal.ITIMER_REAL, 0.00002 + number % 40 * 0.00001)
            for _ in range(3):
                assert Client(pool).get(KEY) == b"value"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
        pool.close()
    assert served > 100


def test_threads_that_start_at_the_same_time_open_no_more_than_pool_size_connections(
    shared_memcached: Memcached,
) -> None:
    settings = Settings(timeout=PATIENCE, pool_size=3)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(100):
            with Pool(shared_memcached.node, settings=settings) as pool:
                together = threading.Barrier(8)

                def read(pool: Pool = pool, together: threading.Barrier = together) -> int:
                    together.wait(PATIENCE)
                    Client(pool).get(KEY)
                    known = pool.statistics
                    return known.in_use + known.idle

                calls = [Call(read) for _ in range(8)]
                assert all(call.result() <= 3 for call in calls)
                assert pool.statistics.created <= 3
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.parametrize("pause", [1, 2, 3, 4, 5, 6])
def test_statistics_are_consistent_when_a_connection_is_used_meanwhile(shared_memcached: Memcached, pause: int) -> None:
    points = 0
    for at in range(1, 1000):
        pool = Pool(shared_memcached.node, settings=Settings(timeout=PATIENCE, pool_size=1))
        Client(pool).get(KEY)
        seen: list[PoolStatistics] = []
        with pool, ExitStack() as stack:
            if not meddled(partial(look_at, pool, seen), at, partial(use_for, pause, pool, stack)):
                break
            assert seen[0].in_use + seen[0].idle <= 1, f"taken at point {at}"
        points = at
    assert points > 5


def use_for(points: int, pool: Pool, stack: ExitStack) -> None:
    """Take a connection of *pool*, and put it back after *points* more points."""
    stack.enter_context(held(pool, 1))
    sys.setprofile(Meddler(points, stack.close))


def look_at(pool: Pool, seen: list[PoolStatistics]) -> None:
    seen.append(pool.statistics)


class Thing:
    def close(self) -> None: ...


def test_a_connection_handed_to_a_waiter_that_leaves_at_that_moment_is_idle_again() -> None:
    points = 0
    for at in range(1, 1000):
        checkout = Checkout(Thing, 1)
        lent = checkout.take(monotonic())
        assert lent is not None
        waiter = checkout.join(Waker())
        if not meddled(partial(checkout.put_back, lent), at, partial(checkout.leave, waiter)):
            break
        assert checkout.take_now() is lent, f"left at point {at}"
        points = at
    assert points > 5
