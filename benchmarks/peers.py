"""The blocking clients of memcached, each behind the same four methods. Measures nothing.

To add a client, write a function that connects it, and a row in `benchmarks.suite.contenders`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence, Sized
from contextlib import ExitStack
from typing import Any, Final, Generic, TypeAlias, TypeVar, final

import attrs
import pymemcache
from pymemcache.client.base import PooledClient
from pymemcache.serde import PickleSerde
from typing_extensions import override

from metacache import Client, Cluster, Node, Serializer, Settings
from metacache.nodes import TcpAddress, UnixAddress

__all__ = [
    "TIMEOUT",
    "Calls",
    "Lacking",
    "Open",
    "host_and_port",
    "open_bmemcached",
    "open_memcache",
    "open_meta_memcache",
    "open_metacache",
    "open_pylibmc",
    "open_pymemcache",
    "open_typed_metacache",
    "open_typed_pylibmc",
    "open_typed_pymemcache",
]

T = TypeVar("T")

# No timeout may end a measurement. Under valgrind, and on a busy machine, everything is fifty times slower.
TIMEOUT: Final = 60.0  # seconds
READ_BUFFER: Final = 65_536  # bytes: with its default of 4,096, meta-memcache is much slower for large values


class Lacking(Exception):
    """This client cannot do that work. The text says why, as the end of a sentence about the client."""


@final
@attrs.frozen
class Calls(Generic[T]):
    """The methods of a connected client. None: the client has no such method."""

    get: Callable[[str], object]
    set: Callable[[str, T], object]
    get_many: Callable[[list[str]], Sized] | None = None
    set_many: Callable[[dict[str, T]], object] | None = None


Open: TypeAlias = Callable[[Sequence[Node], int, ExitStack], Calls[T]]
"""Connects to the nodes, for that number of threads. The stack closes the client."""


def host_and_port(node: Node) -> tuple[str, int]:
    """Return the address of *node* in the form that other clients need."""
    assert isinstance(node.address, TcpAddress)
    return node.address.host, node.address.port


def path_of(node: Node) -> str | None:
    """Return the path of the unix socket of *node*; None if it is a TCP address."""
    return node.address.path if isinstance(node.address, UnixAddress) else None


def open_metacache(nodes: Sequence[Node], threads: int, stack: ExitStack) -> Calls[bytes]:
    """Connect a ``Client[bytes]`` as `connect` does: over a Cluster."""
    settings = Settings(timeout=TIMEOUT, pool_size=max(threads, Settings().pool_size))
    client = Client(stack.enter_context(Cluster(nodes, settings=settings)))
    return Calls(client.get, client.set, client.get_many, client.set_many)


def open_typed_metacache(serializer: Serializer[T]) -> Open[T]:
    """Return a function that connects a client of the type of *serializer*, as `connect` does."""

    def open_(nodes: Sequence[Node], _threads: int, stack: ExitStack) -> Calls[T]:
        client = Client(stack.enter_context(Cluster(nodes, settings=Settings(timeout=TIMEOUT))), serializer)
        return Calls(client.get, client.set, client.get_many, client.set_many)

    return open_


def open_pymemcache(nodes: Sequence[Node], threads: int, stack: ExitStack) -> Calls[bytes]:
    """Connect pymemcache: its HashClient for several nodes, its PooledClient for several threads."""
    addresses = [path_of(node) or host_and_port(node) for node in nodes]
    client: pymemcache.Client | PooledClient | pymemcache.HashClient
    if len(nodes) > 1:
        client = pymemcache.HashClient(addresses, no_delay=True, default_noreply=False)
    elif threads > 1:
        client = PooledClient(addresses[0], no_delay=True, default_noreply=False, max_pool_size=threads)
    else:
        client = pymemcache.Client(addresses[0], no_delay=path_of(nodes[0]) is None, default_noreply=False)
    stack.callback(client.close)
    return Calls(client.get, client.set, client.get_many, client.set_many)


def open_typed_pymemcache(serde: PickleSerde) -> Open[Any]:
    """Return a function that connects pymemcache's plain client with *serde*. Any: a serde stores any class."""

    def open_(nodes: Sequence[Node], _threads: int, stack: ExitStack) -> Calls[Any]:  # Any: as above
        client = pymemcache.Client(host_and_port(nodes[0]), no_delay=True, default_noreply=False, serde=serde)
        stack.callback(client.close)
        return Calls(client.get, client.set)

    return open_


