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
from typing import Any, Final, TypeAlias, final, get_args
from urllib.parse import unquote

import attrs

from metacache.discovery import load_node_source
from metacache.errors import InvalidArgumentError, InvalidTypeError
from metacache.nodes import Node, UnixAddress, has_surrogate
from metacache.operations.options import ClientOptions
from metacache.settings import OnNodeDown, Settings, check_settings

__all__ = ["Location", "SourceOfNodes", "parse_url"]

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

# Further names that do not belong in the query, and where they belong.
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
_FORM: Final = "scheme://[user:password@]host[:port]/?setting=value"

# An error quotes only parts that are not of a password: where / ? # or @ in one were not percent-encoded, the rest
# of the password is read as a path, a query or a host.
_is_known_scheme: Final = re.compile(
    r"memcacheds?(\+[a-z]+)?|rediss?|valkeys?|https?|tcp|tls|unix|file|memory", re.ASCII | re.IGNORECASE
).fullmatch
_is_name: Final = re.compile(r"[a-z][a-z_]{0,31}", re.ASCII).fullmatch
_is_numeric: Final = re.compile(r"[0-9._+-]{1,12}", re.ASCII).fullmatch


@final
@attrs.frozen
class SourceOfNodes:
    """The nodes are what the source *name* finds at *host* and *port*."""

    name: str
    host: str
    port: int


Location: TypeAlias = tuple[Node, ...] | SourceOfNodes


def parse_url(url: str, settings: Settings) -> tuple[Location, Settings]:
    """Return where the nodes are that *url* names, and *settings* with what the URL says put over them.

    Raises InvalidArgumentError (InvalidTypeError) naming the part that is wrong; credentials are never quoted.
    """
    if not isinstance(url, str):
        raise InvalidTypeError(f"the URL is a str, not {type(url).__name__}")
    check_settings(settings)
    match = _parts(url)
    base, kind = _scheme(match["scheme"])
    path, query = match["path"] or "", match["query"] or ""
    if "@" in path + query:
        raise InvalidArgumentError("the URL has an @ behind its host; write / ? # @ in a password as %2F %3F %23 %40")
    changes = _credentials(match["user"])
    # The hosts before the query: where a password holds a ?, the host in front of it is most likely none.
    place = _place(kind, match["where"], path)
    fields, weights = _query(query, may_quote=path == "/" or match["user"] is not None)
    if base == "memcacheds" and settings.tls is None:
        changes["tls"] = ssl.create_default_context()
    return _weighted(place, weights), attrs.evolve(settings, **fields, **changes)


def _parts(url: str) -> re.Match[str]:
    if has_surrogate(url):
        raise InvalidArgumentError("the URL holds a lone surrogate: it was read from bytes that are not UTF-8")
    if any(character.isspace() for character in url):
        raise InvalidArgumentError("the URL holds white space")
    if "#" in url:
        raise InvalidArgumentError("the URL has a #, which means nothing in it; in a password write %23")
    if "://" not in url:
        raise InvalidArgumentError(
            f"the URL has no scheme: it is not written {_FORM}; memcached://localhost:11211 is an example"
        )
    match = _PARTS.fullmatch(url)
    if match is None:
        raise InvalidArgumentError(f"the URL is not written {_FORM}; memcached://localhost:11211 is an example")
    return match


def _scheme(scheme: str) -> tuple[str, str]:
    """Return the protocol that *scheme* names, and the source of the nodes (empty: the URL names them)."""
    base, _, kind = scheme.partition("+")
    is_unix_over_tls = kind == "unix" and base == "memcacheds"
    if base in ("memcached", "memcacheds") and scheme == scheme.lower() and not is_unix_over_tls:
        return base, kind
    shown = f", not {scheme!r}" if _is_known_scheme(scheme) else ""
    if base.lower() in ("memcached", "memcacheds") and not is_unix_over_tls:
        raise InvalidArgumentError(f"the URL's scheme is written in lower case{shown}")
    raise InvalidArgumentError(f"the URL's scheme is {_SCHEMES}{shown}")


_has_broken_escape: Final = re.compile(r"%(?![0-9A-Fa-f]{2})").search


def _decoded(text: str, part: str) -> str:
    """Return *text* with its percent-escapes replaced. Raises InvalidArgumentError that names *part* and no byte."""
    if _has_broken_escape(text):
        raise InvalidArgumentError(f"{part} of the URL has a % without two hexadecimal digits; write % as %25")
    return _unescaped(text, part)


