"""The storm of tasks: 500 of them share one AsyncCluster of five servers, on asyncio's own loop or on uvloop.

Calls are cancelled at random moments. A thread kills, freezes, changes the node set and forks.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from time import monotonic
from typing import Any, Final, TypeAlias

import attrs

from metacache import AsyncCluster, MetacacheError, Node
from metacache.testing import Memcached
from storms.blocking import CALM, CHILD_STEPS, HASTY, PATIENT, SERVERS, SETTINGS, SHARED
from storms.canary import ForeignValue, canary
from storms.chaos import Chaos
from storms.lag import LagMeter
from storms.measures import Limits, Progress, Result, collected, descriptors
from storms.raw import leaked_connections, leases, open_connections
from storms.signals import RAISED
from storms.steps import Clients, Step, next_step
from storms.tally import Tally, merged

__all__ = ["run"]

TASKS: Final = 500
CALLERS: Final = 100  # tasks in the calm at the end
CANCELLED: Final = 0.03  # the share of the calls that are cancelled
LATEST: Final = 0.02  # seconds until a call is cancelled

NewLoop: TypeAlias = Callable[[], asyncio.AbstractEventLoop]


def run(name: str, new_loop: NewLoop, limits: Limits, seed: int, say: Callable[[str], object]) -> Result:
    """Run the storm on a loop that *new_loop* returns; return what it measured."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(asyncio.sleep(0))  # the first loop of uvloop opens descriptors that stay
    before = descriptors()
    with ExitStack() as stack:
        servers = [stack.enter_context(Memcached(["-m", "64"])) for _ in range(SERVERS)]
        alone = [open_connections(server) for server in servers]
        with asyncio.Runner(loop_factory=new_loop) as runner:
            result = runner.run(_storm(name, servers, limits, seed, say))
        collected()
        at_servers = leaked_connections(servers, alone)
    return attrs.evolve(result, sockets=max(at_servers, descriptors() - before))


async def _storm(
    name: str, servers: Sequence[Memcached], limits: Limits, seed: int, say: Callable[[str], object]
) -> Result:
    tallies = [Tally() for _ in range(TASKS)]
    progress, meter = Progress(name, limits, tallies, say), LagMeter()
    loop = asyncio.get_running_loop()
    async with AsyncCluster([server.node for server in servers], settings=SETTINGS) as cluster:
        cluster.client(int)  # its late import must be over before a fork: a child would wait for it forever

        def set_nodes(nodes: list[Node]) -> None:
            loop.call_soon_threadsafe(cluster.set_nodes, nodes)

        chaos = Chaos(
            servers,
            random.Random(f"{seed} chaos"),
            set_nodes,
            lambda: _in_child([server.node for server in servers], seed),
        )
        measuring = asyncio.create_task(meter.measure())
        chaos.start()
        progress.start()
        workers = [
            asyncio.create_task(_work(cluster, tallies[number], progress, meter, seed, number))
            for number in range(TASKS)
        ]
        await asyncio.gather(*workers)
        meter.stop()
        await measuring
        await asyncio.to_thread(chaos.stop)
        await asyncio.to_thread(progress.stop)
        tally = merged(tallies)
        tally.faults += chaos.faults
        left = await _calm(cluster, servers, tally)
        await asyncio.sleep(0.1)  # cancelled tasks end
        collected()
        slots = sum(known.in_use + known.waiting for known in cluster.statistics.values())
    await asyncio.sleep(0.1)
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    return Result(
        name=name,
        seconds=progress.seconds,
        tally=tally,
        lag=meter.worst,
        growth=progress.growth,
        slots=slots,
        tasks=len(tasks),
        leases=left,
        events=", ".join(f"{count} x {event}" for event, count in sorted(chaos.done.items())),
    )


def _factory(make: Callable[[], bytes]) -> Callable[[], Awaitable[bytes]]:
    async def factory() -> bytes:
        await asyncio.sleep(0)
        return make()

    return factory


async def _work(
    cluster: AsyncCluster, tally: Tally, progress: Progress, meter: LagMeter, seed: int, number: int
) -> None:
    chance = random.Random(f"{seed} {number}")
    values, counters = cluster.client(), cluster.client(int)
    usual = Clients(values, counters, SETTINGS.timeout, _factory)
    hasty = Clients(values.with_options(timeout=HASTY), counters.with_options(timeout=HASTY), HASTY, _factory)
    steps = 0
    while not progress.is_over:
        steps += 1
        step = next_step(chance, number, steps)
        clients = hasty if chance.random() < 0.03 else usual
        if chance.random() < CANCELLED:
            await _cancelled(step, clients, tally, chance)
        else:
            await _step(step, clients, tally, meter)


