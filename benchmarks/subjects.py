"""What is measured: clients, a row each, that do the same four operations on one memcached.

A further subject is a function and a row in SUBJECTS; how it is measured is told elsewhere.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Final, TypeAlias, TypeVar, final

import attrs
import pylibmc
import pymemcache

from metacache import Client, Cluster, Connection, Node, Pool, Settings, Transport
from metacache.nodes import TcpAddress

__all__ = [
    "BATCH",
    "OPERATIONS",
    "PATIENCE",
    "SUBJECTS",
    "VALUE_SIZE",
    "Repeat",
    "Setup",
    "Subject",
    "host_and_port",
    "subject",
    "with_one",
    "with_two",
]

A = TypeVar("A")
B = TypeVar("B")

BATCH: Final = 100  # keys of a get_many and a set_many
VALUE_SIZE: Final = 100  # bytes

# The operations, and the number of keys of each.
OPERATIONS: Final[dict[str, int]] = {"get": 1, "set": 1, "get_many": BATCH, "set_many": BATCH}

Repeat: TypeAlias = Callable[[int], None]
"""Does one operation so many times."""

Setup: TypeAlias = Callable[[Node, ExitStack], Mapping[str, Repeat]]
"""Connects to the node, stores what will be read, and returns the operations; the stack closes what was opened.

The node is its own: clients do not read one another's flags.
"""

VALUES: Final = {f"benchmark:{number}": b"%d" % number * VALUE_SIZE for number in range(BATCH)}
VALUES.update({key: value[:VALUE_SIZE] for key, value in VALUES.items()})
KEYS: Final = list(VALUES)
KEY: Final = KEYS[BATCH // 2]
VALUE: Final = VALUES[KEY]

# No deadline may end a measurement: under valgrind, and on a busy machine, everything is fifty times slower.
PATIENCE: Final = 60.0  # seconds


@final
@attrs.frozen
class Subject:
    """One client: its name, its setup, and what it may cost, where promised.

    ``budget``: instructions a key, by operation. ``above``: the name of another, and by how many instructions an
    operation may cost more than with that.
    """

    name: str
    setup: Setup
    budget: Mapping[str, int] = attrs.Factory(dict[str, int])
    above: tuple[str, int] | None = None


# Each client is called from a Python loop, as its users would: partial() and map() would add a C call, and only to the
# clients in Python.


def with_one(run: Callable[[A], object], argument: A) -> Repeat:
    """Return the calling of *run* with *argument*, so many times."""

    def repeat(times: int) -> None:
        for _ in range(times):
            run(argument)

    return repeat


def with_two(run: Callable[[A, B], object], first: A, second: B) -> Repeat:
    """Return the calling of *run* with *first* and *second*, so many times."""

    def repeat(times: int) -> None:
        for _ in range(times):
            run(first, second)

    return repeat


def over_connection(node: Node, stack: ExitStack) -> Mapping[str, Repeat]:
    """Set up a ``Client[bytes]`` over a Connection."""
    return _metacache(stack.enter_context(Connection(node, settings=Settings(timeout=PATIENCE))), stack)


def over_pool(node: Node, stack: ExitStack) -> Mapping[str, Repeat]:
    """Set up a ``Client[bytes]`` over a Pool."""
    return _metacache(stack.enter_context(Pool(node, settings=Settings(timeout=PATIENCE))), stack)


def over_cluster(node: Node, stack: ExitStack) -> Mapping[str, Repeat]:
    """Set up a ``Client[bytes]`` over a Cluster of one node: all that stands between a caller and a socket."""
    return _metacache(stack.enter_context(Cluster([node], settings=Settings(timeout=PATIENCE))), stack)


def _metacache(transport: Transport, stack: ExitStack) -> Mapping[str, Repeat]:
    client = stack.enter_context(Client(transport))
    client.set_many(VALUES)
    return {
        "get": with_one(client.get, KEY),
        "set": with_two(client.set, KEY, VALUE),
        "get_many": with_one(client.get_many, KEYS),
        "set_many": with_one(client.set_many, VALUES),
    }


def over_pymemcache(node: Node, stack: ExitStack) -> Mapping[str, Repeat]:
    """Set up pymemcache's plain client; it waits for the reply to a store, as the others do (its default is not to)."""
    client = pymemcache.Client(host_and_port(node), no_delay=True, default_noreply=False)
    stack.callback(client.close)
    client.set_many(VALUES)
    return {
        "get": with_one(client.get, KEY),
        "set": with_two(client.set, KEY, VALUE),
        "get_many": with_one(client.get_many, KEYS),
        "set_many": with_one(client.set_many, VALUES),
    }


def over_pylibmc(node: Node, stack: ExitStack) -> Mapping[str, Repeat]:
    """Set up pylibmc, which is libmemcached in C."""
    host, port = host_and_port(node)
    client = pylibmc.Client([f"{host}:{port}"], behaviors={"tcp_nodelay": True})
    stack.callback(client.disconnect_all)
    client.set_multi(VALUES)
    return {
        "get": with_one(client.get, KEY),
        "set": with_two(client.set, KEY, VALUE),
        "get_many": with_one(client.get_multi, KEYS),
        "set_many": with_one(client.set_multi, VALUES),
    }


def over_socket(node: Node, stack: ExitStack) -> Mapping[str, Repeat]:
    """Set up the floor of all that is written in Python: one sendall and one recv of bytes that lie ready."""
    sock = stack.enter_context(socket.create_connection(host_and_port(node), PATIENCE))
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


def host_and_port(node: Node) -> tuple[str, int]:
    """Return the address of *node* as other clients take it."""
    assert isinstance(node.address, TcpAddress)
    return node.address.host, node.address.port


CONNECTION: Final = "metacache, Connection"

SUBJECTS: Final = (
    Subject(
        CONNECTION,
        over_connection,
        {"get": 20_000, "set": 16_500, "get_many": 9_000, "set_many": 7_000},
    ),
    Subject("metacache, Pool", over_pool, above=(CONNECTION, 3_000)),
    Subject("metacache, Cluster", over_cluster, {"get": 26_000, "set": 22_000}),
    Subject("pymemcache", over_pymemcache),
    Subject("pylibmc", over_pylibmc),
    Subject("sendall + recv", over_socket),
)


def subject(name: str) -> Subject:
    """Return the subject called *name*."""
    return next(subject for subject in SUBJECTS if subject.name == name)
