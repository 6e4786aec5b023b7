"""Node and Address: which server, and its share of the keys.

Knows how an address is written and normalised; never dials, never resolves.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Iterable
from typing import Final, TypeAlias, final

import attrs
from typing_extensions import override

from metacache.errors import InvalidArgumentError, InvalidTypeError

__all__ = [
    "DEFAULT_PORT",
    "Address",
    "Node",
    "TcpAddress",
    "UnixAddress",
    "check_node",
    "has_surrogate",
    "nodes_of",
    "parse_address",
]

DEFAULT_PORT: Final = 11211
# unix(7): sun_path has 108 bytes, and the last one is NUL.
LONGEST_PATH: Final = 107  # bytes

# A lone surrogate is not a character: UTF-8 cannot encode it. `os.environ` makes one of each byte that is not UTF-8.
has_surrogate: Final = re.compile(r"[\ud800-\udfff]").search


@final
@attrs.frozen
class TcpAddress:
    """A host and a port, and the name in the server's TLS certificate.

    Attributes:
        host: a name or an IP literal: lower case, IPv6 without brackets; ``fe80::1%eth0`` has a zone.
        port: the TCP port.
        server_hostname: the name that the server's certificate must have, if that is not *host*; sent as SNI. It is
            not part of a node's identity. Give one only if the user wrote it or a verified server sent it: an attacker
            who chooses this name can impersonate the server.
    """

    host: str
    port: int
    server_hostname: str | None = None

    @property
    def certificate_name(self) -> str:
        """The name or IP address that the server's certificate must have."""
        name = self.host.partition("%")[0] if self.server_hostname is None else self.server_hostname
        return name.rstrip(".") or name  # the dot of the root is in no certificate

    @override
    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@final
@attrs.frozen
class UnixAddress:
    """The path of a unix stream socket."""

    path: str

    @override
    def __str__(self) -> str:
        return f"unix:{self.path}"


Address: TypeAlias = TcpAddress | UnixAddress

_TCP = re.compile(r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<host>[^\[\]:/@\s\x00-\x1f\x7f]+))(?::(?P<port>[0-9]{1,5}))?", re.ASCII)


def parse_address(text: str | Address) -> Address:
    """Return the normalised address that *text* writes.

    ``"host"``, ``"host:port"``, ``"[::1]:11211"``, ``"[fe80::1%eth0]"`` and ``"unix:/path"`` are understood; the port
    is 11211 when left out. Only the zone behind ``%`` keeps its case.

    Raises InvalidArgumentError when *text* is none of these, InvalidTypeError when it is not text.
    """
    if isinstance(text, UnixAddress):
        return _unix(text.path)
    if isinstance(text, TcpAddress):
        return attrs.evolve(_tcp(str(text)), server_hostname=_check_hostname(text.server_hostname))
    if not isinstance(text, str):
        raise InvalidTypeError(f"an address is a str like 'cache-1:11211', not {type(text).__name__}")
    return _unix(text.removeprefix("unix:")) if text.startswith("unix:") else _tcp(text)


def _tcp(text: str) -> TcpAddress:
    _refuse_surrogate(text)
    match = _TCP.fullmatch(text)
    if match is None and ("@" in text or "://" in text):  # not quoted: it may hold a password
        raise InvalidArgumentError("an address is host:port, [ipv6]:port or unix:/path; connect(url) takes a URL")
    if match is None:
        raise InvalidArgumentError(f"address {text!r} is not host:port, [ipv6]:port or unix:/path")
    port = int(match["port"]) if match["port"] else DEFAULT_PORT
    if not 1 <= port <= 65535:
        raise InvalidArgumentError(f"address {text!r}: port {port} is not between 1 and 65535")
    return TcpAddress(_ipv6(match["v6"], text) if match["v6"] else match["host"].lower(), port)


def _refuse_surrogate(text: str) -> None:
    if has_surrogate(text):
        raise InvalidArgumentError("an address holds a lone surrogate, which stands for a byte that is not UTF-8")


def _check_hostname(name: str | None) -> str | None:
    if name is None:
        return None
    if not isinstance(name, str):
        raise InvalidTypeError(f"a server_hostname is a str or None, not {type(name).__name__}")
    if not name or name.startswith(".") or has_surrogate(name) or "\0" in name:
        raise InvalidArgumentError("a server_hostname is a host name or an IP address")
    return name


def _unix(path: str) -> UnixAddress:
    _refuse_surrogate(path)
    path = re.sub(r"^//+", "/", path)
    if not path.startswith("/") or len(path) < 2 or "\0" in path:
        raise InvalidArgumentError(f"unix socket path {path!r} is not absolute: write unix:/run/memcached.sock")
    if (size := len(path.encode())) > LONGEST_PATH:
        raise InvalidArgumentError(f"a unix socket path of {size} bytes is too long: the system takes {LONGEST_PATH}")
    return UnixAddress(path)


# RFC 6874: unreserved characters; an interface has 15 of them at most, and "eth0:1" is one.
_is_zone = re.compile(r"[A-Za-z0-9._~:-]{1,15}", re.ASCII).fullmatch


def _ipv6(host: str, text: str) -> str:
    literal, percent, zone = host.partition("%")
    if percent and not _is_zone(zone):
        raise InvalidArgumentError(f"address {text!r}: behind % stands the name or number of a network interface")
    try:
        return f"{ipaddress.IPv6Address(literal)}{percent}{zone}"
    except ValueError:
        raise InvalidArgumentError(f"address {text!r}: {host!r} is not an IPv6 address") from None


def _check_weight(weight: float) -> float:
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise InvalidTypeError(f"a node's weight is a number, not {type(weight).__name__}")
    try:
        number = float(weight)
    except OverflowError:  # an int beyond what a float can hold
        number = math.inf
    if not (math.isfinite(number) and number >= 0):
        raise InvalidArgumentError(f"a node's weight is finite and not negative, not {number}")
    return number


def _check_name(name: str) -> str:
    if not isinstance(name, str):
        raise InvalidTypeError(f"a node's name is a str, not {type(name).__name__}")
    if not name:
        raise InvalidArgumentError("a node's name is not empty")
    return name


@final
@attrs.frozen(init=False)
class Node:
    """One memcached server and its share of the keys.

    Args:
        address: ``"host:port"``, ``"[ipv6]:port"``, ``"unix:/path"`` (107 bytes at most) or an Address.
        weight: the node's share relative to the others; 0 drains it.
        name: the identity that is hashed when keys are routed; default: the normalised address. Give one to let a
            server change its address and keep its keys.

    Raises InvalidArgumentError (InvalidTypeError for a wrong type) on a malformed part.
    """

    address: Address
    weight: float
    name: str

    def __init__(self, address: str | Address, *, weight: float = 1.0, name: str | None = None) -> None:
        parsed = parse_address(address)
        identity = str(parsed) if name is None else _check_name(name)
        # attrs makes __attrs_init__; pyright does not know of it.
        self.__attrs_init__(  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
            parsed, _check_weight(weight), identity
        )

    @override
    def __str__(self) -> str:
        return self.name


def check_node(node: object) -> None:
    """Raise InvalidTypeError unless *node* is a Node."""
    if not isinstance(node, Node):
        raise InvalidTypeError(f"a connection is to a Node, not {type(node).__name__}; Node('cache-1:11211') makes one")


def nodes_of(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """Return *nodes*, whatever they were given as. Raises InvalidTypeError when they are no iterable."""
    try:
        return tuple(nodes)
    except TypeError:
        raise InvalidTypeError(f"nodes is an iterable of Node, not {type(nodes).__name__}") from None
