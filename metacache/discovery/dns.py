"""`DnsSource`: asks the resolver which addresses a name has, and which names these have. Speaks to no node."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Final, final

from typing_extensions import override

from metacache.copying import refuse_copy
from metacache.discovery.dns_names import named_nodes
from metacache.discovery.hosts import tcp_address
from metacache.errors import ConnectError
from metacache.nodes import Node
from metacache.settings import Settings

__all__ = ["DnsSource", "dns_source"]

# A resolver that never answers the question for a name takes its time for each address.
NAMING_TIME: Final = 5.0


@final
class DnsSource:
    """The A and AAAA addresses behind one name, as of a headless service of Kubernetes.

    An address that has a name (a PTR record: pods of a StatefulSet have one) is a node of that name, and keeps its keys
    when the name moves to another address. Two addresses of one name are one node. An address that never had a name is
    a node by itself. Where there are addresses of both families, IPv6 addresses make a node only if all addresses have
    names: without names nothing shows which of them belong to one server, and no server may count twice.

    Nodes are dialled at their addresses. Over TLS each must have a certificate for *name*, which the user wrote. A
    certificate for its own name is not enough: that name comes from DNS, and an attacker of DNS could choose it.

    Args:
        name: the name to look up.
        port: the port of every node.
        weight: the weight of every node.
        naming_time: seconds in one poll after which no further address is asked for its name; 0: none is.

    Raises InvalidArgumentError when *name* is no host name or *port* no port.
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
        """Return the nodes behind the name now. Raises ConnectError when it does not resolve."""
        self._known = self._names(self._addresses())
        return named_nodes(self._known, self._port, weight=self._service.weight, server_hostname=self._host)

    def _addresses(self) -> Sequence[str]:
        try:
            found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # UnicodeError: a label that IDNA refuses
            failed = f"the name {self._host!r} could not be resolved"
            raise ConnectError(failed, node=self._service.name) from error
        return [_literal(address) for _, _, _, _, address in found]

    def _names(self, addresses: Sequence[str]) -> Mapping[str, str | None]:
        # A node must not change its identity, and its keys their node, because one question went unanswered: an address
        # keeps the name it had for as long as it is there, until the resolver names another.
        until = monotonic() + self._naming_time
        return {
            address: (_name_of(address) if monotonic() < until else None) or self._known.get(address)
            for address in addresses
        }


def _literal(address: Sequence[object]) -> str:
    """Return the IP literal of an address that the resolver returned, with the zone of an IPv6 address that has one."""
    zone = address[3] if len(address) > 3 else 0
    return f"{address[0]}%{zone}" if zone and "%" not in str(address[0]) else str(address[0])


def _name_of(address: str) -> str | None:
    try:
        return socket.getnameinfo((address, 0), socket.NI_NAMEREQD)[0]
    except (OSError, UnicodeError):
        return None


def dns_source(host: str, port: int, /, *, settings: Settings) -> DnsSource:  # noqa: ARG001 - as every factory
    """Return the source that ``memcached+dns://host:port`` means."""
    return DnsSource(host, port)
