"""Signal handlers that raise at random moments: the next call is correct, and no pool slot or descriptor leaks."""

from __future__ import annotations

import gc
import random
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from time import monotonic
from types import FrameType
from typing import Final

import attrs
import pytest

from metacache import Client, Cluster
from metacache.operations.batches import GET_MANY
from metacache.testing import Memcached
from metacache.transports.base import Batch
from tests.live.rig import PATIENT, descriptors
from tests.pool.rig import begin, finish

pytestmark = pytest.mark.alone

SIGNALS: Final = 2_000
ITEMS: Final = {f"key:{number}": f"key:{number}:".encode() + b"x" * 500 for number in range(60)}
PLACES: Final = 2


class Interrupt(BaseException):
    """The exception of the signal handler."""


def interrupt(_: int, __: FrameType | None) -> None:
    raise Interrupt


@contextmanager
def interrupting() -> Generator[None]:
    """Install a handler of SIGALRM that raises Interrupt."""
    before, hook = signal.signal(signal.SIGALRM, interrupt), sys.unraisablehook
    # If it interrupts a finalizer, even one of another test, Python drops it and calls this hook. The hook of pytest
    # would keep the exception with its frames, and the frames would keep connections in use.
    sys.unraisablehook = _drop
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
        sys.unraisablehook = hook


def _drop(_: object) -> None:
    """Drop the exception."""


def take_every_place(cluster: Cluster) -> None:
    """Run as many batches at the same time as each pool has connections."""
    raws = [key.encode() for key in ITEMS]
    batch = Batch(GET_MANY, list(ITEMS), raws, [b"mg %b f v" % raw for raw in raws])
    exchanges = [begin(cluster, batch, monotonic() + PATIENT.timeout) for _ in range(PLACES)]
    assert all(statistics.in_use == PLACES for statistics in cluster.statistics.values())
    for exchange in exchanges:
        finish(exchange)
        replies = exchange.outcomes()
        assert replies.errors == {}
        assert list(replies.values) == list(ITEMS.values())


def use(client: Client[bytes], *, is_batch: bool) -> None:
    """Use *client* until a signal interrupts it. A function: no `try` covers the backward jump of a loop in it."""
    while True:
        if is_batch:
            client.set_many(ITEMS)
        else:
            client.get("key:1")


# If the signal comes when a new socket has no owner yet, its finalizer closes it with a warning. As an error, that
# warning would keep the interrupted frames and their connections alive.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_2000_signals_at_random_moments_leak_nothing_and_mix_up_no_reply(servers: list[Memcached]) -> None:
    chance = random.Random(1)
    before = descriptors()
    interrupted = 0
    settings = attrs.evolve(PATIENT, pool_size=PLACES)
    with interrupting(), Cluster([server.node for server in servers], settings=settings) as cluster:
        client = cluster.client()
        client.set_many(ITEMS)
        for number in range(SIGNALS):
            try:
                # Again after two seconds: Python drops an exception in the callback of a weak reference.
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.00001, 0.0015), 2.0)
                use(client, is_batch=number % 2 == 0)
            except Interrupt:
                signal.setitimer(signal.ITIMER_REAL, 0.0)
                interrupted += 1
            key = f"key:{number % len(ITEMS)}"
            assert client.get(key) == ITEMS[key]
        assert interrupted == SIGNALS
        assert client.get_many(ITEMS) == ITEMS
        gc.collect()
        known = cluster.statistics.values()
        assert all(statistics.in_use == statistics.waiting == 0 for statistics in known)
        assert sum(sum(each.discarded.values()) for each in known) > SIGNALS / 4, "many signals interrupt an exchange"
        assert descriptors() == before + sum(statistics.idle for statistics in known)
        take_every_place(cluster)
    assert descriptors() == before
