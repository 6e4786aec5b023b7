"""The clients that are measured. Each does the same operations on one memcached, as far as it has them.

To add a client, write a set-up function and add a row to SUBJECTS.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from typing import Final, TypeAlias, final

import attrs

from benchmarks.peers import TIMEOUT, Calls, host_and_port, open_pylibmc, open_pymemcache
from benchmarks.repeating import Repeat, repeat_each, repeat_one, repeat_two
from metacache import (
    AsyncClient,
    AsyncPool,
    Called,
    Client,
    Cluster,
    Connection,
    Exchanged,
    Node,
    Observer,
    Pool,
    Settings,
    Transport,
    connect_async,
)
from metacache.routing.rendezvous import MOST_KNOWN
from metacache.testing import Memcached

__all__ = [
    "BATCH",
    "OPERATIONS",
    "SUBJECTS",
    "VALUE_SIZE",
    "Setup",
    "Subject",
    "servers_of",
    "subject",
]

BATCH: Final = 100  # keys of a get_many and a set_many
VALUE_SIZE: Final = 100  # bytes

# The number of keys of each operation.
OPERATIONS: Final[dict[str, int]] = {
    "get": 1,
    "set": 1,
    "get_many": BATCH,
    "set_many": BATCH,
    "get_or_compute": 1,
    "cached": 1,
    "get, 64 tasks": 1,
}

Setup: TypeAlias = Callable[[Sequence[Node], ExitStack], Mapping[str, Repeat]]
"""Connects to the nodes, stores the values, and returns the operations by name. The stack closes the client.

