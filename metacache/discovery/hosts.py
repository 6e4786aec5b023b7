"""Hosts and ports as sources write them, and the addresses that these are. Pure."""

from __future__ import annotations

from metacache.errors import InvalidTypeError
from metacache.nodes import TcpAddress, parse_address

__all__ = ["tcp_address"]


def tcp_address(host: str, port: int) -> TcpAddress:
    """Return the normalised address of *host*, a name or an IP literal without brackets.

    Raises InvalidArgumentError (InvalidTypeError for a wrong type) when it is neither, or *port* no port.
    """
    if not isinstance(host, str):
        raise InvalidTypeError(f"a host is a str, not {type(host).__name__}")
    address = parse_address(str(TcpAddress(host, port)))
    assert isinstance(address, TcpAddress), "only a path behind unix: makes another, and here a port is behind it"
    return address
