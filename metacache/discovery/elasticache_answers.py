"""The answer to ``config get cluster``: its nodes and version, and whether it may follow the last. Pure.

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


def parse_config(data: bytes, *, server_hostname: str | None = None) -> ClusterConfig:
    """Return what the data block of the answer says. A node's identity is its host name and port.

    A node is dialled at its IP address if the answer has it, else at its host name.

    server_hostname: the name that the nodes' certificates must have. None: the host name of each, for an answer that
    came from a verified server.

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
    found = tuple(_node(place, entry, server_hostname) for place, entry in enumerate(nodes.split(), 1))
    if len({node.name for node in found}) < len(found):
        _broken("it lists a node twice")
    return ClusterConfig(int(version), found)


def _node(place: int, entry: str, server_hostname: str | None) -> Node:
    host, ip, port = parts if len(parts := entry.split("|")) == 3 else ("", "", "")
    if not host or not _is_port(port):
        _broken(f"its node {place} is not host|ip|port")
    host = host.rstrip(".")
    try:
        named = tcp_address(host, int(port))
        dialled = str(ipaddress.ip_address(ip)) if ip else host
        return Node(tcp_address(dialled, int(port), server_hostname=server_hostname or named.host), name=str(named))
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
