"""How a URL says where the servers are and how to speak to them. Pure but for making a TLS context; dials nothing.

memcached://[user:password@]host[:port][,host[:port]…]/?weights=2,1&timeout=0.25&pool_size=8
memcacheds://…                         the same over TLS, certificates verified
memcached+unix:///path?…
memcached+dns://name[:port]/?…         what the source of nodes called "dns" finds there; memcacheds+dns:// over TLS
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias, final
from urllib.parse import parse_qsl, unquote

import attrs

from metacache.discovery import load_node_source
from metacache.errors import InvalidArgumentError, InvalidTypeError
from metacache.nodes import Node, UnixAddress
from metacache.options import ClientOptions
from metacache.settings import Settings

__all__ = ["Place", "SourceOfNodes", "parse_url"]

# What may stand in the query beside weights: the settings that are not credentials and no objects.
_QUERY: Final[dict[str, Callable[[str], float | str]]] = {
    "timeout": float,
    "connect_timeout": float,
    "keepalive": int,
    "max_value_size": int,
    "max_reply_size": int,
    "pool_size": int,
    "pool_min_idle": int,
    "pool_max_idle_time": float,
    "pool_wait": float,
    "max_lifetime": float,
    "max_pipeline": int,
    "max_in_flight": int,
    "on_node_down": str,
    "poll_interval": float,
    "change_interval": float,
}

# Where else to say what is looked for in vain in the query.
_OF_CLIENTS: Final = "it is a keyword of connect, connect_async and Cluster.client"
_ELSEWHERE: Final[dict[str, str]] = {
    **dict.fromkeys(("serializer", *ClientOptions.__annotations__), _OF_CLIENTS),
    "tls": "write memcacheds:// or give Settings(tls=...)",
    **dict.fromkeys(("username", "password"), "write memcached://user:password@host or give it in Settings"),
}

_PARTS: Final = re.compile(
    r"(?P<scheme>[A-Za-z0-9]+(?:\+[A-Za-z0-9_.-]+)?)://(?:(?P<user>[^/?]*)@)?(?P<where>[^/?@]*)(?P<path>/[^?]*)?(?:\?(?P<query>.*))?",
    re.ASCII,
)
_is_plain: Final = re.compile(r"[0-9+.eE-]+", re.ASCII).fullmatch
_SCHEMES: Final = "memcached, memcacheds, memcached+unix or memcached+<source of nodes>"


@final
@attrs.frozen
class SourceOfNodes:
    """The nodes are what the source *name* finds at *host* and *port*."""

    name: str
    host: str
    port: int


Place: TypeAlias = tuple[Node, ...] | SourceOfNodes


def parse_url(url: str, settings: Settings) -> tuple[Place, Settings]:
    """Return where the nodes are that *url* names, and *settings* with what the URL says put over them.

    Raises InvalidArgumentError (InvalidTypeError) naming the part that is wrong; credentials are never quoted.
    """
    if not isinstance(url, str):
        raise InvalidTypeError(f"the URL is a str, not {type(url).__name__}")
    if any(character.isspace() for character in url):
        raise InvalidArgumentError("the URL holds white space")
    if "#" in url:
        raise InvalidArgumentError("the URL has a #, which means nothing in it; in a password write %23")
    match = _PARTS.fullmatch(url)
    if match is None:
        raise InvalidArgumentError("the URL is not written scheme://[user:password@]host[:port]/?setting=value")
    if match["scheme"] != match["scheme"].lower():
        raise InvalidArgumentError(f"the URL's scheme is written in lower case, not {match['scheme']!r}")
    base, _, kind = match["scheme"].partition("+")
    if base not in ("memcached", "memcacheds") or (kind == "unix" and base == "memcacheds"):
        raise InvalidArgumentError(f"the URL's scheme is {_SCHEMES}, not {match['scheme']!r}")
    if "@" in (match["path"] or "") + (match["query"] or ""):
        raise InvalidArgumentError("the URL has an @ behind its host; write / ? # @ in a password as %2F %3F %23 %40")
    changes, weights = _query(match["query"] or "")
    changes |= _credentials(match["user"])
    if base == "memcacheds" and settings.tls is None:
        changes["tls"] = ssl.create_default_context()
    return _place(kind, match["where"], match["path"] or "", weights), attrs.evolve(settings, **changes)


def _place(kind: str, where: str, path: str, weights: Sequence[float] | None) -> Place:
    if kind == "unix":
        return _weighted((_unix(where, path),), weights)
    if kind and (not where or path not in ("", "/")):
        load_node_source(kind)  # a source that is not installed is told before the rest
    if path not in ("", "/"):
        raise InvalidArgumentError(f"the URL's path is /, not {path!r}")
    if not where:
        raise InvalidArgumentError("the URL names no host: memcached://host:11211")
    nodes = tuple(_node(number, host) for number, host in enumerate(where.split(","), 1))
    if not kind:
        return _weighted(nodes, weights)
    address = nodes[0].address
    if weights is not None or len(nodes) > 1 or isinstance(address, UnixAddress):
        raise InvalidArgumentError(f"a URL of {kind} names one host, and no weights: the source tells the nodes")
    return SourceOfNodes(kind, address.host, address.port)


def _node(number: int, host: str) -> Node:
    try:
        return Node(host)
    except InvalidArgumentError:
        raise InvalidArgumentError(f"host number {number} of the URL {_fault(host)}") from None


def _fault(host: str) -> str:
    """Say what is wrong with *host*, and quote nothing: where the host was forgotten it is a user and password."""
    if not host:
        return "is empty"
    name, _, port = host.rpartition(":")
    if ":" in name and not name.startswith("["):
        return "has several colons; IPv6 stands in brackets: [ipv6]:port"
    if name and "]" not in port:
        if not port.isdecimal():
            return "has a port that is no number"
        if len(port) > len("65535") or not 1 <= int(port) <= 65535:
            return "has a port that is not between 1 and 65535"
    return "is not host:port or [ipv6]:port"


def _unix(where: str, path: str) -> Node:
    if where:
        raise InvalidArgumentError("a unix URL has no host: memcached+unix:///path")
    return Node(f"unix:{unquote(path)}")


def _weighted(nodes: tuple[Node, ...], weights: Sequence[float] | None) -> tuple[Node, ...]:
    if weights is None:
        return nodes
    if len(weights) != len(nodes):
        raise InvalidArgumentError(f"the URL's query: {len(weights)} weights for {len(nodes)} hosts")
    return tuple(Node(node.address, weight=weight) for node, weight in zip(nodes, weights, strict=True))


def _credentials(given: str | None) -> dict[str, Any]:  # Any: values for attrs.evolve, which checks them
    if given is None:
        return {}
    username, colon, password = given.partition(":")
    if not colon:
        raise InvalidArgumentError("the URL has a user without password: user:password@host")
    return {"username": unquote(username), "password": unquote(password)}


def _query(query: str) -> tuple[dict[str, Any], Sequence[float] | None]:  # Any: as above
    changes: dict[str, Any] = {}
    weights: Sequence[float] | None = None
    seen: set[str] = set()
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name in seen:
            raise InvalidArgumentError(f"the URL's query has {name!r} twice")
        seen.add(name)
        if name == "weights":
            weights = [_number(name, float, part) for part in text.split(",")]
        elif name in _QUERY:
            changes[name] = text if _QUERY[name] is str else _number(name, _QUERY[name], text)
        else:
            hint = _ELSEWHERE.get(name) or f"known are {', '.join(('weights', *_QUERY))}"
            raise InvalidArgumentError(f"the URL's query has an unknown key {name!r}; {hint}")
    return changes, weights


def _number(name: str, read: Callable[[str], Any], text: str) -> Any:  # Any: int or float, as *read* makes
    try:
        if not _is_plain(text):  # Python reads more as a number: 1_0, for one
            raise ValueError
        return read(text)
    except ValueError:
        wanted = "a whole number" if read is int else "a number"
        raise InvalidArgumentError(f"the URL's query: {name} is {wanted}, not {text!r}") from None
