"""The attributes of spans and metrics, by OpenTelemetry's semantic conventions for databases."""

from __future__ import annotations

from metacache import Node
from metacache.nodes import DEFAULT_PORT, MemoryAddress, TcpAddress, UnixAddress

__all__ = ["Attributes", "error_type", "of_node", "of_operation", "pool_name"]

Attributes = dict[str, str | int]


def of_node(node: Node) -> Attributes:
    """Return ``server.address`` and ``server.port``.

    A unix socket has its path as address, a server in this process its URL. Both have no port.
    """
    address = node.address
    if not isinstance(address, TcpAddress):
        return {"server.address": _without_port(address)}
    return {"server.address": address.host, "server.port": address.port}


def of_operation(operation: str, node: Node, error: type[BaseException] | None) -> Attributes:
    """Return the attributes of a request to *node*."""
    attributes: Attributes = {"db.system.name": "memcached", "db.operation.name": operation, **of_node(node)}
    return attributes if error is None else {**attributes, "error.type": error_type(error)}


def error_type(error: type[BaseException]) -> str:
    """Return the full name of the class *error*."""
    return f"{error.__module__}.{error.__qualname__}"


def pool_name(node: Node) -> str:
    """Return ``db.client.connection.pool.name``: address and port, as the conventions say for a pool without a name."""
    address = node.address
    if not isinstance(address, TcpAddress):
        return _without_port(address)
    return f"{address.host}:{address.port or DEFAULT_PORT}"


def _without_port(address: UnixAddress | MemoryAddress) -> str:
    return address.path if isinstance(address, UnixAddress) else str(address)
