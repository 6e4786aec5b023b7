"""A fork while a cluster has open connections: parent and children continue, each with its own connections.

An application server with preloading does this: it builds and uses the application, then forks its workers.
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
READS: Final = 10_000  # operations of each process
CHILDREN: Final = 4


def read_all(client: Client[bytes], seed: int) -> None:
    """Read in a different order in each process. In the same order, a shared socket would not be noticed."""
    for key in random.Random(seed).choices(READ, k=READS):
        assert client.get(key) == key.encode()


def forked(work: Callable[[], None]) -> int:
    """Fork a child that does *work* and exits without the clean-up of the parent; return its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()  # a child must not continue the test run
    finally:
        os._exit(code)


@pytest.fixture
def preloaded(servers: list[Memcached]) -> Generator[Cluster]:
    """A cluster with one idle connection to each node, and with pools of one connection."""
    with Cluster([server.node for server in servers], settings=attrs.evolve(PATIENT, pool_size=1)) as cluster:
        assert all(cluster.client().set_many({key: key.encode() for key in READ}).values())
        assert all(statistics.idle == 1 for statistics in cluster.statistics.values())
        yield cluster


@contextmanager
def reading_children(client: Client[bytes]) -> Generator[None]:
    """Fork children that read; at the end of the block, wait for them."""
    children = [forked(partial(read_all, client, seed)) for seed in range(CHILDREN)]
    try:
        yield
    finally:
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    assert codes == [0] * CHILDREN


def check_counts(cluster: Cluster, before: int) -> None:
    """Check the counters of the servers, and that the pools have no connection in use."""
    assert requests(cluster) - before >= (1 + CHILDREN) * READS, "the servers count what was done"
    assert all(known.in_use == 0 and known.idle == 1 for known in cluster.statistics.values())
    assert all(known.created == 1 for known in cluster.statistics.values()), "the parent keeps its own connections"


def test_a_parent_and_four_children_continue_after_a_fork(preloaded: Cluster) -> None:
    before = requests(preloaded)
    client = preloaded.client()
    with reading_children(client):
        read_all(client, CHILDREN)
    check_counts(preloaded, before)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_during_a_batch_of_another_thread_is_harmless(preloaded: Cluster) -> None:
    before = requests(preloaded)
    client = preloaded.client()
    begun, forks_done = threading.Event(), threading.Event()
    raws = [key.encode() for key in READ]

    def read_slowly() -> list[bytes]:
        batch = Batch(GET_MANY, READ, raws, [b"mg %b f v" % raw for raw in raws])
        exchange = begin(preloaded, batch, monotonic() + PATIENT.timeout)
        exchange.advance(monotonic())  # all requests are sent, and some replies may be there
        begun.set()
        assert forks_done.wait(PATIENT.timeout)
        finish(exchange)
        replies = exchange.outcomes()
        assert replies.errors == {}
        return [value or b"nothing" for value in replies.values]

    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(read_slowly)
        assert begun.wait(PATIENT.timeout)
        # That thread does not exist in a child. Its connections must not occupy the pools forever.
        with reading_children(client):
            forks_done.set()
            assert other.result() == raws
            read_all(client, CHILDREN)
    check_counts(preloaded, before)
