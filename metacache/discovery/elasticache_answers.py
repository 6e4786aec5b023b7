"""Parses the reply to ``config get cluster``, and decides whether it may replace the last one. Pure.

The reply has two lines: a version, and the nodes as ``host|ip|port host|ip|port``.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NoReturn, final

import attrs

from metacache.discovery.hosts import tcp_address
from metacache.errors import InvalidArgumentError, ProtocolError
from metacache.nodes import Node

__all__ = ["ClusterConfig", "newer_config", "parse_config"]

_is_version = re.compile(r"[0-9]{1,20}", re.ASCII).fullmatch
_is_port = re.compile(r"[0-9]{1,5}", re.ASCII).fullmatch


@final
@attrs.frozen
class ClusterConfig:
    """The nodes of a cluster and the version of this list. Each change of the list has a higher version."""

    version: int
    nodes: tuple[Node, ...]


def parse_config(data: bytes, *, server_hostname: str | None = None) -> ClusterConfig:
    """Return the version and the nodes in the data block of the reply.

    The identity of a node is its host name and port. Its address is the IP address if the reply has one, else the host
    name.

    server_hostname: the name that the nodes' certificates must have. None: the host name of each node; only for a reply
    of a verified server.

    Raises ProtocolError if the block is broken or lists no node. The message quotes no byte of it.
    """
    try:
        lines = data.decode("ascii").split("\n")
    except UnicodeDecodeError:
        _broken("it is not ASCII")
    version, nodes, *rest = [*(line.strip() for line in lines), ""]
    if not _is_version(version) or any(rest):
        _broken("it is not a line with a version and a line with nodes")
    if not nodes:
        _broken("it lists no node")
    found = tuple(_node(number, entry, server_hostname) for number, entry in enumerate(nodes.split(), 1))
    if len({node.name for node in found}) < len(found):
        _broken("it lists a node twice")
    return ClusterConfig(int(version), found)


def _node(number: int, entry: str, server_hostname: str | None) -> Node:
    host, ip, port = parts if len(parts := entry.split("|")) == 3 else ("", "", "")
    if not host or not _is_port(port):
        _broken(f"its node {number} is not host|ip|port")
    host = host.rstrip(".")
    try:
        named = tcp_address(host, int(port))
        dialled = str(ipaddress.ip_address(ip)) if ip else host
        return Node(tcp_address(dialled, int(port), server_hostname=server_hostname or named.host), name=str(named))
    except (ValueError, InvalidArgumentError):
        _broken(f"its node {number} has a malformed host, address or port")


def _broken(problem: str) -> NoReturn:
    raise ProtocolError(f"the reply to 'config get cluster' is broken: {problem}") from None


def newer_config(last: ClusterConfig | None, new: ClusterConfig) -> ClusterConfig:
    """Return *new* if its version is higher than that of *last*, or *last* if the versions are equal.

    Raises ProtocolError if the version is lower: another server behind the endpoint replied, with an old list.
    """
    if last is None or new.version > last.version:
        return new
    if new.version == last.version:
        return last
    raise ProtocolError(
        f"the reply to 'config get cluster' is out of date: it has version {new.version} after version {last.version}"
    )