def open_pylibmc(nodes: Sequence[Node], threads: int, stack: ExitStack) -> Calls[bytes]:
    """Connect pylibmc, which wraps libmemcached, a client in C. Several threads get its ThreadMappedPool."""
    import pylibmc  # not at the top: it is absent where no wheel exists for this Python

    servers = [path_of(node) or "{}:{}".format(*host_and_port(node)) for node in nodes]
    is_tcp = path_of(nodes[0]) is None
    client = pylibmc.Client(servers, behaviors={"tcp_nodelay": is_tcp, "ketama": len(nodes) > 1})
    stack.callback(client.disconnect_all)
    if threads == 1:
        return Calls(client.get, client.set, client.get_multi, client.set_multi)
    pool = pylibmc.ThreadMappedPool(client)

    def get(key: str) -> object:
        with pool.reserve() as mapped:
            return mapped.get(key)

    def set_(key: str, value: bytes) -> object:
        with pool.reserve() as mapped:
            return mapped.set(key, value)

    return Calls(get, set_)


def open_typed_pylibmc(nodes: Sequence[Node], threads: int, stack: ExitStack) -> Calls[Any]:
    """Connect pylibmc, which pickles everything but bytes, texts and numbers. Any: of any class."""
    return open_pylibmc(nodes, threads, stack)


def open_bmemcached(nodes: Sequence[Node], _threads: int, stack: ExitStack) -> Calls[bytes]:
    """Connect python-binary-memcached. Each thread gets a connection of its own."""
    import bmemcached  # not at the top: a peer may be absent

    servers = [path_of(node) or "{}:{}".format(*host_and_port(node)) for node in nodes]
    kind = bmemcached.DistributedClient if len(nodes) > 1 else bmemcached.Client
    client = kind(servers, socket_timeout=TIMEOUT, raw_data=True)  # raw: no flags, and no compression
    stack.callback(client.disconnect_all)
    return Calls(client.get, client.set, client.get_multi, client.set_multi)


def open_meta_memcache(nodes: Sequence[Node], threads: int, _stack: ExitStack) -> Calls[bytes]:
    """Connect meta-memcache. It has no method that closes; its connections close when they are freed."""
    # Not at the top: a peer may be absent.
    from meta_memcache.base.base_serializer import BaseSerializer, EncodedValue
    from meta_memcache.cache_client import CacheClient
    from meta_memcache.configuration import ServerAddress
    from meta_memcache.connection.pool import ConnectionPool
    from meta_memcache.protocol import Blob, Key

    class Unchanged(BaseSerializer):
        """Stores bytes. meta-memcache's own serializer compresses each value of more than 128 bytes."""

        @override
        def serialize(self, key: Key, value: bytes) -> EncodedValue:
            return EncodedValue(value, 16)  # 16: the flag of bytes

        @override
        def unserialize(self, data: Blob, encoding_id: int) -> bytes:
            return bytes(data)

    by_name = {str(node): node for node in nodes}
    servers = [ServerAddress("", 0, server_id=name) for name in by_name]

    def pool_of(server: ServerAddress) -> ConnectionPool:
        node = by_name[str(server)]
        return ConnectionPool(str(server), lambda: dial(node), 1, threads, read_buffer_size=READ_BUFFER)

    client = CacheClient.cache_client_from_servers(servers, pool_of, serializer=Unchanged())

    def set_(key: str, value: bytes) -> object:
        return client.set(key, value, 0)  # it demands a TTL

    return Calls(client.get, set_, client.multi_get)


def dial(node: Node) -> socket.socket:
    """Return a connected socket."""
    if path := path_of(node):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(TIMEOUT)
        sock.connect(path)
        return sock
    sock = socket.create_connection(host_and_port(node), TIMEOUT)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def open_memcache(nodes: Sequence[Node], threads: int, _stack: ExitStack) -> Calls[bytes]:
    """Connect aisk's memcache. It has no method that closes; its connections close when they are freed."""
    import memcache  # not at the top: a peer may be absent

    if len(nodes) > 1:
        raise Lacking("connects every node of a list to the last one of it")
    if path_of(nodes[0]):
        raise Lacking("has no unix sockets")
    client = memcache.Memcache(host_and_port(nodes[0]), pool_size=threads, pool_timeout=round(TIMEOUT))
    return Calls(client.get, client.set)
