"""`connect`: make a blocking client from a URL, with its serializer and its cluster.

It opens no connection to a node. For a URL with a source of nodes, `connect` polls the source once. The name of the
module differs from that of the function, because importing it would replace the function in the package.
"""

from __future__ import annotations

from functools import partial
from typing import TypeVar, Unpack, overload

from metacache.client.blocking import Client
from metacache.cluster.blocking import Cluster
from metacache.cluster.membership import StateListener
from metacache.marks import TypeForm
from metacache.observe import Observer
from metacache.operations.options import ClientOptions, options_of
from metacache.serializers.choice import serializer_for
from metacache.serializers.interfaces import Serializer
from metacache.settings import Settings
from metacache.urls import SourceLocation, parse_url

__all__ = ["connect", "open_cluster"]

T = TypeVar("T")
Builtin = TypeVar("Builtin", bytes, str, int)  # the types with a built-in serializer


@overload
def connect(
    url: str,
    *,
    serializer: None = None,
    settings: Settings | None = None,
    on_state_change: StateListener | None = None,
    **options: Unpack[ClientOptions],
) -> Client[bytes]: ...
@overload
def connect(
    url: str,
    type_: type[Builtin],
    *,
    serializer: None = None,
    settings: Settings | None = None,
    on_state_change: StateListener | None = None,
    **options: Unpack[ClientOptions],
) -> Client[Builtin]: ...
@overload
def connect(
    url: str,
    type_: type[T],
    *,
    serializer: str | Serializer[T],
    settings: Settings | None = None,
    on_state_change: StateListener | None = None,
    **options: Unpack[ClientOptions],
) -> Client[T]: ...
@overload
def connect(
    url: str,
    type_: TypeForm[T],
    *,
    serializer: str | Serializer[T],
    settings: Settings | None = None,
    on_state_change: StateListener | None = None,
    **options: Unpack[ClientOptions],
) -> Client[T]: ...
def connect(  # pyright: ignore[reportInconsistentOverload]  # pyright does not solve T for a TypeForm
    url: str,
    type_: TypeForm[T] = bytes,  # type: ignore[assignment]  # T is bytes if it is left out
    *,
    serializer: str | Serializer[T] | None = None,
    settings: Settings | None = None,
    on_state_change: StateListener | None = None,
    **options: Unpack[ClientOptions],
) -> Client[T]:
    """Return a `Client` that stores values of *type_* on the servers of *url*. Its first operation opens a connection.

    The result is a ``Client[bytes]`` by default, and a ``Client[T]`` for a *type_* T.

        memcached://[user:password@]host[:port][,host[:port]…]/?weights=2,1&timeout=0.25&pool_size=8
        memcacheds://…   memcached+unix:///path   memcached+dns://name:port   memcached+elasticache://host:port
        memory://[name]   an embedded server in this process, for tests and first steps

    Args:
        url: one of the forms above. A source of nodes (dns, elasticache) is polled before the function returns.
        type_: the type of the values: a class, or another type expression, such as ``list[User] | None``.
        serializer: a Serializer, or the name of an installed one (`available_serializers`). Leave it out for bytes, str
            and int.
        settings: the settings that the URL does not set. The URL has priority.
        on_state_change: called with (node, state before, state now) after the state of a node has changed. It must not
            block.
        options: see `ClientOptions`.

    The client owns its cluster: call ``close()``, or use the client in a ``with`` statement.

    Raises InvalidArgumentError that names the invalid part of the URL (never a credential), SerializerNotFound; for a
    source of nodes, ConnectError and other errors of the source.
    """
    chosen = serializer_for(type_, serializer)
    observer = options_of(options).observer  # checks the options before anything is opened
    options.pop("observer", None)  # the client has the observer of its transport
    cluster = open_cluster(url, Settings() if settings is None else settings, observer, on_state_change)
    return Client(cluster, chosen, owns=True, **options)


def open_cluster(
    url: str, settings: Settings, observer: Observer | None = None, on_state_change: StateListener | None = None
) -> Cluster:
    """Return a cluster of the nodes of *url*. With a node source, it follows the source until its close."""
    make = partial(Cluster, observer=observer, on_state_change=on_state_change)
    place, complete = parse_url(url, settings)
    if not isinstance(place, SourceLocation):
        return make(place, settings=complete)
    # Late: only a client that has a source of nodes loads this, and its thread.
    from metacache.discovery.follower import poll_source, usable_nodes
    from metacache.discovery.plugins import load_node_source
    from metacache.discovery.watch import Watch

    source = load_node_source(place.name)(place.host, place.port, settings=complete)
    first = usable_nodes(source, poll_source(source))
    cluster = make(first, settings=complete)
    cluster.attach(Watch(source, cluster.set_nodes, settings=complete, first=first))
    return cluster
