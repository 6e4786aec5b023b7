"""Five real servers under many threads: no foreign value, nothing leaked, whatever becomes of a node."""

from __future__ import annotations

import os
import random
import signal
import threading
import traceback
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Final

import pytest

from metacache import BatchError, Client, Cluster, MetacacheError, ProtocolError, Settings
from metacache.testing import Memcached
from tests.conftest import start

PATIENT: Final = Settings(timeout=20.0, connect_timeout=20.0)
SIZES: Final = (0, 10, 100, 1_000, 20_000)
READ: Final = [f"key:{number}" for number in range(200)]


@pytest.fixture
def servers() -> Generator[list[Memcached]]:
    with ExitStack() as stack:
        yield [stack.enter_context(start()) for _ in range(5)]


def value_of(key: str, chance: random.Random) -> bytes:
    """Return a value that says whose it is: the key, then anything."""
    return key.encode() + b":" + chance.randbytes(chance.choice(SIZES))


def is_own(key: str, value: bytes | None) -> bool:
    return value is None or value.startswith(key.encode() + b":")


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def mixed(client: Client[bytes], chance: random.Random) -> int:
    """Do one thing with one key or with 40; return how many keys it was. Fails on a foreign value."""
    number = chance.randrange(500)
    key, keys = f"key:{number}", [f"key:{(number + each) % 500}" for each in range(40)]
    match chance.randrange(6):
        case 0:
            client.set(key, value_of(key, chance))
        case 1:
            client.set_many({each: value_of(each, chance) for each in keys})
            return len(keys)
        case 2:
            client.delete(key)
        case 3:
            assert all(is_own(each, value) for each, value in client.get_many(keys).items())
            return len(keys)
        case 4:
            item = client.get_item(key)
            assert item is None or is_own(key, item.value)
        case _:
            assert is_own(key, client.get(key))
    return 1


def in_threads(count: int, work: Callable[[random.Random], None]) -> None:
    """Run *work* in *count* threads; raise what any of them raises."""
    failures: list[BaseException] = []

    def run(seed: int) -> None:
        try:
            work(random.Random(seed))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_64_threads_on_five_nodes_never_see_a_foreign_value_and_leak_nothing(servers: list[Memcached]) -> None:
    before = descriptors()
    with Cluster([server.node for server in servers], settings=PATIENT) as cluster:
        client = cluster.client()

        def work(chance: random.Random) -> None:
            done = 0
            while done < 1_600:
                done += mixed(client, chance)

        in_threads(64, work)
        found = client.get_many([f"key:{number}" for number in range(500)])
        assert len(found) > 250, "most of what was read was there"
        assert all(client.get(key) == value for key, value in found.items())
        for statistics in cluster.statistics.values():
            assert statistics.in_use == statistics.waiting == 0
            assert 1 <= statistics.idle <= statistics.size == 8
            assert statistics.created == statistics.idle, "no connection was given up"
    assert descriptors() == before


def test_16_threads_of_five_node_batches_on_pools_of_two_have_no_error(servers: list[Memcached]) -> None:
    settings = Settings(timeout=20.0, connect_timeout=20.0, pool_size=2)
    keys = [f"key:{number}" for number in range(50)]
    with Cluster([server.node for server in servers], settings=settings) as cluster:
        client = cluster.client()

        def work(chance: random.Random) -> None:
            for _ in range(40):
                assert all(client.set_many({key: value_of(key, chance) for key in keys}).values())
                assert all(is_own(key, value) for key, value in client.get_many(keys).items())

        in_threads(16, work)
        assert all(statistics.in_use == 0 for statistics in cluster.statistics.values())


