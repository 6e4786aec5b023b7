"""One of five real servers is killed or frozen under load: only its keys fail, and later it is used again."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from time import monotonic
from typing import Final, TypeAlias, final

import attrs

from metacache import (
    BatchError,
    Client,
    Cluster,
    ConnectError,
    ConnectionLost,
    MetacacheError,
    NodeDownError,
    OperationTimeout,
    ProtocolError,
)
from metacache.observe import NodeState
from metacache.testing import Memcached
from tests.cluster.rig import failure_of, key_of, keys_of
from tests.live.rig import PATIENT, ForeignValue, check, descriptors, mixed, until, value_of

ROUNDS: Final = 2
THREADS: Final = 64
HASTY: Final = 8
# Enough connections for all threads: those that wait for the frozen node do not block the others.
ROOMY: Final = attrs.evolve(PATIENT, pool_size=THREADS)

Work: TypeAlias = Callable[[random.Random], object]


@final
class Load:
    """Threads that work until the end of the block, and the errors that they get."""

    def __init__(self, works: list[Work]) -> None:
        self.failures: list[Exception] = []
        self._works = works
        self._done = [0] * len(works)
        self._over = threading.Event()

    @property
    def done(self) -> int:
        """The number of operations that succeeded."""
        return sum(self._done)

    @contextmanager
    def running(self) -> Generator[None]:
        """Work while the block runs."""
        with ThreadPoolExecutor(len(self._works)) as threads:
            for number in range(len(self._works)):
                threads.submit(self._work, number)
            try:
                yield
            finally:
                self._over.set()

    def _work(self, number: int) -> None:
        chance = random.Random(number)
        while not self._over.is_set():
            try:
                self._works[number](chance)
                self._done[number] += 1
            except BatchError as error:
                self.failures.extend(error.errors.values())
            except Exception as error:  # of any class: the test checks which errors are allowed
                self.failures.append(error)


def nodes_of(failures: list[Exception]) -> set[str | None]:
    return {error.node for error in failures if isinstance(error, MetacacheError)}


def is_sane_and_idle(cluster: Cluster) -> bool:
    return all(known.in_use == known.waiting == 0 for known in cluster.statistics.values())


def test_a_killed_node_fails_only_its_own_keys_and_is_used_again_after_a_restart(
    servers: list[Memcached],
) -> None:
    before = descriptors()
    victim = servers[2]
    with Cluster([server.node for server in servers], settings=ROOMY) as cluster:
        client = cluster.client()
        load = Load([partial(mixed, client)] * THREADS)
        with load.running():
            for _ in range(ROUNDS):
                victim.kill()
                until(lambda: cluster.states[victim.node] is NodeState.DOWN)
                done = load.done
                until(lambda: load.done > done + 200)  # noqa: B023 - called before the variable changes
                victim.restart()
                until(lambda: cluster.states[victim.node] is NodeState.UP)
        assert nodes_of(load.failures) == {victim.node.name}
        assert {type(error) for error in load.failures} <= {ConnectError, ConnectionLost, NodeDownError}
        (key,) = keys_of(cluster, victim.node.name, 1, "own")
        assert client.set(key, b"back")
        assert client.get(key) == b"back"
        assert is_sane_and_idle(cluster)
    assert descriptors() == before


def test_a_late_reply_of_a_frozen_node_is_never_taken_for_another(servers: list[Memcached]) -> None:
    before = descriptors()
    victim = servers[2]
    with Cluster([server.node for server in servers], settings=ROOMY) as cluster:
        client = cluster.client()
        keys = keys_of(cluster, victim.node.name, 50, "own")  # no other thread deletes them
        client.set_many({key: value_of(key, random.Random(1)) for key in keys})

        def impatient(seconds: float) -> Work:
            """Return the work of a thread with a short timeout that immediately sends its next request."""
            hasty = client.with_options(timeout=seconds)

            def work(chance: random.Random) -> None:
                key = chance.choice(keys)
                check({key: hasty.get(key)} if chance.randrange(2) else hasty.get_many(chance.sample(keys, 5)))

            return work

        # Their timeouts differ, so that the first threads send again before the third timeout marks the node as down.
        hasty = [impatient(0.2 + 0.05 * number) for number in range(HASTY)]
        load = Load([*hasty, *[partial(mixed, client)] * (THREADS - HASTY)])
        with load.running():
            for _ in range(ROUNDS):
                done = load.done
                until(lambda: load.done > done + 200)  # noqa: B023 - called before the variable changes
                victim.freeze()
                until(lambda: cluster.states[victim.node] is NodeState.DOWN)
                victim.thaw()  # now it replies to the requests that timed out, while the next requests wait
                until(lambda: cluster.states[victim.node] is NodeState.UP)
        assert [error for error in load.failures if isinstance(error, ProtocolError | ForeignValue)] == []
        assert nodes_of(load.failures) == {victim.node.name}
        assert {type(error) for error in load.failures} == {OperationTimeout, NodeDownError}
        assert client.get_many(keys).keys() == set(keys)
        assert is_sane_and_idle(cluster)
    assert descriptors() == before


def test_a_frozen_node_fails_at_the_deadline_then_immediately_and_the_others_work(servers: list[Memcached]) -> None:
    timeout = 0.2
    with Cluster([server.node for server in servers], settings=PATIENT) as cluster:
        client: Client[bytes] = cluster.client()
        victim = servers[2]
        lost, *others = [key_of(cluster, server.node.name) for server in (victim, *servers[:2], *servers[3:])]
        hasty = client.with_options(timeout=timeout)
        assert hasty.get(lost) is None
        victim.freeze()

        def fail() -> tuple[type[Exception], float]:
            began = monotonic()
            error = failure_of(lambda: hasty.get(lost))
            assert error.node == victim.node.name
            return type(error), monotonic() - began

        first, then = [fail() for _ in range(3)], [fail() for _ in range(20)]
        for key in others:
            assert client.set(key, key.encode())
            assert client.get(key) == key.encode()
        assert [kind for kind, _ in first] == [OperationTimeout] * 3
        assert all(seconds >= timeout * 0.9 for _, seconds in first)
        assert {kind for kind, _ in then} == {NodeDownError}
        assert min(seconds for _, seconds in then) < timeout / 20
        victim.thaw()
        until(lambda: is_back(hasty, lost))
        assert client.set(lost, b"back")
        assert client.get(lost) == b"back"


def is_back(client: Client[bytes], key: str) -> bool:
    try:
        client.get(key)
    except (NodeDownError, OperationTimeout):
        return False
    return True
