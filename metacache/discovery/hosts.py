"""Turns the host and port that a node source finds into an address. Pure."""

from __future__ import annotations

from metacache.errors import InvalidTypeError
from metacache.nodes import TcpAddress, parse_address

__all__ = ["tcp_address"]


def tcp_address(host: str, port: int, *, server_hostname: str | None = None) -> TcpAddress:
    """Return the normalised address of *host*, a name or an IP literal without brackets, and *port*.

    *server_hostname*: the name that the server's certificate must have; None: *host*.

    Raises InvalidArgumentError if *host* or *port* is invalid, InvalidTypeError if it has a wrong type.
    """
    if not isinstance(host, str):
        raise InvalidTypeError(f"a host is a str, not {type(host).__name__}")
    address = parse_address(TcpAddress(host, port, server_hostname))
    assert isinstance(address, TcpAddress), "parse_address returns a TcpAddress for a TcpAddress"
    return address
