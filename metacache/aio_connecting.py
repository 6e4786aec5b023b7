"""`connect_async`: make an asyncio client from a URL, with its serializer and its clusters.

It opens no connection. The first operation in an event loop does, and it polls the source of nodes if there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar, Unpack, overload

from metacache.client.aio import AsyncClient
from metacache.cluster.aio import AsyncCluster
from metacache.cluster.membership import StateListener
from metacache.cluster.opening import Find
from metacache.cluster.per_loop import PerLoop
from metacache.discovery.aio_watch import AsyncWatch, find_nodes
from metacache.discovery.plugins import load_node_source
from metacache.discovery.sources import NodeSource
from metacache.marks import TypeForm
from metacache.nodes import Node
from metacache.observe import Observer
from metacache.operations.options import ClientOptions, options_of
from metacache.serializers.choice import serializer_for
from metacache.serializers.interfaces import Serializer
from metacache.settings import Settings
from metacache.urls import SourceLocation, parse_url

__all__ = ["connect_async", "open_async_cluster"]

T = TypeVar("T")
Builtin = TypeVar("Builtin", bytes, str, int)  # the types with a built-in serializer


@overload
def connect_async(
    url: str,
    *,
    serializer: None = None,
    settings: Settings | None = None,
    on_state_change: StateListener | None = None,
    **options: Unpack[ClientOptions],
) -> AsyncClient[bytes]: ...
@overload
def connect_async(
    url: str,
    type_: type[Builtin],
    *,
    serializer: None = None,
    settings: Settings | None = None,
    on_state_change: StateListener | None = None,
    **options: Unpack[ClientOptions],
) -> AsyncClient[Builtin]: ...
@overload
def connect_async(
    url: str,
    type_: type[T],
    *,
    serializer: str | Serializer[T],
    settings: Settings | None = None,
    on_state_change: StateListener | None = None,
    **options: Unpack[ClientOptions],
) -> AsyncClient[T]: ...
@overload
def connect_async(
    url: str,
    type_: TypeForm[T],
    *,
    serializer: str | Serializer[T],
    settings: Settings | None = None,
    on_state_change: StateListener | None = None,
    **options: Unpack[ClientOptions],
) -> AsyncClient[T]: ...
def connect_async(  # pyright: ignore[reportInconsistentOverload]  # as above
    url: str,
    type_: TypeForm[T] = bytes,  # type: ignore[assignment]  # T is bytes if it is left out
    *,
    serializer: str | Serializer[T] | None = None,
    settings: Settings | None = None,
    on_state_change: StateListener | None = None,
    **options: Unpack[ClientOptions],
) -> AsyncClient[T]:
    """Return an `AsyncClient` that stores values of *type_* on the servers of *url*. Its first operation connects.

    The result is an ``AsyncClient[bytes]`` by default, and an ``AsyncClient[T]`` for a *type_* T. It works in every
    event loop: each loop has its own connections.

        memcached://[user:password@]host[:port][,host[:port]…]/?weights=2,1&timeout=0.25&pool_size=8
        memcacheds://…   memcached+unix:///path   memcached+dns://name:port   memcached+elasticache://host:port
        memory://[name]   an embedded server in this process, for tests and first steps

    Args:
        url: one of the forms above. A source of nodes (dns, elasticache) is polled by the first operation.
        type_: the type of the values: a class, or another type expression, such as ``list[User] | None``.
        serializer: a Serializer, or the name of an installed one (`available_serializers`). Leave it out for bytes, str
            and int.
        settings: the settings that the URL does not set. The URL has priority.
        on_state_change: called with (node, state before, state now) after the state of a node has changed. It must not
            block.
        options: see `ClientOptions`.

    The client owns its clusters: call ``aclose()``, or use the client in an ``async with`` statement.

    Raises InvalidArgumentError that names the invalid part of the URL (never a credential), SerializerNotFound.
    """
    chosen = serializer_for(type_, serializer)
    observer = options_of(options).observer  # checks the options before anything is opened
    options.pop("observer", None)  # the client has the observer of its transport
    base = Settings() if settings is None else settings
    where, make, complete = _async_clusters(url, base, observer, on_state_change)
    owner = f"<AsyncClient prefix={options.get('prefix', '')!r} on {where}>"
    transport = PerLoop(make, name=where, owner=owner, timeout=complete.timeout, observer=observer)
    return AsyncClient(transport, chosen, owns=True, **options)


def open_async_cluster(
    url: str, settings: Settings, observer: Observer | None = None, on_state_change: StateListener | None = None
) -> AsyncCluster:
    """Return an asyncio cluster of the nodes of *url*. With a node source, the first operation polls it."""
    _, make, _ = _async_clusters(url, settings, observer, on_state_change)
    return make()


def _async_clusters(
    url: str, settings: Settings, observer: Observer | None, on_state_change: StateListener | None
) -> tuple[str, Callable[[], AsyncCluster], Settings]:
    """Return the location of *url* without credentials, a function that makes a cluster, and the complete settings."""
    place, complete = parse_url(url, settings)
    cluster = partial(AsyncCluster, settings=complete, observer=observer, on_state_change=on_state_change)
    if not isinstance(place, SourceLocation):
        nodes = tuple(place)
        return ", ".join(node.name for node in nodes), partial(cluster, nodes), complete
    open_source = partial(load_node_source(place.name), place.host, place.port, settings=complete)
    open_source()  # raises for an invalid source now instead of at the first use
    make = partial(_watching_cluster, cluster, open_source, complete)
    return f"{place.name}://{place.host}:{place.port}", make, complete


def _watching_cluster(
    make: Callable[[Find], AsyncCluster], open_source: Callable[[], NodeSource], settings: Settings
) -> AsyncCluster:
    source = open_source()

    async def find(cluster: AsyncCluster) -> Sequence[Node]:
        first = await find_nodes(source)
        cluster.attach(AsyncWatch(source, cluster.set_nodes, settings=settings, first=first))
        return first

    return make(find)
