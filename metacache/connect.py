"""`connect`: from a URL to a client. Knows how a URL is written; builds transports and clients, and moves no byte.

memcached://[user:password@]host[:port]/?timeout=0.25&keepalive=30
memcacheds://…               the same over TLS, certificates verified
memcached+unix:///path?…
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, Final, TypeVar, overload
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import attrs
from typing_extensions import TypeForm, Unpack

from metacache.client import Client
from metacache.errors import InvalidArgumentError, InvalidTypeError
from metacache.nodes import Node
from metacache.options import ClientOptions
from metacache.serializers.builtin import BytesSerializer, IntSerializer, StrSerializer
from metacache.serializers.discovery import load_serializer
from metacache.serializers.protocols import Serializer
from metacache.settings import Settings
from metacache.transports.blocking import Connection

__all__ = ["connect", "parse_url"]

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
    """Return a client for the server that *url* names, storing values of *type_*. It dials when first used.

    *serializer*: the name of an installed serializer (`available_serializers`) or a Serializer; left out for bytes, str
    and int. *settings*: what the URL does not say. *options*: see `ClientOptions`. The client owns its connection:
    close it, or use it in a ``with``.

    Raises InvalidArgumentError naming the part of the URL that is wrong (never a credential), SerializerNotFound.
    """
    chosen = _serializer(type_, serializer)
    node, complete = parse_url(url, settings or Settings())
    return Client(Connection(node, settings=complete), chosen, owns=True, **options)


# type and not isinstance: a subclass of int or str needs a serializer that makes it again.
_BUILTIN: Final = ((bytes, BytesSerializer), (str, StrSerializer), (int, IntSerializer))


def _serializer(type_: Any, serializer: str | Serializer[Any] | None) -> Serializer[Any]:  # Any: as in connect
    if isinstance(serializer, str):
        return load_serializer(serializer, type_)
    if serializer is not None:
        return serializer
    for class_, builtin in _BUILTIN:
        if type_ is class_:
            return builtin()
    raise InvalidTypeError(f"values of {type_!r} need a serializer: give serializer='msgspec', for example")


# --- the URL ----------------------------------------------------------------------------------------------------------

_TCP_SCHEMES: Final = ("memcached", "memcacheds")
_UNIX_SCHEME: Final = "memcached+unix"

# What may stand in the query: the settings that are numbers.
_QUERY: Final[dict[str, Callable[[str], float]]] = {
    "timeout": float,
    "connect_timeout": float,
    "keepalive": int,
    "max_value_size": int,
    "max_reply_size": int,
}


def parse_url(url: str, settings: Settings) -> tuple[Node, Settings]:
    """Return the node that *url* names, and *settings* with what the URL says put over them.

    Raises InvalidArgumentError (InvalidTypeError) naming the part that is wrong; credentials are never quoted.
    """
    if not isinstance(url, str):
        raise InvalidTypeError(f"the URL is a str, not {type(url).__name__}")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise InvalidArgumentError("the URL's host is malformed; an IPv6 address stands in brackets") from None
    if parts.scheme not in (*_TCP_SCHEMES, _UNIX_SCHEME):
        raise InvalidArgumentError(f"the URL's scheme is memcached, memcacheds or memcached+unix, not {parts.scheme!r}")
    if parts.fragment or any(character.isspace() for character in url):
        raise InvalidArgumentError("the URL has a fragment or white space")
    changes = _credentials(parts) | _query(parts.query)
    if parts.scheme == "memcacheds" and settings.tls is None:
        changes["tls"] = ssl.create_default_context()
    return _node(parts), attrs.evolve(settings, **changes)


def _node(parts: SplitResult) -> Node:
    where = parts.netloc.rpartition("@")[2]
    if parts.scheme == _UNIX_SCHEME:
        if where:
            raise InvalidArgumentError("a unix URL has no host: memcached+unix:///path")
        return Node(f"unix:{unquote(parts.path)}")
    if parts.path not in ("", "/"):
        raise InvalidArgumentError(f"the URL's path is /, not {parts.path!r}")
    if not where:
        raise InvalidArgumentError("the URL names no host: memcached://host:11211")
    if "," in where:
        raise InvalidArgumentError("the URL names several hosts; connect takes one")
    return Node(where)


def _credentials(parts: SplitResult) -> dict[str, Any]:  # Any: values for attrs.evolve, which checks them
    given, at, _ = parts.netloc.rpartition("@")
    if not at:
        return {}
    username, colon, password = given.partition(":")
    if not colon:
        raise InvalidArgumentError("the URL has a user without password: user:password@host")
    return {"username": unquote(username), "password": unquote(password)}


def _query(query: str) -> dict[str, Any]:  # Any: as above
    changes: dict[str, Any] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in _QUERY:
            raise InvalidArgumentError(f"the URL's query has an unknown key {name!r}; known are {', '.join(_QUERY)}")
        if name in changes:
            raise InvalidArgumentError(f"the URL's query has {name!r} twice")
        try:
            changes[name] = _QUERY[name](text)
        except ValueError:
            raise InvalidArgumentError(f"the URL's query: {name} is a number, not {text!r}") from None
    return changes
