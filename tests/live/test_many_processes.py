"""A cluster with its connections open, and a fork: the parent and its children read on, each by connections of its own.

So a preloading server does it: the application is built and used, then its workers are forked.
"""

from __future__ import annotations

import os
import random
import threading
import traceback
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from time import monotonic
from typing import Final

import attrs
import pytest

from metacache import Client, Cluster
from metacache.operations.batches import GET_MANY
from metacache.testing import Memcached
from metacache.transports.base import Batch
from tests.live.rig import PATIENT, requests
from tests.pool.rig import begin, finish

READ: Final = [f"key:{number}" for number in range(200)]
READS: Final = 10_000  # of each process
CHILDREN: Final = 4


def read_all(client: Client[bytes], seed: int) -> None:
    """Read in an order of its own: processes in step would not notice that they share a socket."""
    for key in random.Random(seed).choices(READ, k=READS):
        assert client.get(key) == key.encode()


def forked(work: Callable[[], None]) -> int:
    """Return the id of a child that does *work*, and ends without the parent's clean-up."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()  # a child must never return into the test run
    finally:
        os._exit(code)


@pytest.fixture
def preloaded(servers: list[Memcached]) -> Generator[Cluster]:
    """A cluster with one connection to every node, idle, and no place for another."""
    with Cluster([server.node for server in servers], settings=attrs.evolve(PATIENT, pool_size=1)) as cluster:
        assert all(cluster.client().set_many({key: key.encode() for key in READ}).values())
        assert all(statistics.idle == 1 for statistics in cluster.statistics.values())
        yield cluster


@contextmanager
def reading_children(client: Client[bytes]) -> Generator[None]:
    """Fork children that read; wait for them in the end."""
    children = [forked(partial(read_all, client, seed)) for seed in range(CHILDREN)]
    try:
        yield
    finally:
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    assert codes == [0] * CHILDREN


def check_counts(cluster: Cluster, before: int) -> None:
    """Hold the servers' counts to what was to be done, and the pools to having nothing in use."""
    assert requests(cluster) - before >= (1 + CHILDREN) * READS, "the servers count what was done"
    assert all(known.in_use == 0 and known.idle == 1 for known in cluster.statistics.values())
    assert all(known.created == 1 for known in cluster.statistics.values()), "the parent keeps its own connections"


def test_a_parent_and_four_children_read_on_after_a_fork(preloaded: Cluster) -> None:
    before = requests(preloaded)
    client = preloaded.client()
    with reading_children(client):
        read_all(client, CHILDREN)
    check_counts(preloaded, before)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_they_do_so_when_another_thread_was_in_the_middle_of_a_batch(preloaded: Cluster) -> None:
    before = requests(preloaded)
    client = preloaded.client()
    begun, forks_done = threading.Event(), threading.Event()
    raws = [key.encode() for key in READ]

    def read_slowly() -> list[bytes]:
        batch = Batch(GET_MANY, READ, raws, [b"mg %b f v" % raw for raw in raws])
        exchange = begin(preloaded, batch, monotonic() + PATIENT.timeout)
        exchange.advance(monotonic())  # all is sent, and some of it may be answered
        begun.set()
        assert forks_done.wait(PATIENT.timeout)
        finish(exchange)
        replies = exchange.outcomes()
        assert replies.errors == {}
        return [value or b"nothing" for value in replies.values]

    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(read_slowly)
        assert begun.wait(PATIENT.timeout)
        # No child has that thread: the one place of each pool would be taken for ever.
        with reading_children(client):
            forks_done.set()
            assert other.result() == raws
            read_all(client, CHILDREN)
    check_counts(preloaded, before)
