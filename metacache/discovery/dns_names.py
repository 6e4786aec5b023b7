"""From addresses and their names to nodes. Pure: asks no resolver, and ignores a name that no host can have."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

from metacache.discovery.hosts import tcp_address
from metacache.nodes import Node

__all__ = ["named_nodes"]

# A PTR record holds what its owner wrote into it.
_is_host = re.compile(r"[a-z0-9_][a-z0-9_.-]{0,252}").fullmatch


def named_nodes(
    names: Mapping[str, str | None], port: int, *, weight: float = 1.0, server_hostname: str | None = None
) -> tuple[Node, ...]:
    """Return a node for each of the *names*, and for each address that has no name (None).

    The name and the port are the node's identity. Addresses of one name are one node, at the least of them, IPv4 first,
    so that it does not change its address as the resolver changes its order.

    Where there are addresses of both families, most servers have one of each, and no server may count twice. So an IPv6
    address makes no node where it has no name, or where an IPv4 address has no name: both may be one server's.

    names: by address, an IP literal.
    server_hostname: the name that the nodes' certificates must have. The *names* are no such names: they come from DNS.
    """
    hosts: dict[str, str] = {}
    for address in sorted(names, key=_order):
        host = _host(names[address])
        if ":" not in address or not _may_be_counted(host, hosts):
            hosts.setdefault(host or address, address)
    return tuple(
        Node(
            tcp_address(address, port, server_hostname=server_hostname),
            weight=weight,
            name=str(tcp_address(host, port)),
        )
        for host, address in hosts.items()
    )


def _may_be_counted(host: str, hosts: Mapping[str, str]) -> bool:
    """Return whether an IPv6 address of the name *host* (empty: it has none) may belong to one of *hosts*."""
    ipv4 = [(known, address) for known, address in hosts.items() if ":" not in address]
    return bool(ipv4) and (not host or any(known == address for known, address in ipv4))


def _host(name: str | None) -> str:
    """Return *name* as hosts are written: lower case, without the dot of the root; "" when it is not a host name.

    A name like 10.0.0.1 does not count: it would be taken for another node's address.
    """
    host = (name or "").rstrip(".").lower()
    return host if _is_host(host) and not host.rpartition(".")[2].isdigit() else ""


def _order(address: str) -> tuple[int, int, str]:
    ip = ipaddress.ip_address(address)
    return ip.version, int(ip), address
