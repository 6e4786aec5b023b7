"""`DnsSource`: looks up the addresses of a name, and the names of these addresses. Connects to no node."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Final, final

from metacache.copying import refuse_copy
from metacache.discovery.dns_names import named_nodes
from metacache.discovery.hosts import tcp_address
from metacache.errors import ConnectError
from metacache.marks import override
from metacache.nodes import Node
from metacache.settings import Settings

__all__ = ["DnsSource", "dns_source"]

# Seconds. Without this limit, a resolver that does not answer reverse lookups would delay a poll for each address.
NAMING_TIME: Final = 5.0


@final
class DnsSource:
    """The nodes behind the A and AAAA records of one name, such as a headless service of Kubernetes.

    The PTR record of an address, as pods of a StatefulSet have it, is the name of its node. A node keeps its keys when
    its name moves to another address. Two addresses with the same name are one node. An address without a name is a
    node of its own.

    If there are addresses of both families, most servers have one of each, and no server may become two nodes. So an
    IPv6 address makes no node if it has no name, or if an IPv4 address has no name.

    The client dials the addresses. With TLS, every node needs a certificate for *name*, which the user wrote. A
    certificate for the node's own name is not accepted: an attacker who controls DNS could choose that name.

    Args:
        name: the name to look up.
        port: the port of every node.
        weight: the weight of every node.
        naming_time: seconds after which a poll looks up no more names of addresses; 0: it looks up none.

    Raises InvalidArgumentError if *name* is not a host name or *port* is not a port.
    """

    __reduce_ex__ = refuse_copy

    def __init__(self, name: str, port: int, *, weight: float = 1.0, naming_time: float = NAMING_TIME) -> None:
        self._service = Node(tcp_address(name, port), weight=weight)
        self._host = name
        self._port = port
        self._naming_time = naming_time
        self._known: Mapping[str, str | None] = {}

    @override
    def __repr__(self) -> str:
        return f"<DnsSource {self._service.name}>"

    def poll(self) -> Sequence[Node]:
        """Return the current nodes. Raises ConnectError if the name cannot be resolved."""
        self._known = self._names(self._addresses())
        return named_nodes(self._known, self._port, weight=self._service.weight, server_hostname=self._host)

    def _addresses(self) -> Sequence[str]:
        try:
            found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # UnicodeError: a label that IDNA refuses
            problem = f"the name {self._host!r} could not be resolved; does the DNS have A or AAAA records for it?"
            raise ConnectError(problem, node=self._service.name) from error
        return [_literal(address) for _, _, _, _, address in found]

    def _names(self, addresses: Sequence[str]) -> Mapping[str, str | None]:
        # If one lookup fails, the address keeps the name of an earlier poll. Without that, the node would change its
        # identity, and its keys would move.
        until = monotonic() + self._naming_time
        return {
            address: (_name_of(address) if monotonic() < until else None) or self._known.get(address)
            for address in addresses
        }


def _literal(address: Sequence[object]) -> str:
    """Return the IP literal of a socket address, with the zone if an IPv6 address has one."""
    zone = address[3] if len(address) > 3 else 0
    return f"{address[0]}%{zone}" if zone and "%" not in str(address[0]) else str(address[0])


def _name_of(address: str) -> str | None:
    try:
        return socket.getnameinfo((address, 0), socket.NI_NAMEREQD)[0]
    except (OSError, UnicodeError):
        return None


def dns_source(host: str, port: int, /, *, settings: Settings) -> DnsSource:  # noqa: ARG001 - as every factory
    """Return the source for ``memcached+dns://host:port``."""
    return DnsSource(host, port)
