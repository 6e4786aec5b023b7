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

__all__ = ["DEFAULT_PORT", "Address", "Node", "TcpAddress", "UnixAddress", "check_node", "nodes_of", "parse_address"]

DEFAULT_PORT: Final = 11211


@final
@attrs.frozen
class TcpAddress:
    """A host (name or IP literal, lower case, IPv6 without brackets) and a port."""

    host: str
    port: int

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

_TCP = re.compile(r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<host>[^\[\]:/@\s]+))(?::(?P<port>[0-9]{1,5}))?", re.ASCII)


def parse_address(text: str | Address) -> Address:
    """Return the normalised address that *text* writes.

    ``"host"``, ``"host:port"``, ``"[::1]:11211"`` and ``"unix:/path"`` are understood; the port is 11211 when left out.

    Raises InvalidArgumentError when *text* is none of these, InvalidTypeError when it is not text.
    """
    if isinstance(text, TcpAddress | UnixAddress):
        return text
    if not isinstance(text, str):
        raise InvalidTypeError(f"an address is a str like 'cache-1:11211', not {type(text).__name__}")
    if text.startswith("unix:"):
        return _unix(text.removeprefix("unix:"))
    match = _TCP.fullmatch(text)
    if match is None:
        raise InvalidArgumentError(f"address {text!r} is not host:port, [ipv6]:port or unix:/path")
    port = int(match["port"]) if match["port"] else DEFAULT_PORT
    if not 1 <= port <= 65535:
        raise InvalidArgumentError(f"address {text!r}: port {port} is not between 1 and 65535")
    return TcpAddress(_ipv6(match["v6"], text) if match["v6"] else match["host"].lower(), port)


def _unix(path: str) -> UnixAddress:
    path = re.sub(r"^//+", "/", path)
    if not path.startswith("/") or len(path) < 2 or "\0" in path:
        raise InvalidArgumentError(f"unix socket path {path!r} is not absolute: write unix:/run/memcached.sock")
    return UnixAddress(path)


def _ipv6(host: str, text: str) -> str:
    try:
        return str(ipaddress.IPv6Address(host))
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
        address: ``"host:port"``, ``"[ipv6]:port"``, ``"unix:/path"`` or an Address.
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
