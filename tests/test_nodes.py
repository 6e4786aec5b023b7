"""Nodes and addresses: parsing, normalisation, and addresses that cannot be dialled."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any

import pytest

from metacache import (
    AsyncClient,
    AsyncConnection,
    Client,
    ConnectError,
    Connection,
    InvalidArgumentError,
    InvalidTypeError,
    Node,
    Settings,
    connect,
    connect_async,
)
from metacache.nodes import Address, TcpAddress, UnixAddress
from tests.scripted import ScriptedServer, answering

LONGEST = "/" + "x" * 106


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Cache-1", "cache-1:11211"),
        ("[::1]", "[::1]:11211"),
        ("[FE80:0::1]:5", "[fe80::1]:5"),
        ("[FE80:0::1%Eth0]:5", "[fe80::1%Eth0]:5"),  # interfaces differ by case
        ("[fe80::1%2]", "[fe80::1%2]:11211"),
        ("[fe80::1%eth0:1]", "[fe80::1%eth0:1]:11211"),
        ("unix:" + LONGEST, "unix:" + LONGEST),
        ("unix:///run/m", "unix:/run/m"),
    ],
)
def test_an_address_has_one_spelling(text: str, name: str) -> None:
    node = Node(text)
    assert (node.name, str(node.address)) == (name, name)
    assert Node(node.address) == node
    assert Node(name) == node


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("[fe80::1%]", "network interface"),
        ("[fe80::1%a b]", "network interface"),
        ("[fe80::1%a%b]", "network interface"),
        ("[fe80::1%ä]", "network interface"),
        ("[fe80::1%" + "x" * 16 + "]", "network interface"),
        ("[%eth0]", "not an IPv6 address"),
        ("a%b:1:2", "is not host:port"),
        ("a\0b", "is not host:port"),
        ("a\x7f", "is not host:port"),
        ("a\udc80", "lone surrogate"),
        ("[::1%\udc80]", "lone surrogate"),
        ("unix:/run/\udc80", "lone surrogate"),
        ("unix:/run/\0", "not absolute"),
        ("unix:" + LONGEST + "x", "108 bytes is too long: the limit is 107 bytes"),
        ("unix:/ä" + "x" * 105, "108 bytes is too long"),
        (UnixAddress(LONGEST + "x"), "108 bytes is too long"),
        (UnixAddress("run"), "not absolute"),
        (TcpAddress("a b", 1), "is not host:port"),
        (TcpAddress("a", 0), "not between"),
        (TcpAddress("a", 1, server_hostname=""), "server_hostname"),
        (TcpAddress("a", 1, server_hostname=".a"), "server_hostname"),
        (TcpAddress("a", 1, server_hostname="a\udc80"), "server_hostname"),
    ],
    ids=ascii,
)
def test_a_node_with_an_address_that_cannot_be_dialled_is_refused(address: str | Address, why: str) -> None:
    with pytest.raises(InvalidArgumentError, match=why):
        Node(address)


def test_a_wrong_type_is_named() -> None:
    wrong: Any = b"name"  # Any: what a caller without a type checker may pass
    with pytest.raises(InvalidTypeError, match="server_hostname is a str or None, not bytes"):
        Node(TcpAddress("a", 1, server_hostname=wrong))


@pytest.mark.parametrize(
    ("address", "name"),
    [
        (TcpAddress("cache", 1), "cache"),
        (TcpAddress("cache.example.", 1), "cache.example"),
        (TcpAddress("10.0.0.1", 1, server_hostname="cache.example."), "cache.example"),
        (TcpAddress("fe80::1%eth0", 1), "fe80::1"),
        (TcpAddress("10.0.0.1", 1, server_hostname="10.0.0.2"), "10.0.0.2"),
    ],
    ids=str,
)
def test_the_certificate_name_has_no_zone_and_no_trailing_dot(address: TcpAddress, name: str) -> None:
    assert address.certificate_name == name


def test_the_certificate_name_is_not_part_of_the_identity() -> None:
    named = Node(TcpAddress("10.0.0.1", 1, server_hostname="cache.example"))
    assert named.name == Node("10.0.0.1:1").name
    assert named != Node("10.0.0.1:1"), "another name in the certificate needs other connections"


@pytest.mark.parametrize("make", [connect, connect_async])
def test_connect_refuses_a_path_that_cannot_be_dialled(
    make: Any,
) -> None:  # Any: connect or connect_async, with their overloads
    with pytest.raises(InvalidArgumentError, match="too long"):
        make("memcached+unix://" + LONGEST + "x")
    with pytest.raises(InvalidArgumentError, match="surrogate"):
        make("memcached+unix:///run/\udc80")


# --- a zone is dialled -------------------------------------------------------------------------------------------


def zoned() -> list[str]:
    """Return IPv6 literals with a zone of this machine: the loopback by number, and a link-local address by name."""
    lines = Path("/proc/net/if_inet6").read_text().splitlines() if Path("/proc/net/if_inet6").exists() else []
    links = [(bytes.fromhex(line.split()[0]), line.split()[-1]) for line in lines if line.startswith("fe80")]
    return ["::1%1", *(f"{ipaddress.IPv6Address(address)}%{interface}" for address, interface in links[:1])]


@pytest.mark.parametrize("literal", zoned())
def test_an_address_with_a_zone_is_dialled(literal: str) -> None:
    with ScriptedServer(answering((b"HD", None)), host=literal) as server:
        node = Node(f"[{literal}]:{server.port}")
        with Client(Connection(node, settings=Settings(timeout=5.0)), owns=True) as client:
            assert client.set("key", b"v")
        url = f"memcached://[{literal.replace('%', '%25')}]:{server.port}"
    with connect(url) as client, pytest.raises(ConnectError, match=re.escape(f"on {node}: ") + ".*refused"):
        client.set("key", b"v")


@pytest.mark.parametrize("literal", zoned())
async def test_an_address_with_a_zone_is_dialled_by_asyncio(literal: str) -> None:
    with ScriptedServer(answering((b"HD", None)), host=literal) as server:
        node = Node(f"[{literal}]:{server.port}")
        async with AsyncClient(AsyncConnection(node, settings=Settings(timeout=5.0)), owns=True) as client:
            assert await client.set("key", b"v")


def test_an_error_names_an_unknown_interface() -> None:
    hint = r"'fe80::1%nope' .*; is there such a network interface"
    with connect("memcached://[fe80::1%25nope]", timeout=5.0) as client, pytest.raises(ConnectError, match=hint):
        client.get("key")


def test_a_host_called_unix_is_no_path() -> None:
    node = Node("unix")
    assert node.name == "unix:11211"
    assert Node(str(node)) == node
    assert isinstance(Node("unix:/run/m.sock").address, UnixAddress)