@pytest.mark.parametrize("trouble", ["killed and restarted", "frozen and thawed"])
def test_a_node_in_trouble_fails_its_own_keys_only_and_comes_back(servers: list[Memcached], trouble: str) -> None:
    settings = Settings(timeout=0.5, connect_timeout=0.5)
    victim = servers[2]
    with Cluster([server.node for server in servers], settings=settings) as cluster:
        client = cluster.client()
        over = threading.Event()
        failures: list[MetacacheError] = []

        def work(chance: random.Random) -> None:
            while not over.is_set():
                try:
                    mixed(client, chance)
                except BatchError as error:
                    failures.extend(error.errors.values())
                except MetacacheError as error:
                    failures.append(error)

        threads = threading.Thread(target=in_threads, args=(16, work))
        threads.start()
        try:
            for _ in range(2):
                over.wait(0.3)
                victim.kill() if trouble.startswith("killed") else victim.freeze()
                over.wait(1.2)
                victim.restart() if trouble.startswith("killed") else victim.thaw()
                over.wait(0.7)
        finally:
            over.set()
            threads.join()
        assert {error.node for error in failures} == {victim.node.name}
        # A late reply that is found out by its opaque was on a connection that should have been closed.
        assert not [error for error in failures if isinstance(error, ProtocolError)]
        key = next(key for key in map(str, range(1000)) if cluster.router.pick(key.encode()) == victim.node)
        deadline = 200
        while True:
            try:
                assert client.set(key, b"back")
                break
            except MetacacheError:
                deadline -= 1
                assert deadline, "the node is never used again"
                threading.Event().wait(0.05)
        assert client.get(key) == b"back"


def read_all(client: Client[bytes], keys: list[str], seed: int) -> None:
    """Read 10,000 times, in an order of its own: processes in step would not notice that they share a socket."""
    for key in random.Random(seed).choices(keys, k=10_000):
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
    """A cluster with a connection to every node, all idle: an application's that was used before its workers forked."""
    with Cluster([server.node for server in servers], settings=PATIENT) as cluster:
        assert all(cluster.client().set_many({key: key.encode() for key in READ}).values())
        assert all(statistics.idle == 1 for statistics in cluster.statistics.values())
        yield cluster


def read_in_five_processes(cluster: Cluster) -> None:
    """Read in this process and in four children of it."""
    client = cluster.client()
    children = [forked(partial(read_all, client, READ, seed)) for seed in range(4)]
    try:
        read_all(client, READ, 4)
    finally:
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    assert codes == [0] * 4


def test_a_parent_and_four_children_read_on_after_a_fork(preloaded: Cluster) -> None:
    read_in_five_processes(preloaded)
    assert all(statistics.in_use == 0 for statistics in preloaded.statistics.values())


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_they_do_so_when_another_thread_was_in_the_middle_of_a_batch(preloaded: Cluster) -> None:
    over = threading.Event()

    def meanwhile() -> None:
        client = preloaded.client()
        while not over.is_set():
            assert len(client.get_many(READ)) == len(READ)

    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(meanwhile)
        try:
            read_in_five_processes(preloaded)
        finally:
            over.set()
        other.result()
    assert all(statistics.in_use == 0 for statistics in preloaded.statistics.values())


class Interrupt(BaseException):
    """Raised out of a signal handler."""


# A socket that nobody owned yet when it struck is closed by its own end. Taken for an error, that warning would keep
# the struck frames, and all they hold, alive.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_at_2000_random_moments_loses_no_place_and_mixes_up_nothing(servers: list[Memcached]) -> None:
    def strike(_: int, __: FrameType | None) -> None:
        raise Interrupt

    chance = random.Random(1)
    items = {f"key:{number}": f"key:{number}:".encode() + b"x" * 500 for number in range(60)}
    before = signal.signal(signal.SIGALRM, strike)
    settings = Settings(timeout=20.0, connect_timeout=20.0, pool_size=2)
    struck = 0
    try:
        with Cluster([server.node for server in servers], settings=settings) as cluster:
            client = cluster.client()
            client.set_many(items)
            for number in range(2_000):
                try:
                    signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.00001, 0.0015))
                    while True:  # until it strikes
                        if number % 2:
                            client.get("key:1")
                        else:
                            client.set_many(items)
                except Interrupt:
                    struck += 1
                key = f"key:{number % 60}"
                assert client.get(key) == items[key]
            assert struck == 2_000
            assert client.get_many(items) == items
            assert all(statistics.in_use == 0 for statistics in cluster.statistics.values())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
