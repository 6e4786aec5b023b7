"""Turns addresses and their DNS names into nodes. Pure: makes no lookup. Ignores names that are not host names."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

from metacache.discovery.hosts import tcp_address
from metacache.nodes import Node

__all__ = ["named_nodes"]

# A PTR record may contain any text.
_is_host = re.compile(r"[a-z0-9_][a-z0-9_.-]{0,252}").fullmatch


def named_nodes(
    names: Mapping[str, str | None], port: int, *, weight: float = 1.0, server_hostname: str | None = None
) -> tuple[Node, ...]:
    """Return one node for each name in *names*, and one for each address without a name (None).

    The name and the port are the identity of a node. A name with several addresses is one node at the lowest of them,
    IPv4 first: the order of the resolver, which may change, does not matter.

    If there are addresses of both families, most servers have one of each, and no server may become two nodes. So an
    IPv6 address makes no node if it has no name, or if an IPv4 address has no name: both may belong to one server.

    names: the name by address, which is an IP literal.
    server_hostname: the name that the nodes' certificates must have. The *names* come from DNS and prove nothing.
    """
    hosts: dict[str, str] = {}
    for address in sorted(names, key=_order):
        host = _host(names[address])
        if ":" not in address or not _may_be_known(host, hosts):
            hosts.setdefault(host or address, address)
    return tuple(
        Node(
            tcp_address(address, port, server_hostname=server_hostname),
            weight=weight,
            name=str(tcp_address(host, port)),
        )
        for host, address in hosts.items()
    )


def _may_be_known(host: str, hosts: Mapping[str, str]) -> bool:
    """Return whether an IPv6 address with the name *host* (empty: none) may belong to the server of one of *hosts*."""
    ipv4 = [(known, address) for known, address in hosts.items() if ":" not in address]
    return bool(ipv4) and (not host or any(known == address for known, address in ipv4))


def _host(name: str | None) -> str:
    """Return *name* in lower case without a trailing dot; "" if it is not a host name.

    A name like 10.0.0.1 is not a host name: it could be the address of another node.
    """
    host = (name or "").rstrip(".").lower()
    return host if _is_host(host) and not host.rpartition(".")[2].isdigit() else ""


def _order(address: str) -> tuple[int, int, str]:
    ip = ipaddress.ip_address(address)
    return ip.version, int(ip), address
