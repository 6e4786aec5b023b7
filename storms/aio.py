"""The storm of tasks: 500 of them share one AsyncCluster of five servers, on asyncio's own loop or on uvloop.

Calls are cancelled at random moments, and signals interrupt them. A thread kills, freezes, changes the node set and
forks.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final, TypeAlias

import attrs

from metacache import AsyncCluster, MetacacheError, Node
from storms.blocking import CALM, CHILD_STEPS, HASTY, PATIENT, SHARED, USUAL
from storms.canary import ForeignValue, canary
from storms.chaos import Chaos
from storms.fleet import Fleet, fleet
from storms.lag import BLOCKED, FirstStep, Lag, LoopLag, lag_of_threads
from storms.loop_signals import LoopInterruptions
from storms.measures import Limits, Progress, Result, descriptors
from storms.memory import Memory, collected
from storms.rests import Rests
from storms.signals import RAISED
from storms.steps import Clients, Step, next_step
from storms.tally import Tally

__all__ = ["run"]

TASKS: Final = 500
CALLERS: Final = 100  # tasks in the calm at the end
CANCELLED: Final = 0.03  # the share of the calls that are cancelled
LATEST: Final = 0.02  # seconds until a call is cancelled

NewLoop: TypeAlias = Callable[[], asyncio.AbstractEventLoop]


def run(
    name: str,
    new_loop: NewLoop,
    limits: Limits,
    seed: int,
    say: Callable[[str], object],
    *,
    is_tls: bool = False,
) -> Result:
    """Run the storm on a loop that *new_loop* returns; return what it measured. Its signals need the main thread."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(asyncio.sleep(0))  # the first loop of uvloop opens descriptors that stay
    lag_of_threads().mark()  # opens a descriptor that stays
    before = descriptors()
    with fleet(is_tls=is_tls) as servers:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            result = runner.run(_storm(name, servers, limits, seed, say))
        collected()
        at_servers = servers.leaked_connections()
    return attrs.evolve(result, sockets=max(at_servers, descriptors() - before))


async def _storm(name: str, servers: Fleet, limits: Limits, seed: int, say: Callable[[str], object]) -> Result:
    tally = Tally()  # one for all tasks: they run in one thread
    loop, lag, rests = asyncio.get_running_loop(), LoopLag(), Rests(TASKS + 1)
    interruptions = LoopInterruptions(random.Random(f"{seed} signals"))

    def measured() -> Memory | None:
        raised = interruptions.expected
        measuring = rests.measured_async(lambda: interruptions.finish(raised))
        return asyncio.run_coroutine_threadsafe(measuring, loop).result()

    progress = Progress(name, limits, [tally], say, measured)
    async with AsyncCluster(servers.nodes, settings=servers.settings) as cluster:
        # Every import must be over before a fork: a child would wait forever for one that another thread has begun.
        await asyncio.to_thread(_in_child, servers, seed)

        def set_nodes(nodes: list[Node]) -> None:
            loop.call_soon_threadsafe(cluster.set_nodes, nodes)

        chaos = Chaos(
            servers.servers,
            random.Random(f"{seed} chaos"),
            set_nodes,
            lambda: _in_child(servers, seed),
            lambda: rests.take(TASKS),
        )
        measuring = asyncio.create_task(lag.measure())
        chaos.start()
        progress.start()
        with interruptions.installed(loop):
            worker = _Worker(cluster, progress, lag, rests, interruptions)
            workers = [
                asyncio.create_task(worker.work(random.Random(f"{seed} {number}"), tally, number))
                for number in range(TASKS)
            ]
            hanging = await _hanging(workers, progress)
        lag.stop()
        await measuring
        await asyncio.to_thread(chaos.stop)
        await asyncio.to_thread(progress.stop)
        await asyncio.sleep(0.1)  # callbacks run
        interruptions.finish(interruptions.expected)
        tally.faults += chaos.faults + interruptions.faults + hanging
        if lag.blocked > BLOCKED:
            tally.fault(f"a call blocked the event loop for {lag.blocked * 1000:.0f} ms")
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
        lag=lag.worst,
        growth=progress.growth,
        slots=slots,
        tasks=len(tasks),
        leases=left,
        events=f"{chaos.summary}, {interruptions.summary}; latest wake of the loop: {lag.why}",
    )


def _factory(make: Callable[[], bytes]) -> Callable[[], Awaitable[bytes]]:
    async def factory() -> bytes:
        await asyncio.sleep(0)
        return make()

    return factory


async def _hanging(workers: list[asyncio.Task[None]], progress: Progress) -> list[str]:
    """Wait for *workers*; return where those are that do not end although the storm is over. Cancel these."""
    while not progress.is_over:
        await asyncio.sleep(0.1)
    done, hanging = await asyncio.wait(workers, timeout=PATIENT)
    where = [f"a task never ends: {_awaited(task.get_coro())}" for task in hanging]
    for task in hanging:
        task.cancel()
    await asyncio.gather(*done)
    return where


def _awaited(coroutine: object) -> str:
    """Return the names and lines of the coroutines that *coroutine* awaits, the outermost first."""
    names: list[str] = []
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        names.append(f"{frame.f_code.co_qualname}:{frame.f_lineno}")
        coroutine = getattr(coroutine, "cr_await", None)
    return " > ".join([*names, type(coroutine).__name__])


