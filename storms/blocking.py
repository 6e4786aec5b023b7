"""The storm of threads: 64 of them and the main thread share one Cluster of five servers.

Signals interrupt the main thread. Another thread kills, freezes, changes the node set and forks.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from time import monotonic
from typing import Final

import attrs

from metacache import Cluster, MetacacheError, Stampede
from storms.canary import canary
from storms.chaos import Chaos
from storms.fleet import SETTINGS, Fleet, fleet
from storms.lag import Lag, lag_of_threads
from storms.measures import Limits, Progress, Result, descriptors
from storms.memory import collected
from storms.rests import Rests
from storms.signals import RAISED, Interruptions
from storms.steps import Clients, next_step
from storms.tally import Tally, merged

__all__ = ["CALM", "HASTY", "SHARED", "run"]

THREADS: Final = 64
USUAL: Final = SETTINGS.timeout
HASTY: Final = 0.004  # seconds: the timeout of some calls
PATIENT: Final = 30.0  # seconds: the timeout when there are no faults
CHILD_STEPS: Final = 100
# In the calm at the end a lease outlives the check, so a lease that was not given back is seen.
CALM: Final = Stampede(lease=600, wait=20.0)
SHARED: Final = 20  # keys that all workers compute in the calm


def run(name: str, limits: Limits, seed: int, say: Callable[[str], object], *, is_tls: bool = False) -> Result:
    """Run the storm; return what it measured. Its signals need the main thread."""
    lag = lag_of_threads()
    lag.mark()  # opens a descriptor that stays
    before = descriptors()
    with fleet(is_tls=is_tls) as servers, Cluster(servers.nodes, settings=servers.settings) as cluster:
        lag.start()
        result = _storm(name, cluster, servers, lag, limits, seed, say)
        lag.stop()
        cluster.close()
        collected()
        at_servers = servers.leaked_connections()
    return attrs.evolve(result, sockets=max(at_servers, descriptors() - before))


def _storm(
    name: str, cluster: Cluster, servers: Fleet, lag: Lag, limits: Limits, seed: int, say: Callable[[str], object]
) -> Result:
    # Every import must be over before a fork: a child would wait forever for one that another thread has begun.
    _in_child(cluster, lag, seed)
    tallies = [Tally() for _ in range(THREADS + 1)]
    rests = Rests(THREADS + 2)
    progress = Progress(name, limits, tallies, say, rests.measured)
    chaos = Chaos(
        servers.servers,
        random.Random(f"{seed} chaos"),
        cluster.set_nodes,
        lambda: _in_child(cluster, lag, seed),
        lambda: rests.take(THREADS + 1),
    )
    interruptions = Interruptions(random.Random(f"{seed} signals"))
    threads = [
        threading.Thread(target=_work, args=(cluster, tallies[number], progress, rests, lag, seed, number), daemon=True)
        for number in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    chaos.start()
    progress.start()
    with interruptions.installed():
        worker = _Worker(cluster, tallies[THREADS], lag, random.Random(f"{seed} main"), THREADS)
        while not progress.is_over:
            rests.take(THREADS)
            interruptions.round(worker.step)
    for thread in threads:
        thread.join()
    chaos.stop()
    progress.stop()
    tally = merged(tallies)
    tally.faults += chaos.faults + interruptions.faults
    left = _calm(cluster, servers, tally)
    collected()
    return Result(
        name=name,
        seconds=progress.seconds,
        tally=tally,
        lag=lag.worst,
        growth=progress.growth,
        slots=sum(known.in_use + known.waiting for known in cluster.statistics.values()),
        leases=left,
        events=f"{chaos.summary}, {interruptions.summary}",
    )


def _work(cluster: Cluster, tally: Tally, progress: Progress, rests: Rests, lag: Lag, seed: int, number: int) -> None:
    try:
        worker = _Worker(cluster, tally, lag, random.Random(f"{seed} {number}"), number)
        while not progress.is_over:
            rests.take(number)
            worker.step()
    except BaseException as error:
        tally.fault(f"a worker ended with {error!r}")
        raise


def _unchanged(make: Callable[[], bytes]) -> Callable[[], bytes]:
    return make


class _Worker:
    """Runs random steps."""

    def __init__(self, cluster: Cluster, tally: Tally, lag: Lag, chance: random.Random, number: int) -> None:
        values, counters = cluster.client(), cluster.client(int)
        self._usual = Clients(values, counters, USUAL, _unchanged)
        self._hasty = Clients(
            values.with_options(timeout=HASTY), counters.with_options(timeout=HASTY), HASTY, _unchanged
        )
        self._tally = tally
        self._lag = lag
        self._chance = chance
        self._number = number
        self._steps = 0

    def step(self) -> BaseException | None:
        """Run one step; return the error that it expects, or None. An exception of a signal comes out."""
        tally = self._tally
        self._steps += 1
        step = next_step(self._chance, self._number, self._steps)
        clients = self._hasty if self._chance.random() < 0.03 else self._usual
        mark = self._lag.mark()
        deadline = monotonic() + clients.timeout
        try:
            result = step.call(clients)
        except RAISED:
            raise
        except MetacacheError as error:
            tally.ended(step, clients.timeout, deadline, self._lag, mark)
            tally.failed(step.verb, error)
            return error
        tally.ended(step, clients.timeout, deadline, self._lag, mark)
        tally.returned(step, result)
        return None


def _in_child(cluster: Cluster, lag: Lag, seed: int) -> None:
    """Use the inherited cluster in a forked child. Raises for anything that must not happen."""
    tally = Tally()
    worker = _Worker(cluster, tally, lag, random.Random(f"{seed} child"), THREADS + 1)
    for _ in range(CHILD_STEPS):
        worker.step()
    assert not tally.faults, tally.faults


def _calm(cluster: Cluster, servers: Fleet, tally: Tally) -> int:
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
    return servers.leases(keys)


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
