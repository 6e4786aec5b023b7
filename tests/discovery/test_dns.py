"""The addresses behind a name, and the identities of the nodes there."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Mapping
from typing import Final

import pytest

from metacache import Client, ConnectError, Connection, InvalidArgumentError, InvalidTypeError, Node, Settings
from metacache.discovery import DnsSource, load_node_source
from metacache.discovery.dns.names import named_nodes
from metacache.testing import Memcached

AGAIN: Final = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
NO_NAME: Final = socket.gaierror(socket.EAI_NONAME, "Name or service not known")


# --- names to nodes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({}, []),
        ({"10.0.0.1": None}, [("10.0.0.1:7", "10.0.0.1:7")]),
        ({"fd00::a": None}, [("[fd00::a]:7", "[fd00::a]:7")]),
        ({"10.0.0.1": "m-0.m.svc"}, [("m-0.m.svc:7", "10.0.0.1:7")]),
        ({"10.0.0.1": "M-0.M.svc."}, [("m-0.m.svc:7", "10.0.0.1:7")]),
        # A and AAAA of one name are one node; so are two addresses, at the least of them by number, not by text.
        ({"fd00::a": "m-0", "10.0.0.1": "m-0"}, [("m-0:7", "10.0.0.1:7")]),
        ({"10.0.0.10": "m-0", "10.0.0.9": "m-0"}, [("m-0:7", "10.0.0.9:7")]),
        ({"10.0.0.2": "m-1", "10.0.0.1": None}, [("10.0.0.1:7", "10.0.0.1:7"), ("m-1:7", "10.0.0.2:7")]),
        # What anybody may write into a PTR record, and cannot be a host.
        ({"10.0.0.1": "a b"}, [("10.0.0.1:7", "10.0.0.1:7")]),
        ({"10.0.0.1": "x@y:1"}, [("10.0.0.1:7", "10.0.0.1:7")]),
        ({"10.0.0.1": "."}, [("10.0.0.1:7", "10.0.0.1:7")]),
    ],
)
def test_a_node_is_its_name_at_its_address(names: Mapping[str, str | None], expected: list[tuple[str, str]]) -> None:
    assert [(node.name, str(node.address)) for node in named_nodes(names, 7)] == expected


def test_for_tls_a_node_is_reached_by_its_name_where_it_has_one() -> None:
    found = named_nodes({"10.0.0.1": "m-0", "10.0.0.2": None}, 7, weight=2.0, by_name=True)
    assert found == (Node("m-0:7", weight=2.0), Node("10.0.0.2:7", weight=2.0))


# --- the resolver ------------------------------------------------------------------------------------------------


class Resolver:
    """Answers in place of the system's, through the two public functions of `socket`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, names: Mapping[str, str | OSError]) -> None:
        self.names = names
        self.seconds = 0.0  # that a question for a name takes
        monkeypatch.setattr(socket, "getaddrinfo", self._addresses)
        monkeypatch.setattr(socket, "getnameinfo", self._name)

    def _addresses(self, host: str, port: int, **_: object) -> list[tuple[int, int, int, str, tuple[str | int, ...]]]:
        assert host == "cache.svc"
        if not self.names:
            raise NO_NAME
        return [
            (socket.AF_INET6, 1, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, 1, 6, "", (address, port))
            for address in self.names
        ]

    def _name(self, address: tuple[str, int], flags: int) -> tuple[str, str]:
        assert flags == socket.NI_NAMEREQD, "a number is not a name"
        if self.seconds:
            threading.Event().wait(self.seconds)
        name = self.names[address[0]]
        if isinstance(name, OSError):
            raise name
        return name, "0"


def polled(source: DnsSource) -> list[tuple[str, str]]:
    return [(node.name, str(node.address)) for node in source.poll()]


def test_a_pod_keeps_its_name_when_its_address_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolver(monkeypatch, {"10.0.0.1": "m-0.svc", "10.0.0.2": "m-1.svc", "fd00::2": "m-1.svc"})
    source = DnsSource("cache.svc", 11211)
    assert polled(source) == [("m-0.svc:11211", "10.0.0.1:11211"), ("m-1.svc:11211", "10.0.0.2:11211")]
    resolver.names = {"10.0.0.7": "m-0.svc", "10.0.0.1": "m-1.svc"}
    assert polled(source) == [("m-1.svc:11211", "10.0.0.1:11211"), ("m-0.svc:11211", "10.0.0.7:11211")]


