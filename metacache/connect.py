"""`connect` and `connect_async`: from a URL to a client. Builds clusters and clients; moves no byte."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar, overload

from typing_extensions import TypeForm, Unpack

from metacache.client.aio import AsyncClient
from metacache.client.blocking import Client
from metacache.cluster.aio import AsyncCluster
from metacache.cluster.blocking import Cluster
from metacache.cluster.per_loop import PerLoop
from metacache.discovery import load_node_source
from metacache.discovery.aio_watch import AsyncWatch, poll
from metacache.discovery.follower import ask, known_nodes
from metacache.discovery.sources import NodeSource
from metacache.discovery.watch import Watch
from metacache.errors import InvalidTypeError
from metacache.nodes import Node
from metacache.operations.options import ClientOptions, options_of
from metacache.serializers.builtin import BytesSerializer, IntSerializer, StrSerializer
from metacache.serializers.discovery import load_serializer
from metacache.serializers.fingerprints import check_type
from metacache.serializers.interfaces import Serializer
from metacache.serializers.names import type_name
from metacache.serializers.suggestions import suggestion
from metacache.settings import Settings
from metacache.urls import SourceOfNodes, parse_url

__all__ = ["connect", "connect_async", "open_async_cluster", "open_cluster", "serializer_for"]

T = TypeVar("T")
Builtin = TypeVar("Builtin", bytes, str, int)  # the types that need no serializer


@overload
def connect(
    url: str, *, serializer: None = None, settings: Settings | None = None, **options: Unpack[ClientOptions]
) -> Client[bytes]: ...
@overload
def connect(
    url: str,
    type_: type[Builtin],
    *,
    serializer: None = None,
    settings: Settings | None = None,
    **options: Unpack[ClientOptions],
) -> Client[Builtin]: ...
@overload
def connect(
    url: str,
    type_: type[T],
    *,
    serializer: str | Serializer[T],
    settings: Settings | None = None,
    **options: Unpack[ClientOptions],
) -> Client[T]: ...
@overload
def connect(
    url: str,
    type_: TypeForm[T],
    *,
    serializer: str | Serializer[T],
    settings: Settings | None = None,
    **options: Unpack[ClientOptions],
) -> Client[T]: ...
def connect(
    url: str,
    type_: type[T] | TypeForm[T] = bytes,  # type: ignore[assignment]  # the first overload: T is bytes
    *,
    serializer: str | Serializer[T] | None = None,
    settings: Settings | None = None,
    **options: Unpack[ClientOptions],
) -> Client[T]:
    """Return a client for the servers that *url* names, storing values of *type_*. It dials when first used.

        memcached://[user:password@]host[:port][,host[:port]…]/?weights=2,1&timeout=0.25&pool_size=8
        memcacheds://…   memcached+unix:///path   memcached+dns://name:port   memcached+elasticache://host:port

    *serializer*: the name of an installed serializer (`available_serializers`) or a Serializer; left out for bytes, str
    and int. *settings*: what the URL does not say. *options*: see `ClientOptions`. The client owns its cluster:
    close it, or use it in a ``with``.

    Raises InvalidArgumentError naming the part of the URL that is wrong (never a credential), SerializerNotFound.
    """
    chosen = serializer_for(type_, serializer)
    options_of(options)  # before anything is opened
    return Client(open_cluster(url, settings or Settings()), chosen, owns=True, **options)


@overload
def connect_async(
    url: str, *, serializer: None = None, settings: Settings | None = None, **options: Unpack[ClientOptions]
) -> AsyncClient[bytes]: ...
@overload
def connect_async(
    url: str,
    type_: type[Builtin],
    *,
    serializer: None = None,
    settings: Settings | None = None,
    **options: Unpack[ClientOptions],
) -> AsyncClient[Builtin]: ...
@overload
def connect_async(
    url: str,
    type_: type[T],
    *,
    serializer: str | Serializer[T],
    settings: Settings | None = None,
    **options: Unpack[ClientOptions],
) -> AsyncClient[T]: ...
@overload
def connect_async(
    url: str,
    type_: TypeForm[T],
    *,
    serializer: str | Serializer[T],
    settings: Settings | None = None,
    **options: Unpack[ClientOptions],
) -> AsyncClient[T]: ...
def connect_async(
    url: str,
    type_: type[T] | TypeForm[T] = bytes,  # type: ignore[assignment]  # the first overload: T is bytes
    *,
    serializer: str | Serializer[T] | None = None,
    settings: Settings | None = None,
    **options: Unpack[ClientOptions],
) -> AsyncClient[T]:
    """Return an asyncio client for the servers that *url* names, storing values of *type_*. It dials when first used.

        memcached://[user:password@]host[:port][,host[:port]…]/?weights=2,1&timeout=0.25&pool_size=8
        memcacheds://…   memcached+unix:///path   memcached+dns://name:port   memcached+elasticache://host:port

    *serializer*: the name of an installed serializer (`available_serializers`) or a Serializer; left out for bytes, str
    and int. *settings*: what the URL does not say. *options*: see `ClientOptions`. The client owns its cluster:
    close it, or use it in an ``async with``.

    Raises InvalidArgumentError naming the part of the URL that is wrong (never a credential), SerializerNotFound.
    """
    chosen = serializer_for(type_, serializer)
    options_of(options)  # before anything is opened
    where, make, complete = _async_clusters(url, settings or Settings())
    owner = f"<AsyncClient prefix={options.get('prefix', '')!r} on {where}>"
    transport = PerLoop(make, name=where, owner=owner, timeout=complete.timeout)
    return AsyncClient(transport, chosen, owns=True, **options)


# type and not isinstance: a subclass of int or str needs a serializer that makes it again.
_BUILTIN: Final = ((bytes, BytesSerializer), (str, StrSerializer), (int, IntSerializer))


def serializer_for(type_: Any, serializer: str | Serializer[Any] | None) -> Serializer[Any]:  # Any: as in connect
    """Return *serializer*, the installed one of that name, or the built-in one of *type_*. Raises InvalidTypeError."""
    if isinstance(serializer, str):
        return load_serializer(serializer, type_)
    if serializer is not None:
        return serializer
    for class_, builtin in _BUILTIN:
        if type_ is class_:
            return builtin()
    check_type(type_)
    raise InvalidTypeError(f"values of {type_name(type_)} need a serializer: {suggestion(type_)}")


def open_cluster(url: str, settings: Settings) -> Cluster:
    """Return the cluster of the nodes that *url* names; for a source of nodes, watched until the cluster is closed."""
    place, complete = parse_url(url, settings)
    if not isinstance(place, SourceOfNodes):
        return Cluster(place, settings=complete)
    source = load_node_source(place.name)(place.host, place.port, settings=complete)
    first = known_nodes(source, ask(source))
    cluster = Cluster(first, settings=complete)
    cluster.attach(Watch(source, cluster.set_nodes, settings=complete, first=first))
    return cluster


def open_async_cluster(url: str, settings: Settings) -> AsyncCluster:
    """Return the asyncio cluster of the nodes that *url* names; a source of nodes is first asked when it is used."""
    _, make, _ = _async_clusters(url, settings)
    return make()


def _async_clusters(url: str, settings: Settings) -> tuple[str, Callable[[], AsyncCluster], Settings]:
    """Return where *url* leads, without credentials, a maker of clusters of its nodes, and the complete settings."""
    place, complete = parse_url(url, settings)
    if not isinstance(place, SourceOfNodes):
        nodes = tuple(place)
        return ", ".join(node.name for node in nodes), partial(AsyncCluster, nodes, settings=complete), complete
    open_source = partial(load_node_source(place.name), place.host, place.port, settings=complete)
    open_source()  # a source that is not possible is an error here, and not when it is used
    return f"{place.name}://{place.host}:{place.port}", partial(_watching_cluster, open_source, complete), complete


def _watching_cluster(open_source: Callable[[], NodeSource], settings: Settings) -> AsyncCluster:
    source = open_source()

    async def find(cluster: AsyncCluster) -> Sequence[Node]:
        first = await poll(source)
        cluster.attach(AsyncWatch(source, cluster.set_nodes, settings=settings, first=first))
        return first

    return AsyncCluster(find, settings=settings)
