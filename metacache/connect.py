"""`connect`: from a URL to a client. Builds clusters and clients; moves no byte."""

from __future__ import annotations

from typing import Any, Final, TypeVar, overload

from typing_extensions import TypeForm, Unpack

from metacache.client import Client
from metacache.cluster.blocking import Cluster
from metacache.errors import InvalidTypeError
from metacache.options import ClientOptions
from metacache.serializers.builtin import BytesSerializer, IntSerializer, StrSerializer
from metacache.serializers.discovery import load_serializer
from metacache.serializers.protocols import Serializer
from metacache.settings import Settings
from metacache.urls import SourceOfNodes, parse_url

__all__ = ["connect", "open_cluster", "serializer_for"]

T = TypeVar("T")


@overload
def connect(
    url: str, *, serializer: None = None, settings: Settings | None = None, **options: Unpack[ClientOptions]
) -> Client[bytes]: ...
@overload
def connect(
    url: str,
    type_: type[T],
    *,
    serializer: str | Serializer[T] | None = None,
    settings: Settings | None = None,
    **options: Unpack[ClientOptions],
) -> Client[T]: ...
@overload
def connect(
    url: str,
    type_: TypeForm[T],
    *,
    serializer: str | Serializer[T] | None = None,
    settings: Settings | None = None,
    **options: Unpack[ClientOptions],
) -> Client[T]: ...
def connect(
    url: str,
    type_: Any = bytes,  # Any: a type expression; the overloads say which
    *,
    serializer: str | Serializer[Any] | None = None,  # Any: as above
    settings: Settings | None = None,
    **options: Unpack[ClientOptions],
) -> Client[Any]:
    """Return a client for the servers that *url* names, storing values of *type_*. It dials when first used.

        memcached://[user:password@]host[:port][,host[:port]…]/?weights=2,1&timeout=0.25&pool_size=8
        memcacheds://…   memcached+unix:///path   memcached+dns://name:port   memcached+elasticache://host:port

    *serializer*: the name of an installed serializer (`available_serializers`) or a Serializer; left out for bytes, str
    and int. *settings*: what the URL does not say. *options*: see `ClientOptions`. The client owns its cluster:
    close it, or use it in a ``with``.

    Raises InvalidArgumentError naming the part of the URL that is wrong (never a credential), SerializerNotFound.
    """
    chosen = serializer_for(type_, serializer)
    return Client(open_cluster(url, settings or Settings()), chosen, owns=True, **options)


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
    raise InvalidTypeError(f"values of {type_!r} need a serializer: give serializer='msgspec', for example")


def open_cluster(url: str, settings: Settings) -> Cluster:
    """Return the cluster of the nodes that *url* names; for a source of nodes, watched until the cluster is closed."""
    place, complete = parse_url(url, settings)
    if not isinstance(place, SourceOfNodes):
        return Cluster(place, settings=complete)
    raise NotImplementedError