class _Worker:
    """What the tasks share: each runs random steps in `work`."""

    def __init__(
        self,
        cluster: AsyncCluster,
        progress: Progress,
        lag: LoopLag,
        rests: Rests,
        interruptions: LoopInterruptions,
    ) -> None:
        values, counters = cluster.client(), cluster.client(int)
        self._usual = Clients(values, counters, USUAL, _factory)
        self._hasty = Clients(values.with_options(timeout=HASTY), counters.with_options(timeout=HASTY), HASTY, _factory)
        self._progress = progress
        self._lag = lag
        self._rests = rests
        self._interruptions = interruptions

    async def work(self, chance: random.Random, tally: Tally, number: int) -> None:
        """Run random steps until the storm is over."""
        steps = 0
        while not self._progress.is_over:
            if self._rests.is_due:
                await self._rests.take_async(number)
            steps += 1
            try:
                await self._step(chance, tally, number, steps)
            except RAISED as raised:
                self._interruptions.arrived(raised)
                tally.outcomes["interrupted"] += 1

    async def _step(self, chance: random.Random, tally: Tally, number: int, steps: int) -> None:
        # A method, so that a worker that rests keeps no value.
        step = next_step(chance, number, steps)
        clients = self._hasty if chance.random() < 0.03 else self._usual
        if chance.random() < CANCELLED:
            await _cancelled(step, clients, tally, chance)
        else:
            await _step(step, clients, tally, self._lag)


async def _step(step: Step, clients: Clients, tally: Tally, lag: Lag) -> None:
    """Run *step*. An exception of a signal comes out."""
    mark = lag.mark()
    deadline = monotonic() + clients.timeout
    call = FirstStep(step.call(clients))
    try:
        result = await call
    except RAISED:
        raise
    except MetacacheError as error:
        tally.ended(step, clients.timeout, deadline + call.lost, lag, mark)
        tally.failed(step.verb, error)
    else:
        tally.ended(step, clients.timeout, deadline + call.lost, lag, mark)
        tally.returned(step, result)
        return
    await asyncio.sleep(0)  # a call that needs no waiting must let the other tasks run


async def _cancelled(step: Step, clients: Clients, tally: Tally, chance: random.Random) -> None:
    """Run *step* in a task of its own, and cancel it after a random time. An exception of a signal comes out."""
    task = asyncio.ensure_future(step.call(clients))
    await asyncio.sleep(chance.choice((0.0, chance.uniform(0.0, LATEST))))
    task.cancel()
    tally.operations += step.keys
    try:
        step.check(await task)
    except RAISED:
        raise
    except asyncio.CancelledError:
        tally.outcomes["cancelled"] += 1
    except (MetacacheError, ForeignValue) as failed:
        tally.failed(step.verb, failed)
    else:
        tally.outcomes["returned"] += 1
    finally:
        del task  # it keeps its error, which keeps this frame


def _in_child(servers: Fleet, seed: int) -> None:
    """Use a cluster in a forked child, in a loop of another thread. Raises for anything that must not happen.

    The loop of the parent has no meaning in the child, so the child makes a cluster of its own. The inherited one drops
    its sockets; the parent sees it if the child touches them on the wire.
    """
    tally, lag = Tally(), lag_of_threads()
    lag.start()
    chance = random.Random(f"{seed} child")

    async def use() -> None:
        async with AsyncCluster(servers.nodes, settings=servers.settings) as cluster:
            clients = Clients(cluster.client(), cluster.client(int), USUAL, _factory)
            for number in range(CHILD_STEPS):
                await _step(next_step(chance, TASKS + 1, number), clients, tally, lag)

    thread = threading.Thread(target=lambda: asyncio.run(use()))
    thread.start()
    thread.join()
    lag.stop()
    assert tally.operations >= CHILD_STEPS, "the child ended early"
    assert not tally.faults, tally.faults


async def _calm(cluster: AsyncCluster, servers: Fleet, tally: Tally) -> int:
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
            other = await _cancelled_in_factory(
                lambda factory: client.get_or_compute(own[number], factory, policy=CALM), chance.uniform(0.0, LATEST)
            )
            if other is not None:
                tally.fault(f"a get_or_compute that was cancelled in its factory ended with {other!r}")

    async with asyncio.TaskGroup() as group:
        for number in range(CALLERS):
            group.create_task(work(number))
    if runs != [1] * SHARED:
        tally.fault(f"{CALLERS} callers of one key ran these numbers of factories: {runs}")
    keys = [*own, *(f"calm:shared:{shared}" for shared in range(SHARED))]
    return await asyncio.to_thread(servers.leases, keys)


def _failing(error: Exception) -> Callable[[], Awaitable[bytes]]:
    async def factory() -> bytes:
        await asyncio.sleep(0)
        raise error

    return factory


async def _cancelled_in_factory(
    call: Callable[[Callable[[], Awaitable[bytes]]], Awaitable[bytes]], seconds: float
) -> BaseException | None:
    """Cancel *call* that number of *seconds* after its factory has started; return the exception if it is another one.

    A call that is cancelled during its ask may have won, and cannot know it. So wait until the factory runs.
    """
    started = asyncio.Event()

    async def factory() -> bytes:
        started.set()
        await asyncio.sleep(3600)
        return b""

    task = asyncio.ensure_future(call(factory))
    task.add_done_callback(lambda _: started.set())
    try:
        await started.wait()
        await asyncio.sleep(seconds)
    finally:
        task.cancel()
    await asyncio.wait((task,))
    return None if task.cancelled() else task.exception()


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