def _unescaped(text: str, part: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        pass  # raised below instead of here, because this error contains the text
    raise InvalidArgumentError(f"{part} of the URL has percent-escapes that are not UTF-8")


def _place(kind: str, where: str, path: str) -> Location:
    if kind == "unix":
        return (_unix(where, path),)
    if kind and (not where or path not in ("", "/")):
        load_node_source(kind)  # a source that is not installed is reported before the rest
    if path not in ("", "/"):
        raise InvalidArgumentError("the URL's path is /, and nothing behind it; in a password write / as %2F")
    if not where:
        raise InvalidArgumentError("the URL names no host: memcached://host:11211")
    nodes = tuple(_node(number, host) for number, host in enumerate(where.split(","), 1))
    if not kind:
        return nodes
    address = nodes[0].address
    if len(nodes) > 1 or isinstance(address, UnixAddress):
        raise InvalidArgumentError(f"a URL of {kind} names one host: the source finds the nodes")
    return SourceOfNodes(kind, address.host, address.port)


def _node(number: int, host: str) -> Node:
    try:
        # RFC 6874: the % before a zone is written %25; a bare % is taken too.
        return Node(_unescaped(host, f"host number {number}") if host.startswith("[") else host)
    except InvalidArgumentError:
        pass  # raised below instead of here, because this error quotes the host
    raise InvalidArgumentError(f"host number {number} of the URL {_fault(host)}")


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
    return Node(f"unix:{_decoded(path, 'the path')}")


def _weighted(nodes: Location, weights: Sequence[float] | None) -> Location:
    if weights is None:
        return nodes
    if isinstance(nodes, SourceOfNodes):
        raise InvalidArgumentError(f"a URL of {nodes.name} has no weights: the source finds the nodes")
    if len(weights) != len(nodes):
        raise InvalidArgumentError(f"the URL's query: {len(weights)} weights for {len(nodes)} hosts")
    return tuple(Node(node.address, weight=weight) for node, weight in zip(nodes, weights, strict=True))


def _credentials(given: str | None) -> dict[str, Any]:  # Any: values for attrs.evolve, which checks them
    if given is None:
        return {}
    username, colon, password = given.partition(":")
    if not colon:
        raise InvalidArgumentError("the URL has a user without password: user:password@host")
    return {"username": _decoded(username, "the user"), "password": _decoded(password, "the password")}


def _query(query: str, *, may_quote: bool) -> tuple[dict[str, Any], Sequence[float] | None]:  # Any: as above
    """Return the settings and the weights of *query*; *may_quote*: an unknown key may be quoted."""
    changes: dict[str, Any] = {}
    weights: Sequence[float] | None = None
    seen: set[str] = set()
    for number, field in enumerate(filter(None, query.split("&")), 1):
        name, equals, text = (_decoded(part.replace("+", " "), "the query") for part in field.partition("="))
        if name != "weights" and name not in _QUERY:
            is_quoted = name in _ELSEWHERE or (may_quote and equals and _is_name(name))
            shown = repr(name) if is_quoted else f"number {number}"
            hint = _ELSEWHERE.get(name) or f"known are {', '.join(('weights', *_QUERY))}"
            raise InvalidArgumentError(f"the URL's query has an unknown key {shown}; {hint}")
        if name in seen:
            raise InvalidArgumentError(f"the URL's query has {name!r} twice")
        seen.add(name)
        if name == "weights":
            weights = [_number(name, float, part) for part in text.split(",")]
        else:
            changes[name] = _setting(name, text)
    return changes, weights


def _setting(name: str, text: str) -> float | str:
    read = _QUERY[name]
    if read is not str:
        number: float = _number(name, read, text)
        return number
    if text not in (words := get_args(OnNodeDown)):  # checked here, because the error of Settings quotes it
        raise InvalidArgumentError(f"the URL's query: {name} is {' or '.join(map(repr, words))}")
    return text


def _number(name: str, read: Callable[[str], Any], text: str) -> Any:  # Any: int or float, as *read* makes
    wanted = "a whole number" if read is int else "a number"
    try:
        if _is_plain(text):  # Python reads more as a number: 1_0, for one
            return read(text)
    except ValueError:
        pass  # raised below instead of here, because this error quotes the text
    shown = f", not {text!r}" if _is_numeric(text) else ""
    raise InvalidArgumentError(f"the URL's query: {name} is {wanted}{shown}")
