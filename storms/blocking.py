"""The storm of threads: 64 of them and the main thread share one Cluster of five servers.

Signals interrupt the main thread. Another thread kills, freezes, changes the node set and forks.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from time import monotonic
from typing import Any, Final

import attrs

from metacache import Cluster, MetacacheError, Settings, Stampede
from metacache.testing import Memcached
from storms.canary import ForeignValue, canary
from storms.chaos import Chaos
from storms.lag import LagMeter
from storms.measures import Limits, Progress, Result, collected, descriptors
from storms.raw import leaked_connections, leases, open_connections
from storms.signals import RAISED, Interruptions
from storms.steps import Clients, next_step
from storms.tally import Tally, merged

__all__ = ["CALM", "HASTY", "SETTINGS", "SHARED", "run"]

THREADS: Final = 64
SERVERS: Final = 5
SETTINGS: Final = Settings(timeout=0.5, connect_timeout=0.5, pool_size=8, max_reply_size=1 << 20)
HASTY: Final = 0.004  # seconds: the timeout of some calls
PATIENT: Final = 30.0  # seconds: the timeout when there are no faults
CHILD_STEPS: Final = 100
# In the calm at the end a lease outlives the check, so a lease that was not given back is seen.
CALM: Final = Stampede(lease=600, wait=20.0)
SHARED: Final = 20  # keys that all workers compute in the calm


def run(limits: Limits, seed: int, say: Callable[[str], object]) -> Result:
    """Run the storm; return what it measured. Its signals need the main thread."""
    before = descriptors()
    with ExitStack() as stack:
        servers = [stack.enter_context(Memcached(["-m", "64"])) for _ in range(SERVERS)]
        alone = [open_connections(server) for server in servers]
        cluster = stack.enter_context(Cluster([server.node for server in servers], settings=SETTINGS))
        result = _storm(cluster, servers, limits, seed, say)
        cluster.close()
        collected()
        at_servers = leaked_connections(servers, alone)
    return attrs.evolve(result, sockets=max(at_servers, descriptors() - before))


def _storm(
    cluster: Cluster, servers: Sequence[Memcached], limits: Limits, seed: int, say: Callable[[str], object]
) -> Result:
    cluster.client(int)  # its late import must be over before a fork: a child would wait for it forever
    tallies = [Tally() for _ in range(THREADS + 1)]
    progress, meter = Progress("threads", limits, tallies, say), LagMeter()
    chaos = Chaos(servers, random.Random(f"{seed} chaos"), cluster.set_nodes, lambda: _in_child(cluster, seed))
    interruptions = Interruptions(random.Random(f"{seed} signals"))
    threads = [
        threading.Thread(target=_work, args=(cluster, tallies[number], progress, meter, seed, number), daemon=True)
        for number in range(THREADS)
    ]
    meter.start()
    for thread in threads:
        thread.start()
    chaos.start()
    progress.start()
    with interruptions.installed():
        worker = _Worker(cluster, tallies[THREADS], meter, random.Random(f"{seed} main"), THREADS)
        while not progress.is_over:
            interruptions.round(worker.step)
    for thread in threads:
        thread.join()
    meter.stop()
    chaos.stop()
    progress.stop()
    tally = merged(tallies)
    tally.faults += chaos.faults + interruptions.faults
    left = _calm(cluster, servers, tally)
    collected()
    return Result(
        name="threads",
        seconds=progress.seconds,
        tally=tally,
        lag=meter.worst,
        growth=progress.growth,
        slots=sum(known.in_use + known.waiting for known in cluster.statistics.values()),
        leases=left,
        events=_events(chaos, interruptions),
    )


def _events(chaos: Chaos, interruptions: Interruptions) -> str:
    faults = ", ".join(f"{count} x {name}" for name, count in sorted(chaos.done.items()))
    return f"{faults}, {interruptions.count} signals ({interruptions.dropped} dropped by Python)"


def _work(cluster: Cluster, tally: Tally, progress: Progress, meter: LagMeter, seed: int, number: int) -> None:
    try:
        worker = _Worker(cluster, tally, meter, random.Random(f"{seed} {number}"), number)
        while not progress.is_over:
            worker.step()
    except BaseException as error:
        tally.fault(f"a worker ended with {error!r}")
        raise


def _unchanged(make: Callable[[], bytes]) -> Callable[[], bytes]:
    return make


class _Worker:
    """Runs random steps."""

    def __init__(self, cluster: Cluster, tally: Tally, meter: LagMeter, chance: random.Random, number: int) -> None:
        values, counters = cluster.client(), cluster.client(int)
        self._usual = Clients(values, counters, SETTINGS.timeout, _unchanged)
        self._hasty = Clients(
            values.with_options(timeout=HASTY), counters.with_options(timeout=HASTY), HASTY, _unchanged
        )
        self._tally = tally
        self._meter = meter
        self._chance = chance
        self._number = number
        self._steps = 0

    def step(self) -> BaseException | None:
        """Run one step; return the error that it expects, or None. An exception of a signal comes out."""
        tally = self._tally
        self._steps += 1
        step = next_step(self._chance, self._number, self._steps)
        clients = self._hasty if self._chance.random() < 0.03 else self._usual
        error: BaseException | None = None
        result: Any = None  # Any: as in `Step`
        began = monotonic()
        try:
            result = step.call(clients)
        except RAISED:
            raise
        except MetacacheError as failed:
            error = failed
        ended = monotonic()
        tally.operations += step.keys
        if step.is_timed:
            tally.timed(step.verb, began, clients.timeout, ended, self._meter)
        if error is not None:
            tally.failed(step.verb, error)
            return error
        try:
            step.check(result)
        except ForeignValue as foreign:
            tally.failed(step.verb, foreign)
        tally.outcomes["returned"] += 1
        return None


def _in_child(cluster: Cluster, seed: int) -> None:
    """Use the inherited cluster in a forked child. Raises for anything that must not happen."""
    meter, tally = LagMeter(), Tally()
    worker = _Worker(cluster, tally, meter, random.Random(f"{seed} child"), THREADS + 1)
    for _ in range(CHILD_STEPS):
        worker.step()
    faults = [text for text in tally.faults if "after its deadline" not in text]  # no meter runs in the child
    assert not faults, faults


def _calm(cluster: Cluster, servers: Sequence[Memcached], tally: Tally) -> int:
    """Compute values without faults of the nodes, with factories that fail; return the number of leases left.

    Each shared key is computed once for all threads together.
    """
    cluster.flush_all()
    client = cluster.client().with_options(timeout=PATIENT)
    _wait_until_up(cluster)
    runs = [0] * SHARED
    own = [f"calm:own:{number}" for number in range(THREADS)]

    def work(number: int) -> None:
        chance = random.Random(number)
        for shared in range(SHARED):
            key = f"calm:shared:{shared}"

            def make(key: str = key, shared: int = shared) -> bytes:
                runs[shared] += 1
                return canary(key, number, shared, chance)

            client.get_or_compute(key, make, policy=CALM)
            error = _make_failure(chance)

            def fail(error: BaseException = error) -> bytes:
                raise error

            try:
                client.get_or_compute(own[number], fail, policy=CALM)
            except BaseException as raised:
                if raised is not error:
                    tally.fault(f"a factory raised {error!r}, and get_or_compute {raised!r}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if runs != [1] * SHARED:
        tally.fault(f"64 callers of one key ran these numbers of factories: {runs}")
    keys = [*own, *(f"calm:shared:{shared}" for shared in range(SHARED))]
    return sum(len(leases(server, keys)) for server in servers)


def _make_failure(chance: random.Random) -> BaseException:
    """Return a new exception of one of the five classes."""
    return chance.choice(RAISED)("a factory")


def _wait_until_up(cluster: Cluster) -> None:
    """Wait until every node answers, and no probe is due."""
    end = monotonic() + PATIENT
    client = cluster.client().with_options(timeout=PATIENT)
    waiting = threading.Event()
    while monotonic() < end:
        try:
            client.get_many([f"calm:up:{number}" for number in range(200)])
        except MetacacheError:
            waiting.wait(0.05)
        else:
            return
    raise AssertionError("a node stayed down")