Each client has nodes of its own, because clients do not understand one another's flags.
"""

VALUES: Final = {f"benchmark:{number}": b"%d" % number * VALUE_SIZE for number in range(BATCH)}
VALUES.update({key: value[:VALUE_SIZE] for key, value in VALUES.items()})
KEYS: Final = list(VALUES)
NEW_BATCHES: Final = MOST_KNOWN // BATCH + 10
KEY: Final = KEYS[BATCH // 2]
VALUE: Final = VALUES[KEY]


@final
@attrs.frozen
class Subject:
    """One client: its name, its set-up function, and its budget if it has one.

    ``budget``: instructions per key, by operation. ``above``: the name of another subject, and the number of
    instructions by which an operation may exceed the cost of that subject. ``nodes``: how many nodes it needs.
    """

    name: str
    setup: Setup
    budget: Mapping[str, int] = attrs.Factory(dict[str, int])
    above: tuple[str, int] | None = None
    nodes: int = 1


def _four_operations(
    get: Callable[[str], object],
    set_: Callable[[str, bytes], object],
    get_many: Callable[[list[str]], object],
    set_many: Callable[[dict[str, bytes]], object],
) -> Mapping[str, Repeat]:
    return {
        "get": repeat_one(get, KEY),
        "set": repeat_two(set_, KEY, VALUE),
        "get_many": repeat_one(get_many, KEYS),
        "set_many": repeat_one(set_many, VALUES),
    }


def set_up_connection(nodes: Sequence[Node], stack: ExitStack) -> Mapping[str, Repeat]:
    """Set up a ``Client[bytes]`` over a Connection."""
    return _metacache(stack.enter_context(Connection(nodes[0], settings=Settings(timeout=TIMEOUT))), stack)


def set_up_pool(nodes: Sequence[Node], stack: ExitStack) -> Mapping[str, Repeat]:
    """Set up a ``Client[bytes]`` over a Pool."""
    return _metacache(stack.enter_context(Pool(nodes[0], settings=Settings(timeout=TIMEOUT))), stack)


def set_up_cluster(nodes: Sequence[Node], stack: ExitStack) -> Mapping[str, Repeat]:
    """Set up a ``Client[bytes]`` over a Cluster, as `connect` does."""
    return _metacache(stack.enter_context(Cluster(nodes, settings=Settings(timeout=TIMEOUT))), stack)


def set_up_cluster_of_new_keys(nodes: Sequence[Node], stack: ExitStack) -> Mapping[str, Repeat]:
    """As `set_up_cluster`, but each operation has keys that the router does not remember."""
    cluster = stack.enter_context(Cluster(nodes, settings=Settings(timeout=TIMEOUT)))
    client = Client(cluster)
    values = [{f"{key}:{number}": value for key, value in VALUES.items()} for number in range(NEW_BATCHES)]
    for batch in values:
        client.set_many(batch)
    keys = [list(batch) for batch in values]
    return {
        "get": repeat_each(client.get, [key for batch in keys for key in batch]),
        "get_many": repeat_each(client.get_many, keys),
        "set_many": repeat_each(client.set_many, values),
    }


def set_up_memory(_: Sequence[Node], stack: ExitStack) -> Mapping[str, Repeat]:
    """Set up a ``Client[bytes]`` over a private embedded server, as ``connect("memory://")`` does."""
    return _metacache(stack.enter_context(Cluster.from_url("memory://", settings=Settings(timeout=TIMEOUT))), stack)


@final
class SilentObserver:
    """An observer that does nothing."""

    def called(self, event: Called, /) -> None:
        """Do nothing."""

    def exchanged(self, event: Exchanged, /) -> None:
        """Do nothing."""

    def happened(self, event: object, /) -> None:
        """Do nothing."""


def set_up_observed(nodes: Sequence[Node], stack: ExitStack) -> Mapping[str, Repeat]:
    """Set up a ``Client[bytes]`` over a Connection, with an observer that does nothing."""
    settings = Settings(timeout=TIMEOUT)
    return _metacache(stack.enter_context(Connection(nodes[0], settings=settings, observer=SilentObserver())), stack)


def set_up_asyncio(nodes: Sequence[Node], stack: ExitStack) -> Mapping[str, Repeat]:
    """Set up an ``AsyncClient[bytes]`` of `connect_async`. One task awaits each get."""
    return _asyncio(nodes[0], stack, None)


def set_up_observed_asyncio(nodes: Sequence[Node], stack: ExitStack) -> Mapping[str, Repeat]:
    """Set up an ``AsyncClient[bytes]`` of `connect_async`, with an observer that does nothing."""
    return _asyncio(nodes[0], stack, SilentObserver())


def _asyncio(node: Node, stack: ExitStack, observer: Observer | None) -> Mapping[str, Repeat]:
    runner = stack.enter_context(asyncio.Runner())
    client = connect_async(f"memcached://{node}", settings=Settings(timeout=TIMEOUT), observer=observer)
    stack.callback(lambda: runner.run(client.aclose()))
    runner.run(client.set(KEY, VALUE))

    async def get(times: int) -> None:
        for _ in range(times):
            await client.get(KEY)

    def repeat(times: int) -> None:
        runner.run(get(times))

    return {"get": repeat}


def _metacache(transport: Transport, stack: ExitStack) -> Mapping[str, Repeat]:
    client = stack.enter_context(Client(transport))
    client.set_many(VALUES)

    @client.cached("benchmark:{number}")
    def cached(number: int) -> bytes:
        raise AssertionError(f"the value of {number} is there")

    return {
        **_four_operations(client.get, client.set, client.get_many, client.set_many),
        "get_or_compute": repeat_two(client.get_or_compute, KEY, partial(cached.__wrapped__, BATCH // 2)),
        "cached": repeat_one(cached, BATCH // 2),
    }


def set_up_async_pool(nodes: Sequence[Node], stack: ExitStack) -> Mapping[str, Repeat]:
    """Set up an ``AsyncClient[bytes]`` over an AsyncPool. 64 tasks share the gets."""
    runner = stack.enter_context(asyncio.Runner())
    client = AsyncClient(AsyncPool(nodes[0], settings=Settings(timeout=TIMEOUT)), owns=True)
    stack.callback(lambda: runner.run(client.aclose()))
    runner.run(client.set_many(VALUES))

    async def read(numbers: Iterator[int]) -> None:
        for _ in numbers:
            await client.get(KEY)

    async def read_all(times: int) -> None:
        numbers = iter(range(times))
        await asyncio.gather(*(read(numbers) for _ in range(64)))

    return {"get, 64 tasks": lambda times: runner.run(read_all(times))}


def set_up_pymemcache(nodes: Sequence[Node], stack: ExitStack) -> Mapping[str, Repeat]:
    """Set up pymemcache's plain client, which here waits for the reply to a set, as the other clients do."""
    return _peer(open_pymemcache(nodes, 1, stack))


