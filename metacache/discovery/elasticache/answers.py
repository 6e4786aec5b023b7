"""What an answer to ``config get cluster`` says, and whether it may follow the one before. Pure: bytes in, nodes out.

Two lines: a version, and the nodes as ``host|ip|port host|ip|port``.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NoReturn, final

import attrs

from metacache.discovery.hosts import tcp_address
from metacache.errors import InvalidArgumentError, ProtocolError
from metacache.nodes import Node

__all__ = ["ClusterConfig", "parse_config", "successor"]

_is_version = re.compile(r"[0-9]{1,20}", re.ASCII).fullmatch
_is_port = re.compile(r"[0-9]{1,5}", re.ASCII).fullmatch


@final
@attrs.frozen
class ClusterConfig:
    """The nodes of a cluster, and the version of this list of them, which grows with each change."""

    version: int
    nodes: tuple[Node, ...]


def parse_config(data: bytes, *, by_name: bool = False) -> ClusterConfig:
    """Return what the data block of the answer says. A node's identity is its host name and port.

    by_name: give the nodes their host names as addresses, which a certificate is checked against; else the IP address
    where it is told.

    Raises ProtocolError when the block is broken or lists no node. No byte of it is quoted.
    """
    try:
        lines = data.decode("ascii").split("\n")
    except UnicodeDecodeError:
        _broken("it is not ASCII")
    version, nodes, *rest = [*(line.strip() for line in lines), ""]
    if not _is_version(version) or any(rest):
        _broken("it is not a line with a version and a line of nodes")
    if not nodes:
        _broken("it lists no node")
    found = tuple(_node(place, entry, by_name=by_name) for place, entry in enumerate(nodes.split(), 1))
    if len({node.name for node in found}) < len(found):
        _broken("it lists a node twice")
    return ClusterConfig(int(version), found)


def _node(place: int, entry: str, *, by_name: bool) -> Node:
    host, ip, port = parts if len(parts := entry.split("|")) == 3 else ("", "", "")
    if not host or not _is_port(port):
        _broken(f"its node {place} is not host|ip|port")
    host = host.rstrip(".")
    try:
        address = tcp_address(host if by_name or not ip else str(ipaddress.ip_address(ip)), int(port))
        return Node(address, name=str(tcp_address(host, int(port))))
    except (ValueError, InvalidArgumentError):
        _broken(f"its node {place} has a malformed host, address or port")


def _broken(why: str) -> NoReturn:
    raise ProtocolError(f"the answer to 'config get cluster' is broken: {why}") from None


def successor(last: ClusterConfig | None, new: ClusterConfig) -> ClusterConfig:
    """Return the one to use of *last* and *new*: equal versions mean equal nodes, so *last* stays.

    Raises ProtocolError when the version fell: another endpoint than before has answered, one that is behind.
    """
    if last is None or new.version > last.version:
        return new
    if new.version == last.version:
        return last
    told = f"'config get cluster' answered with version {new.version} after version {last.version}: it is out of date"
    raise ProtocolError(told)
