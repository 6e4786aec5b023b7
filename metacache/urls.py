"""Parses URLs into nodes, or the location of a source of nodes, and settings. Dials nothing.

memcached://[user:password@]host[:port][,host[:port]…]/?weights=2,1&timeout=0.25&pool_size=8
memcacheds://…                         the same over TLS, with verified certificates
memcached+unix:///path?…
memcached+dns://name[:port]/?…         the nodes that the node source "dns" finds; memcacheds+dns://… uses TLS
memory://[name[,name…]]/?…             embedded servers in this process; without a name, a private one

A memcacheds URL loads the certificates of the system. For an invalid URL with a source, the entry point is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias, final, get_args

import attrs

from metacache.errors import InvalidArgumentError, InvalidTypeError
from metacache.nodes import MemoryAddress, Node, TcpAddress, has_surrogate
from metacache.operations.options import ClientOptions
from metacache.settings import OnNodeDown, Settings, check_settings

__all__ = ["Location", "SourceLocation", "parse_url"]

# The keys of the query beside weights: the settings that are not credentials or objects.
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

# Other names that do not belong in the query, with a hint where they belong.
_OF_CLIENTS: Final = "it is a keyword of connect, connect_async and Cluster.client"
_ELSEWHERE: Final[dict[str, str]] = {
    **dict.fromkeys(("serializer", *ClientOptions.__annotations__), _OF_CLIENTS),
    "tls": "write memcacheds:// or pass Settings(tls=...)",
    **dict.fromkeys(("username", "password"), "write memcached://user:password@host or pass it in Settings"),
}

_PARTS: Final = re.compile(
    r"(?P<scheme>[A-Za-z0-9]+(?:\+[A-Za-z0-9_.-]+)?)://(?:(?P<user>[^/?]*)@)?(?P<where>[^/?@]*)(?P<path>/[^?]*)?(?:\?(?P<query>.*))?",
    re.ASCII,
)
_is_plain: Final = re.compile(r"[0-9+.eE-]+", re.ASCII).fullmatch
_SCHEMES: Final = "memcached, memcacheds, memcached+unix, memcached+<source of nodes> or memory"
_FORM: Final = "scheme://[user:password@]host[:port]/?setting=value"

# An error quotes only text that cannot be a part of a password. If a password contains / ? # or @ that is not
# percent-encoded, the rest of it is parsed as a path, a query or a host.
_is_known_scheme: Final = re.compile(
    r"memcacheds?(\+[a-z]+)?|rediss?|valkeys?|https?|tcp|tls|unix|file|memory", re.ASCII | re.IGNORECASE
).fullmatch
_is_name: Final = re.compile(r"[a-z][a-z_]{0,31}", re.ASCII).fullmatch
_is_numeric: Final = re.compile(r"[0-9._+-]{1,12}", re.ASCII).fullmatch


@final
@attrs.frozen
class SourceLocation:
    """The name of a node source, and the host and port where it finds the nodes."""

    name: str
    host: str
    port: int


Location: TypeAlias = tuple[Node, ...] | SourceLocation


def parse_url(url: str, settings: Settings) -> tuple[Location, Settings]:
    """Return the nodes of *url* or the location of their source, and *settings* updated with those of the URL.

    Raises InvalidArgumentError (InvalidTypeError) that names the invalid part. It never quotes credentials.
    """
    if not isinstance(url, str):
        raise InvalidTypeError(f"the URL is a str, not {type(url).__name__}")
    check_settings(settings)
    match = _parts(url)
    base, kind = _scheme(match["scheme"])
    path, query = match["path"] or "", match["query"] or ""
    if "@" in path + query:
        raise InvalidArgumentError("the URL has an @ after its host; write / ? # @ in a password as %2F %3F %23 %40")
    if base == "memory":
        return _memory(match, settings)
    changes = _credentials(match["user"])
    # Parse the hosts before the query: if a password contains a ?, the text before it is probably not a valid host.
    place = _location(kind, match["where"], path)
    fields, weights = _query(query, may_quote=path == "/" or match["user"] is not None)
    if base == "memcacheds" and settings.tls is None:
        import ssl  # late: a client without TLS does not load it

        changes["tls"] = ssl.create_default_context()
    return _with_weights(place, weights), attrs.evolve(settings, **fields, **changes)


def _parts(url: str) -> re.Match[str]:
    if has_surrogate(url):
        raise InvalidArgumentError("the URL contains a lone surrogate: it was read from bytes that are not UTF-8")
    if any(character.isspace() for character in url):
        raise InvalidArgumentError("the URL contains white space")
    if "#" in url:
        raise InvalidArgumentError("the URL has a #, which has no meaning there; in a password write %23")
    if "://" not in url:
        raise InvalidArgumentError(
            f"the URL has no scheme: its form is {_FORM}, for example memcached://localhost:11211"
        )
    match = _PARTS.fullmatch(url)
    if match is None:
        raise InvalidArgumentError(f"the form of a URL is {_FORM}, for example memcached://localhost:11211")
    return match


def _scheme(scheme: str) -> tuple[str, str]:
    """Return memcached, memcacheds or memory, and the part of *scheme* after the + (empty: the URL names the nodes)."""
    base, _, kind = scheme.partition("+")
    if scheme == "memory":
        return base, kind
    is_unix_over_tls = kind == "unix" and base == "memcacheds"
    if base in ("memcached", "memcacheds") and scheme == scheme.lower() and not is_unix_over_tls:
        return base, kind
    quoted = f", not {scheme!r}" if _is_known_scheme(scheme) else ""
    if base.lower() in ("memcached", "memcacheds") and not is_unix_over_tls:
        raise InvalidArgumentError(f"the URL's scheme is written in lower case{quoted}")
    raise InvalidArgumentError(f"the URL's scheme is {_SCHEMES}{quoted}")


_has_broken_escape: Final = re.compile(r"%(?![0-9A-Fa-f]{2})").search


def _decode(text: str, part: str) -> str:
    """Return *text* with its percent-escapes replaced. Raises InvalidArgumentError that names *part*, not the text."""
    if _has_broken_escape(text):
        raise InvalidArgumentError(f"{part} of the URL has a % without two hexadecimal digits; write % as %25")
    return _unescape(text, part)


def _unescape(text: str, part: str) -> str:
    if "%" not in text:
        return text
    from urllib.parse import unquote  # late: few URLs have percent-escapes

    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        pass  # raise below: raised here, the new error would refer to this one, which contains the text
    raise InvalidArgumentError(f"{part} of the URL has percent-escapes that are not UTF-8")


def _location(kind: str, where: str, path: str) -> Location:
    if kind == "unix":
        return (_unix(where, path),)
    if kind and (not where or path not in ("", "/")):
        from metacache.discovery.plugins import load_node_source  # late: only a URL with a source needs it

        load_node_source(kind)  # report a missing source first
    if path not in ("", "/"):
        raise InvalidArgumentError("the URL's path must be empty or /; in a password write / as %2F")
    if not where:
        raise InvalidArgumentError("the URL has no host: write memcached://host:11211")
    nodes = tuple(_node(number, host) for number, host in enumerate(where.split(","), 1))
    if not kind:
        return nodes
    address = nodes[0].address
    if len(nodes) > 1 or not isinstance(address, TcpAddress):
        raise InvalidArgumentError(f"a memcached+{kind} URL has one host: the source finds the nodes")
    return SourceLocation(kind, address.host, address.port)


def _memory(match: re.Match[str], settings: Settings) -> tuple[Location, Settings]:
    """Return the embedded servers of a memory URL, and the settings without TLS and credentials, which they ignore."""
    if match["user"] is not None:
        raise InvalidArgumentError("a memory URL has no user and password: the server is in this process")
    if (match["path"] or "/") != "/":
        raise InvalidArgumentError("the path of a memory URL must be empty or /: write memory://name")
    fields, weights = _query(match["query"] or "", may_quote=True)
    names = match["where"].split(",")
    if len(names) > 1 and "" in names:
        raise InvalidArgumentError("the memory URL has an empty name between its commas")
    from metacache.memory.registry import server_named  # late: only a memory URL needs the embedded server

    nodes = tuple(Node(MemoryAddress(server_named(name))) for name in names)
    complete = attrs.evolve(settings, **fields, tls=None, username=None, password=None)
    return _with_weights(nodes, weights), complete


def _node(number: int, host: str) -> Node:
    try:
        # RFC 6874: the % before a zone is written %25. A bare % is accepted too.
        return Node(_unescape(host, f"host number {number}") if host.startswith("[") else host)
    except InvalidArgumentError:
        pass  # raise below: raised here, the new error would refer to this one, which quotes the host
    raise InvalidArgumentError(f"host number {number} of the URL {_fault(host)}")


def _fault(host: str) -> str:
    """Return what is wrong with *host*. Quotes nothing: without a host in the URL, *host* is a user and a password."""
    if not host:
        return "is empty"
    name, _, port = host.rpartition(":")
    if ":" in name and not name.startswith("["):
        return "has several colons; write an IPv6 address in brackets: [ipv6]:port"
    if name and "]" not in port:
        if not port.isdecimal():
            return "has a port that is not a number"
        if len(port) > len("65535") or not 1 <= int(port) <= 65535:
            return "has a port that is not between 1 and 65535"
    return "is not host:port or [ipv6]:port"


def _unix(where: str, path: str) -> Node:
    if where:
        raise InvalidArgumentError("a unix URL has no host: write memcached+unix:///path")
    return Node(f"unix:{_decode(path, 'the path')}")


def _with_weights(nodes: Location, weights: Sequence[float] | None) -> Location:
    if weights is None:
        return nodes
    if isinstance(nodes, SourceLocation):
        raise InvalidArgumentError(f"a memcached+{nodes.name} URL has no weights: the source finds the nodes")
    if len(weights) != len(nodes):
        raise InvalidArgumentError(f"the URL's query: {len(weights)} weights for {len(nodes)} hosts")
    return tuple(Node(node.address, weight=weight) for node, weight in zip(nodes, weights, strict=True))


def _credentials(
    given: str | None,
) -> dict[str, Any]:  # Any: values of every type for attrs.evolve; Settings checks them
    if given is None:
        return {}
    username, colon, password = given.partition(":")
    if not colon:
        raise InvalidArgumentError("the URL has a user without a password: write user:password@host")
    return {"username": _decode(username, "the user"), "password": _decode(password, "the password")}


def _query(query: str, *, may_quote: bool) -> tuple[dict[str, Any], Sequence[float] | None]:  # Any: as above
    """Return the settings and the weights of *query*. *may_quote*: an error may quote an unknown key."""
    changes: dict[str, Any] = {}
    weights: Sequence[float] | None = None
    seen: set[str] = set()
    for number, field in enumerate(filter(None, query.split("&")), 1):
        name, equals, text = (_decode(part.replace("+", " "), "the query") for part in field.partition("="))
        if name != "weights" and name not in _QUERY:
            is_quoted = name in _ELSEWHERE or (may_quote and equals and _is_name(name))
            quoted = repr(name) if is_quoted else f"number {number}"
            hint = _ELSEWHERE.get(name) or f"the keys are {', '.join(('weights', *_QUERY))}"
            raise InvalidArgumentError(f"the URL's query has an unknown key {quoted}; {hint}")
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
    if text not in (words := get_args(OnNodeDown)):  # checked here, because the error of Settings quotes the text
        raise InvalidArgumentError(f"the URL's query: {name} is {' or '.join(map(repr, words))}")
    return text


def _number(name: str, read: Callable[[str], Any], text: str) -> Any:  # Any: int or float, as *read* makes
    wanted = "a whole number" if read is int else "a number"
    try:
        if _is_plain(text):  # int() and float() accept other forms, such as 1_0
            return read(text)
    except ValueError:
        pass  # raise below: raised here, the new error would refer to this one, which quotes the text
    quoted = f", not {text!r}" if _is_numeric(text) else ""
    raise InvalidArgumentError(f"the URL's query: {name} is {wanted}{quoted}")
