"""`Node` and its address: parses and normalises addresses, checks weights and names. Resolves and dials nothing."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, TypeAlias, final

import attrs

from metacache.errors import InvalidArgumentError, InvalidTypeError
from metacache.marks import override

if TYPE_CHECKING:
    from metacache.sessions import LocalServer

__all__ = [
    "DEFAULT_PORT",
    "Address",
    "MemoryAddress",
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
    """A host and a port, and the name that the server's TLS certificate must have.

    Attributes:
        host: a name or an IP literal, in lower case, IPv6 without brackets; ``fe80::1%eth0`` has a zone.
        port: the TCP port.
        server_hostname: the name that the server's certificate must have; None: *host*. It is sent as SNI, and it is
            not part of a node's identity. Use only a name that the user wrote or that a verified server sent: an
            attacker who chooses this name can impersonate the server.
    """

    host: str
    port: int
    server_hostname: str | None = None

    @property
    def certificate_name(self) -> str:
        """The name or IP address that the server's certificate must have."""
        name = self.host.partition("%")[0] if self.server_hostname is None else self.server_hostname
        return name.rstrip(".") or name  # certificates have no trailing dot

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


@final
@attrs.frozen
class MemoryAddress:
    """A server in this process (``memory://``). It is the address of its own server only, whatever the name."""

    server: LocalServer

    @override
    def __str__(self) -> str:
        return f"memory://{self.server.name}"


Address: TypeAlias = TcpAddress | UnixAddress | MemoryAddress

_TCP = re.compile(r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<host>[^\[\]:/@\s\x00-\x1f\x7f]+))(?::(?P<port>[0-9]{1,5}))?", re.ASCII)


def parse_address(text: str | Address) -> Address:
    """Return the normalised address for *text*.

    *text* is ``"host"``, ``"host:port"``, ``"[::1]:11211"``, ``"[fe80::1%eth0]"`` or ``"unix:/path"``. The default port
    is 11211. Hosts become lower case; a zone and a path keep their case.

    Raises InvalidArgumentError if *text* has another form, InvalidTypeError if it is not a str or an Address.
    """
    if isinstance(text, MemoryAddress):
        return text
    if isinstance(text, UnixAddress):
        return _unix(text.path)
    if isinstance(text, TcpAddress):
        return attrs.evolve(_tcp(str(text)), server_hostname=_check_hostname(text.server_hostname))
    if not isinstance(text, str):
        raise InvalidTypeError(f"an address is a str like 'cache-1:11211', not {type(text).__name__}")
    path = text.removeprefix("unix:")
    # A host may be called "unix", and its text with the port is "unix:11211".
    return _tcp(text) if path == text or path.isdecimal() else _unix(path)


def _tcp(text: str) -> TcpAddress:
    _refuse_surrogate(text)
    match = _TCP.fullmatch(text)
    if match is None and ("@" in text or "://" in text):  # the text may contain a password, so the error omits it
        raise InvalidArgumentError("an address is host:port, [ipv6]:port or unix:/path; connect(url) takes a URL")
    if match is None:
        raise InvalidArgumentError(f"address {text!r} is not host:port, [ipv6]:port or unix:/path")
    port = int(match["port"]) if match["port"] else DEFAULT_PORT
    if not 1 <= port <= 65535:
        raise InvalidArgumentError(f"address {text!r}: port {port} is not between 1 and 65535")
    return TcpAddress(_ipv6(match["v6"], text) if match["v6"] else match["host"].lower(), port)


def _refuse_surrogate(text: str) -> None:
    if has_surrogate(text):
        raise InvalidArgumentError("an address contains a lone surrogate, which represents a byte that is not UTF-8")


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
        raise InvalidArgumentError(f"a unix socket path of {size} bytes is too long: the limit is {LONGEST_PATH} bytes")
    return UnixAddress(path)


# RFC 6874: unreserved characters. An interface name has at most 15 characters and may contain a colon ("eth0:1").
_is_zone = re.compile(r"[A-Za-z0-9._~:-]{1,15}", re.ASCII).fullmatch


def _ipv6(host: str, text: str) -> str:
    literal, percent, zone = host.partition("%")
    if percent and not _is_zone(zone):
        raise InvalidArgumentError(f"address {text!r}: % must be followed by the name or number of a network interface")
    import ipaddress  # late: only an address with an IPv6 literal needs it

    try:
        return f"{ipaddress.IPv6Address(literal)}{percent}{zone}"
    except ValueError:
        raise InvalidArgumentError(f"address {text!r}: {host!r} is not an IPv6 address") from None


def _check_weight(weight: float) -> float:
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise InvalidTypeError(f"a node's weight is a number, not {type(weight).__name__}")
    try:
        number = float(weight)
    except OverflowError:  # an int that is too large for a float
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
        address: ``"host:port"``, ``"[ipv6]:port"``, ``"unix:/path"`` (at most 107 bytes) or an Address.
        weight: the share of the keys, relative to the other nodes; 0 drains the node.
        name: the identity that is hashed for routing; None: the normalised address. A server with a name can change
            its address and keep its keys.

    Raises InvalidArgumentError if an argument is malformed, InvalidTypeError if it has a wrong type.
    """

    address: Address
    weight: float
    name: str

    def __init__(self, address: str | Address, *, weight: float = 1.0, name: str | None = None) -> None:
        parsed = parse_address(address)
        identity = str(parsed) if name is None else _check_name(name)
        # attrs generates __attrs_init__, and pyright does not know it.
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
    """Return *nodes* as a tuple.

    Raises InvalidTypeError if they are not an iterable of Node, and InvalidArgumentError if there are none, or two of
    one name.
    """
    try:
        given = tuple(nodes)
    except TypeError:
        raise InvalidTypeError(f"nodes is an iterable of Node, not {type(nodes).__name__}") from None
    if not given:
        raise InvalidArgumentError("there are no nodes to route to; give at least one")
    for node in given:
        if not isinstance(node, Node):
            raise InvalidTypeError(f"nodes must be an iterable of Node, but it contains {type(node).__name__}")
    duplicates = sorted([name for name, count in Counter([node.name for node in given]).items() if count > 1])
    if duplicates:
        raise InvalidArgumentError(
            f"two nodes have the name {duplicates[0]!r}; give each node its own name, because routing hashes it"
        )
    return given