def set_up_pylibmc(nodes: Sequence[Node], stack: ExitStack) -> Mapping[str, Repeat]:
    """Set up pylibmc, which wraps libmemcached, a client in C."""
    return _peer(open_pylibmc(nodes, 1, stack))


def _peer(calls: Calls[bytes]) -> Mapping[str, Repeat]:
    assert calls.get_many is not None
    assert calls.set_many is not None
    calls.set_many(VALUES)
    return _four_operations(calls.get, calls.set, calls.get_many, calls.set_many)


def set_up_socket(nodes: Sequence[Node], stack: ExitStack) -> Mapping[str, Repeat]:
    """Set up the lower bound for a client in Python: one sendall and one recv of prepared bytes."""
    sock = stack.enter_context(socket.create_connection(host_and_port(nodes[0]), TIMEOUT))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    key = KEY.encode()
    get, set_ = b"mg %b v f O1\r\n" % key, b"ms %b %d F1 O1\r\n%b\r\n" % (key, len(VALUE), VALUE)

    def exchange(request: bytes) -> Repeat:
        def repeat(times: int) -> None:
            for _ in range(times):
                sock.sendall(request)
                sock.recv(65536)

        return repeat

    exchange(set_)(1)
    return {"get": exchange(get), "set": exchange(set_)}


CONNECTION: Final = "metacache, Connection"

SUBJECTS: Final = (
    Subject(
        CONNECTION,
        set_up_connection,
        {
            "get": 20_000,
            "set": 16_600,
            "get_many": 6_200,
            "set_many": 6_100,
            "get_or_compute": 23_000,
            "cached": 36_000,
        },
    ),
    Subject("metacache, Pool", set_up_pool, above=(CONNECTION, 3_000)),
    Subject(
        "metacache, Cluster",
        set_up_cluster,
        {"get": 22_700, "set": 19_700, "get_many": 6_800, "set_many": 6_900},
    ),
    # Client and server together. A get: 1.2 times the budget of one over a socket.
    Subject("metacache, memory://", set_up_memory, {"get": 27_240}),
    Subject("metacache, Cluster of 3", set_up_cluster, {"get_many": 9_500, "set_many": 10_000}, nodes=3),
    Subject("metacache, Cluster of 10", set_up_cluster, {"get_many": 17_000, "set_many": 17_500}, nodes=10),
    Subject(
        "metacache, Cluster of 3, new keys",
        set_up_cluster_of_new_keys,
        {"get_many": 13_000, "set_many": 13_500},
        nodes=3,
    ),
    Subject(
        "metacache, Cluster of 10, new keys",
        set_up_cluster_of_new_keys,
        {"get_many": 25_000, "set_many": 25_500},
        nodes=10,
    ),
    Subject("metacache, Cluster of 30", set_up_cluster, nodes=30),
    Subject("metacache, AsyncPool", set_up_async_pool, {"get, 64 tasks": 31_000}),
    Subject(
        "metacache, Connection, observed",
        set_up_observed,
        {"get": 25_000},
    ),
    Subject("metacache, asyncio", set_up_asyncio),
    Subject("metacache, asyncio, observed", set_up_observed_asyncio),
    Subject("pymemcache", set_up_pymemcache),
    *([Subject("pylibmc", set_up_pylibmc)] if find_spec("pylibmc") else []),
    Subject("sendall + recv", set_up_socket),
)


def subject(name: str) -> Subject:
    """Return the subject called *name*."""
    return next(subject for subject in SUBJECTS if subject.name == name)


def servers_of(subject: Subject, stack: ExitStack) -> list[Node]:
    """Start the private servers that *subject* needs, and return their nodes. The stack stops them."""
    return [stack.enter_context(Memcached()).node for _ in range(subject.nodes)]