async def _step(step: Step, clients: Clients, tally: Tally, meter: LagMeter) -> None:
    began = monotonic()
    try:
        # Any: as in `Step`. A call that needs no waiting must let the other tasks run.
        result: Any = await step.call(clients)
    except MetacacheError as failed:
        tally.failed(step.verb, failed)
        await asyncio.sleep(0)
    else:
        try:
            step.check(result)
        except ForeignValue as foreign:
            tally.failed(step.verb, foreign)
        tally.outcomes["returned"] += 1
    ended = monotonic()
    tally.operations += step.keys
    if step.is_timed:
        tally.timed(step.verb, began, clients.timeout, ended, meter)


async def _cancelled(step: Step, clients: Clients, tally: Tally, chance: random.Random) -> None:
    """Run *step* in a task of its own, and cancel it after a random time."""
    task = asyncio.ensure_future(step.call(clients))
    await asyncio.sleep(chance.choice((0.0, chance.uniform(0.0, LATEST))))
    task.cancel()
    tally.operations += step.keys
    try:
        step.check(await task)
    except asyncio.CancelledError:
        tally.outcomes["cancelled"] += 1
    except (MetacacheError, ForeignValue) as failed:
        tally.failed(step.verb, failed)
    else:
        tally.outcomes["returned"] += 1


def _in_child(nodes: Sequence[Node], seed: int) -> None:
    """Use a cluster in a forked child, in a loop of another thread. Raises for anything that must not happen.

    The loop of the parent has no meaning in the child, so the child makes a cluster of its own. The inherited one drops
    its sockets; the parent sees it if the child touches them on the wire.
    """
    meter, tally = LagMeter(), Tally()
    chance = random.Random(f"{seed} child")

    async def use() -> None:
        async with AsyncCluster(nodes, settings=SETTINGS) as cluster:
            clients = Clients(cluster.client(), cluster.client(int), SETTINGS.timeout, _factory)
            for number in range(CHILD_STEPS):
                await _step(next_step(chance, TASKS + 1, number), clients, tally, meter)

    thread = threading.Thread(target=lambda: asyncio.run(use()))
    thread.start()
    thread.join()
    assert tally.operations >= CHILD_STEPS, "the child ended early"
    faults = [text for text in tally.faults if "after its deadline" not in text]  # no meter runs in the child
    assert not faults, faults


async def _calm(cluster: AsyncCluster, servers: Sequence[Memcached], tally: Tally) -> int:
    """Compute values without faults of the nodes, with factories that fail and calls that are cancelled.

    Return the number of leases left. Each shared key is computed once for all tasks together.
    """
    client = cluster.client().with_options(timeout=PATIENT)
    await _wait_until_up(cluster)
    await cluster.flush_all()
    runs = [0] * SHARED
    own = [f"calm:own:{number}" for number in range(CALLERS)]

    async def work(number: int) -> None:
        chance = random.Random(number)
        for shared in range(SHARED):
            key = f"calm:shared:{shared}"

            async def make(key: str = key, shared: int = shared) -> bytes:
                runs[shared] += 1
                await asyncio.sleep(0.001)
                return canary(key, number, shared, chance)

            await client.get_or_compute(key, make, policy=CALM)
            error = chance.choice(RAISED)("a factory")
            if isinstance(error, Exception):
                await _fail(client.get_or_compute(own[number], _failing(error), policy=CALM), error, tally)
            # A call that is cancelled during its ask may have won, and cannot know it. So wait until the factory runs.
            started = asyncio.Event()
            task = asyncio.ensure_future(client.get_or_compute(own[number], _endless(started), policy=CALM))
            await started.wait()
            await asyncio.sleep(chance.uniform(0.0, LATEST))
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async with asyncio.TaskGroup() as group:
        for number in range(CALLERS):
            group.create_task(work(number))
    if runs != [1] * SHARED:
        tally.fault(f"{CALLERS} callers of one key ran these numbers of factories: {runs}")
    keys = [*own, *(f"calm:shared:{shared}" for shared in range(SHARED))]
    return sum([len(await asyncio.to_thread(leases, server, keys)) for server in servers])


def _failing(error: Exception) -> Callable[[], Awaitable[bytes]]:
    async def factory() -> bytes:
        await asyncio.sleep(0)
        raise error

    return factory


def _endless(started: asyncio.Event) -> Callable[[], Awaitable[bytes]]:
    async def factory() -> bytes:
        started.set()
        await asyncio.sleep(3600)
        return b""

    return factory


async def _fail(call: Awaitable[bytes], error: Exception, tally: Tally) -> None:
    try:
        await call
    except Exception as raised:
        if raised is not error:
            tally.fault(f"a factory raised {error!r}, and get_or_compute {raised!r}")


async def _wait_until_up(cluster: AsyncCluster) -> None:
    """Wait until every node answers, and no probe is due."""
    end = monotonic() + PATIENT
    client = cluster.client().with_options(timeout=PATIENT)
    while monotonic() < end:
        try:
            await client.get_many([f"calm:up:{number}" for number in range(200)])
        except MetacacheError:
            await asyncio.sleep(0.05)
        else:
            return
    raise AssertionError("a node stayed down")
