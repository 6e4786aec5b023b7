"""From addresses and their names to nodes. Pure: asks no resolver, and believes no name that cannot be a host's."""

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
    names: Mapping[str, str | None], port: int, *, weight: float = 1.0, by_name: bool = False
) -> tuple[Node, ...]:
    """Return a node for each of the *names*, and for each address that has none (None).

    The name and the port are the node's identity. Addresses of one name are one node, at the least of them, IPv4 first,
    so that it does not change its address as the resolver changes its order.

    names: by address, an IP literal.
    by_name: give the nodes their names as addresses, which a certificate is checked against, where they have one.
    """
    hosts: dict[str, str] = {}
    for address in sorted(names, key=_order):
        hosts.setdefault(_host(names[address]) or address, address)
    return tuple(
        Node(tcp_address(host if by_name else address, port), weight=weight, name=str(tcp_address(host, port)))
        for host, address in hosts.items()
    )


def _host(name: str | None) -> str:
    """Return *name* as hosts are written: lower case, without the dot of the root; nothing when it is no host's."""
    host = (name or "").rstrip(".").lower()
    return host if _is_host(host) else ""


def _order(address: str) -> tuple[int, int, str]:
    ip = ipaddress.ip_address(address)
    return ip.version, int(ip), address
