"""Handlers that raise in the middle of anything: the next call is right, no place and no descriptor is lost."""

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

from metacache import Cluster
from metacache.operations.batches import GET_MANY
from metacache.testing import Memcached
from metacache.transports.base import Batch
from tests.live.rig import PATIENT, descriptors
from tests.pool.rig import begin, finish

STRIKES: Final = 2_000
ITEMS: Final = {f"key:{number}": f"key:{number}:".encode() + b"x" * 500 for number in range(60)}
PLACES: Final = 2


class Interrupt(BaseException):
    """Raised out of a signal handler."""


def strike(_: int, __: FrameType | None) -> None:
    raise Interrupt


@contextmanager
def striking() -> Generator[None]:
    """Let the alarm raise Interrupt."""
    before, hook = signal.signal(signal.SIGALRM, strike), sys.unraisablehook
    # Where it strikes a finalizer that the garbage collector runs, be it of another test's object, Python drops it. The
    # hook of pytest would keep it instead, with all frames below it, and what these hold would be in use.
    sys.unraisablehook = _drop
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
        sys.unraisablehook = hook


def _drop(_: object) -> None:
    """Keep nothing."""


def take_every_place(cluster: Cluster) -> None:
    """Have so many batches under way at once as there are places on every node."""
    raws = [key.encode() for key in ITEMS]
    batch = Batch(GET_MANY, list(ITEMS), raws, [b"mg %b f v" % raw for raw in raws])
    exchanges = [begin(cluster, batch, monotonic() + PATIENT.timeout) for _ in range(PLACES)]
    assert all(statistics.in_use == PLACES for statistics in cluster.statistics.values())
    for exchange in exchanges:
        finish(exchange)
        replies = exchange.outcomes()
        assert replies.errors == {}
        assert list(replies.values) == list(ITEMS.values())


# A socket that nobody owned yet when it struck is closed by its own end. Taken for an error, that warning would keep
# the struck frames, and all they hold, alive.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_at_2000_random_moments_loses_no_place_and_mixes_up_nothing(servers: list[Memcached]) -> None:
    chance = random.Random(1)
    before = descriptors()
    struck = 0
    settings = attrs.evolve(PATIENT, pool_size=PLACES)
    with striking(), Cluster([server.node for server in servers], settings=settings) as cluster:
        client = cluster.client()
        client.set_many(ITEMS)
        for number in range(STRIKES):
            try:
                # Again after half a second: Python drops what is raised in the callback of a weak reference.
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.00001, 0.0015), 0.5)
                while True:  # until it strikes
                    if number % 2:
                        client.get("key:1")
                    else:
                        client.set_many(ITEMS)
            except Interrupt:
                signal.setitimer(signal.ITIMER_REAL, 0.0)
                struck += 1
            key = f"key:{number % len(ITEMS)}"
            assert client.get(key) == ITEMS[key]
        assert struck == STRIKES
        assert client.get_many(ITEMS) == ITEMS
        gc.collect()
        known = cluster.statistics.values()
        assert all(statistics.in_use == statistics.waiting == 0 for statistics in known)
        assert sum(sum(each.discarded.values()) for each in known) > STRIKES / 4, "it struck amidst exchanges"
        assert descriptors() == before + sum(statistics.idle for statistics in known)
        take_every_place(cluster)
    assert descriptors() == before
