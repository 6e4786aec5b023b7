"""The storm of cuts: writes through a `CuttingProxy` have their effect at most once, and exactly once if acknowledged.

Each write has a key of its own, so its effect and every request for it can be counted:

    increment with initial   the value is the initial one; a second increment would have made it larger
    add                      is stored; a second add would not be, because the first one was
    compare_and_set          is stored; a second one would find another CAS
    append                   the value ends with the token, once

After an acknowledgement the effect is there. After an error without ``maybe_applied`` it is not. After one with it, it
may be there, once.
"""

# The clients are Any, and pyright calls the types of what they return unknown.
# pyright: reportUnknownLambdaType=false, reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, NamedTuple

from metacache import (
    AsyncClient,
    AsyncPool,
    Client,
    Cluster,
    MetacacheError,
    Node,
    Pool,
    Settings,
    StoreResult,
    load_serializer,
)
from metacache.testing import Memcached
from storms.measures import Limits, Progress, Result, descriptors
from storms.memory import collected
from storms.proxy import CuttingProxy
from storms.tally import Tally, merged

__all__ = ["run"]

WORKERS: Final = 16  # threads, and then tasks
INITIAL: Final = 1000
TTL: Final = 3600  # seconds
SETTINGS: Final = Settings(timeout=2.0, connect_timeout=2.0, pool_size=8)
DIRECT: Final = Settings(timeout=30.0, connect_timeout=30.0)


class Effect(NamedTuple):
    """One kind of write.

    Attributes:
        verb: the name of the method.
        command: the command of its request that must not be sent twice.
        old: the value before it, or None.
        new: the value after it has its effect once.
        call: runs it: clients, key, CAS. Any: a client of either kind, and its result or an awaitable.
        acknowledged: the result of a write with an effect.
    """

    verb: str
    command: bytes
    old: bytes | None
    new: bytes
    call: Callable[[Any, Any, str, int], Any]
    acknowledged: object


EFFECTS: Final = (
    Effect(
        "increment",
        b"ma",
        None,
        b"%d" % INITIAL,
        lambda _, counters, key, __: counters.increment(key, 1, initial=INITIAL, initial_ttl=TTL),
        INITIAL,
    ),
    Effect("add", b"ms", None, b"new", lambda values, _, key, __: values.add(key, b"new"), StoreResult.STORED),
    Effect(
        "compare_and_set",
        b"ms",
        b"old",
        b"new",
        lambda values, _, key, cas: values.compare_and_set(key, b"new", cas),
        StoreResult.STORED,
    ),
    Effect("append", b"ms", b"old", b"old+", lambda values, _, key, __: values.append(key, b"+"), StoreResult.STORED),
)


def run(limits: Limits, seed: int, say: Callable[[str], object]) -> Result:
    """Run the storm with threads for half of the limits, and with tasks for the other half."""
    before = descriptors()
    half = Limits(max(1, limits.operations // 2), limits.seconds / 2)
    began = monotonic()
    with (
        Memcached(["-m", "256"]) as server,
        CuttingProxy(server.port, random.Random(f"{seed} proxy")) as proxy,
        Cluster([server.node], settings=DIRECT) as direct,
    ):
        node = Node(f"127.0.0.1:{proxy.port}")
        tallies = [_in_threads(node, direct.client(), half, seed, say)]
        tallies.append(asyncio.run(_in_tasks(node, direct.client(), half, seed, say)))
        total = merged(tallies)
        twice = sorted(key.decode() for (_, key), count in proxy.seen.items() if count > 1)
        if twice:
            total.fault(f"{len(twice)} writes were sent twice, of {twice[0]}")
        events = f"{proxy.connections} connections cut, {len(proxy.seen)} writes seen by the proxy"
    collected()
    return Result(name="cuts", seconds=monotonic() - began, tally=total, sockets=descriptors() - before, events=events)


class _Prepared(NamedTuple):
    effect: Effect
    key: str
    cas: int


def _prepare(direct: Client[bytes], chance: random.Random, who: str, number: int) -> _Prepared:
    effect = chance.choice(EFFECTS)
    key, cas = f"{effect.verb}:{who}:{number}", 0
    if effect.old is not None:
        direct.set(key, effect.old, ttl=TTL)
        item = direct.get_item(key)
        assert item is not None
        cas = item.cas
    return _Prepared(effect, key, cas)


def _judge(direct: Client[bytes], write: _Prepared, outcome: object, tally: Tally) -> None:
    """Compare the stored value with what the caller knows."""
    effect = write.effect
    raw = direct.get(write.key)  # a counter too, which has the client flags 0
    if isinstance(outcome, MetacacheError):
        name = "maybe" if outcome.maybe_applied else "not sent"
        allowed = (effect.old, effect.new) if outcome.maybe_applied else (effect.old,)
        tally.outcomes[f"{effect.verb} {name}: {'applied' if raw == effect.new else 'not applied'}"] += 1
    else:
        allowed = (effect.new,)
        tally.outcomes[f"{effect.verb} acknowledged"] += 1
        if outcome != effect.acknowledged:
            tally.fault(f"{write.key} returned {outcome!r}, so it was sent twice")
    if raw not in allowed:
        tally.fault(f"{write.key} is {raw!r} after {outcome!r}")
    direct.delete(write.key)
    tally.operations += 1


def _in_threads(node: Node, direct: Client[bytes], limits: Limits, seed: int, say: Callable[[str], object]) -> Tally:
    tallies = [Tally() for _ in range(WORKERS)]
    progress = Progress("cuts (threads)", limits, tallies, say)

    def work(number: int) -> None:
        chance, count = random.Random(f"{seed} {number}"), 0
        try:
            while not progress.is_over:
                count += 1
                write = _prepare(direct, chance, f"thread{number}", count)
                try:
                    outcome = write.effect.call(values, counters, write.key, write.cas)
                except MetacacheError as error:
                    outcome = error
                _judge(direct, write, outcome, tallies[number])
        except BaseException as error:
            tallies[number].fault(f"a worker ended with {error!r}")
            raise

    with Pool(node, settings=SETTINGS) as pool:  # no health of nodes: every write is sent
        values, counters = Client(pool), Client(pool, load_serializer("int", int))
        threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(WORKERS)]
        progress.start()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        progress.stop()
    return merged(tallies)


async def _in_tasks(
    node: Node, direct: Client[bytes], limits: Limits, seed: int, say: Callable[[str], object]
) -> Tally:
    tallies = [Tally() for _ in range(WORKERS)]
    progress = Progress("cuts (tasks)", limits, tallies, say)

    async def work(number: int) -> None:
        chance, count = random.Random(f"{seed} {number}"), 0
        while not progress.is_over:
            count += 1
            write = _prepare(direct, chance, f"task{number}", count)
            try:
                outcome = await write.effect.call(values, counters, write.key, write.cas)
            except MetacacheError as error:
                outcome = error
                await asyncio.sleep(0)
            _judge(direct, write, outcome, tallies[number])

    async with AsyncPool(node, settings=SETTINGS) as pool:
        values, counters = AsyncClient(pool), AsyncClient(pool, load_serializer("int", int))
        progress.start()
        async with asyncio.TaskGroup() as group:
            for number in range(WORKERS):
                group.create_task(work(number))
        await asyncio.to_thread(progress.stop)
    return merged(tallies)