@pytest.mark.parametrize(("tls", "address"), [(None, "10.0.0.1:7"), (ssl.create_default_context(), "m-0.svc:7")])
def test_the_source_of_a_url_gives_names_for_addresses_where_tls_is_spoken(
    tls: ssl.SSLContext | None, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Resolver(monkeypatch, {"10.0.0.1": "m-0.svc"})
    (node,) = load_node_source("dns")("cache.svc", 7, settings=Settings(tls=tls)).poll()
    assert (node.name, str(node.address)) == ("m-0.svc:7", address)


@pytest.mark.parametrize("failure", [AGAIN, NO_NAME])
def test_a_name_stays_when_the_resolver_does_not_tell_it_for_once(
    failure: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = Resolver(monkeypatch, {"10.0.0.1": "m-0.svc", "10.0.0.2": failure})
    source = DnsSource("cache.svc", 11211)
    before = polled(source)
    assert [name for name, _ in before] == ["m-0.svc:11211", "10.0.0.2:11211"]
    for _ in range(2):
        resolver.names = {**resolver.names, "10.0.0.1": failure}
        assert polled(source) == before


def test_an_address_that_was_away_has_no_name_from_before(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolver(monkeypatch, {"10.0.0.1": "m-0.svc"})
    source = DnsSource("cache.svc", 11211)
    source.poll()
    resolver.names = {"10.0.0.2": "m-1.svc"}
    source.poll()
    resolver.names = {"10.0.0.1": NO_NAME}
    assert polled(source) == [("10.0.0.1:11211", "10.0.0.1:11211")]


def test_a_resolver_that_is_slow_to_tell_names_does_not_use_up_its_time_for_every_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolver = Resolver(monkeypatch, {"10.0.0.1": "m-0.svc", "10.0.0.2": "m-1.svc", "10.0.0.3": "m-2.svc"})
    resolver.seconds = 0.02
    found = polled(DnsSource("cache.svc", 1, naming_time=0.01))
    assert [name for name, _ in found] == ["m-0.svc:1", "10.0.0.2:1", "10.0.0.3:1"]
    assert polled(DnsSource("cache.svc", 1, naming_time=0.0))[0] == ("10.0.0.1:1", "10.0.0.1:1")


def test_a_name_that_does_not_resolve_is_told_and_nothing_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolver(monkeypatch, {"10.0.0.1": "m-0.svc"})
    source = DnsSource("cache.svc", 11211)
    before = polled(source)
    resolver.names = {}
    with pytest.raises(ConnectError) as failed:
        source.poll()
    assert str(failed.value) == "cache.svc:11211: the name 'cache.svc' could not be resolved"
    resolver.names = {"10.0.0.1": AGAIN}
    assert polled(source) == before


def test_a_name_that_can_be_none_is_told_without_asking() -> None:
    with pytest.raises(InvalidArgumentError):
        DnsSource("a b", 11211)
    with pytest.raises(InvalidArgumentError):
        DnsSource("cache", 0)
    with pytest.raises(InvalidTypeError):
        # What a caller without a type checker may pass.
        DnsSource(None, 11211)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_a_label_that_idna_refuses_is_a_typed_error_too() -> None:
    with pytest.raises(ConnectError, match="could not be resolved"):
        DnsSource("ä" * 80, 11211).poll()


# --- for real ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_server_behind_a_name_is_found_and_serves(host: str, shared_memcached: Memcached) -> None:
    port = int(shared_memcached.url.rpartition(":")[2].strip("/"))
    (node,) = load_node_source("dns")(host, port, settings=Settings()).poll()
    assert node.name in (f"localhost:{port}", f"127.0.0.1:{port}")
    with Client(Connection(node)) as client:
        assert client.set("dns", b"found")
        assert client.get("dns") == b"found"
