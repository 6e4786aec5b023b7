"""`DnsSource`: the addresses of a name, and the identities of the nodes."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Callable, Mapping, Set
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metacache import (
    AsyncCluster,
    Client,
    Cluster,
    ConnectError,
    Connection,
    InvalidArgumentError,
    InvalidTypeError,
    Node,
    Settings,
    connect,
    connect_async,
)
from metacache.discovery import DnsSource, load_node_source
from metacache.discovery.dns_names import named_nodes
from metacache.nodes import TcpAddress
from metacache.testing import Memcached
from tests.certificates import serving, trusting
from tests.scripted import ScriptedServer, answering, silent

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
        # A and AAAA of one name are one node. Two addresses are one node at the lower one, by number and not by text.
        ({"fd00::a": "m-0", "10.0.0.1": "m-0"}, [("m-0:7", "10.0.0.1:7")]),
        ({"10.0.0.10": "m-0", "10.0.0.9": "m-0"}, [("m-0:7", "10.0.0.9:7")]),
        ({"10.0.0.2": "m-1", "10.0.0.1": None}, [("10.0.0.1:7", "10.0.0.1:7"), ("m-1:7", "10.0.0.2:7")]),
        # Possible contents of a PTR record that are not host names.
        ({"10.0.0.1": "a b"}, [("10.0.0.1:7", "10.0.0.1:7")]),
        ({"10.0.0.1": "x@y:1"}, [("10.0.0.1:7", "10.0.0.1:7")]),
        ({"10.0.0.1": "."}, [("10.0.0.1:7", "10.0.0.1:7")]),
        ({"10.0.0.1": "10.0.0.2", "10.0.0.2": None}, [("10.0.0.1:7", "10.0.0.1:7"), ("10.0.0.2:7", "10.0.0.2:7")]),
    ],
)
def test_a_node_has_the_name_and_the_address_of_its_server(
    names: Mapping[str, str | None], expected: list[tuple[str, str]]
) -> None:
    assert [(node.name, str(node.address)) for node in named_nodes(names, 7)] == expected


def test_all_nodes_have_the_given_certificate_name() -> None:
    found = named_nodes({"10.0.0.1": "m-0", "10.0.0.2": None}, 7, weight=2.0, server_hostname="cache.svc")
    assert found == (
        Node(TcpAddress("10.0.0.1", 7, "cache.svc"), weight=2.0, name="m-0:7"),
        Node(TcpAddress("10.0.0.2", 7, "cache.svc"), weight=2.0),
    )


def families(names: Mapping[str, str | None]) -> list[str]:
    return [str(node.address).removesuffix(":7") for node in named_nodes(names, 7)]


@pytest.mark.parametrize(
    ("names", "dialled"),
    [
        # No names: nothing shows which addresses belong to one server, so only IPv4 counts.
        ({"10.0.0.1": None, "fd00::1": None}, ["10.0.0.1"]),
        ({"10.0.0.1": None, "10.0.0.2": None, "fd00::1": None, "fd00::2": None}, ["10.0.0.1", "10.0.0.2"]),
        ({"fd00::1": None, "fd00::2": None}, ["[fd00::1]", "[fd00::2]"]),
        ({"fd00::1": None, "fd00::2": "m-2"}, ["[fd00::1]", "[fd00::2]"]),
        # All have names, so the names show it.
        ({"10.0.0.1": "m-1", "fd00::1": "m-1"}, ["10.0.0.1"]),
        ({"10.0.0.1": "m-1", "fd00::2": "m-2"}, ["10.0.0.1", "[fd00::2]"]),
        ({"10.0.0.1": "m-1", "fd00::1": "m-1", "fd00::2": "m-2"}, ["10.0.0.1", "[fd00::2]"]),
        # Some have names: an IPv6 address may belong to the server of an IPv4 address.
        ({"10.0.0.1": "m-1", "fd00::1": None}, ["10.0.0.1"]),
        ({"10.0.0.1": None, "fd00::1": "m-1"}, ["10.0.0.1"]),
        ({"10.0.0.1": "m-1", "10.0.0.2": None, "fd00::1": "m-1", "fd00::2": "m-2"}, ["10.0.0.1", "10.0.0.2"]),
        ({"10.0.0.1": "a b", "fd00::1": "m-1"}, ["10.0.0.1"]),
    ],
)
def test_a_server_with_ipv4_and_ipv6_is_one_node(names: Mapping[str, str | None], dialled: list[str]) -> None:
    assert families(names) == dialled
    assert families({address: names[address] for address in reversed(list(names))}) == dialled, (
        "the order of the resolver does not matter"
    )


@given(
    st.dictionaries(st.integers(1, 6), st.tuples(st.booleans(), st.booleans()).filter(any), min_size=1),
    st.sets(st.tuples(st.integers(1, 6), st.booleans())),
)
def test_no_server_is_two_nodes_whichever_addresses_have_names(
    servers: Mapping[int, tuple[bool, bool]], unnamed: Set[tuple[int, bool]]
) -> None:
    """Server n has the addresses 10.0.0.n, fd00::n or both, and the name m-n if the resolver knows it."""
    names = {
        (f"fd00::{n}" if is_ipv6 else f"10.0.0.{n}"): None if (n, is_ipv6) in unnamed else f"m-{n}"
        for n, has in servers.items()
        for is_ipv6 in (False, True)
        if has[is_ipv6]
    }
    found = [re.split("[.:]", address.strip("[]"))[-1] for address in families(names)]
    assert len(set(found)) == len(found) > 0
    if not unnamed:
        assert sorted(found) == sorted(map(str, servers)), "where all have names no server is left out"


# --- lookups -----------------------------------------------------------------------------------------------------


class Resolver:
    """Replaces the resolver of the system: patches the two functions of `socket` that look up names."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, names: Mapping[str, str | OSError]) -> None:
        self.names = names
        self.seconds = 0.0  # seconds that a reverse lookup takes
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


@pytest.mark.parametrize("tls", [None, ssl.create_default_context()])
def test_a_dns_url_requires_certificates_for_the_name_in_the_url(
    tls: ssl.SSLContext | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    Resolver(monkeypatch, {"10.0.0.1": "m-0.svc"})
    (node,) = load_node_source("dns")("cache.svc", 7, settings=Settings(tls=tls)).poll()
    assert node == Node(TcpAddress("10.0.0.1", 7, "cache.svc"), name="m-0.svc:7")


def test_an_address_keeps_its_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    def addresses(_: str, port: int, **__: object) -> list[tuple[int, int, int, str, tuple[str, int, int, int]]]:
        return [(socket.AF_INET6, 1, 6, "", ("fe80::1", port, 0, 3))]

    monkeypatch.setattr(socket, "getaddrinfo", addresses)
    (node,) = DnsSource("cache.svc", 7, naming_time=0.0).poll()
    assert node.name == "[fe80::1%3]:7"


@pytest.mark.parametrize("failure", [AGAIN, NO_NAME])
def test_an_address_keeps_its_name_if_one_lookup_fails(failure: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolver(monkeypatch, {"10.0.0.1": "m-0.svc", "10.0.0.2": failure})
    source = DnsSource("cache.svc", 11211)
    before = polled(source)
    assert [name for name, _ in before] == ["m-0.svc:11211", "10.0.0.2:11211"]
    for _ in range(2):
        resolver.names = {**resolver.names, "10.0.0.1": failure}
        assert polled(source) == before


def test_an_address_that_was_away_does_not_keep_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolver(monkeypatch, {"10.0.0.1": "m-0.svc"})
    source = DnsSource("cache.svc", 11211)
    source.poll()
    resolver.names = {"10.0.0.2": "m-1.svc"}
    source.poll()
    resolver.names = {"10.0.0.1": NO_NAME}
    assert polled(source) == [("10.0.0.1:11211", "10.0.0.1:11211")]


def test_slow_reverse_lookups_are_limited_for_the_whole_poll(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolver = Resolver(monkeypatch, {"10.0.0.1": "m-0.svc", "10.0.0.2": "m-1.svc", "10.0.0.3": "m-2.svc"})
    resolver.seconds = 0.02
    found = polled(DnsSource("cache.svc", 1, naming_time=0.01))
    assert [name for name, _ in found] == ["m-0.svc:1", "10.0.0.2:1", "10.0.0.3:1"]
    assert polled(DnsSource("cache.svc", 1, naming_time=0.0))[0] == ("10.0.0.1:1", "10.0.0.1:1")


def test_an_unresolved_name_is_an_error_and_the_known_names_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolver(monkeypatch, {"10.0.0.1": "m-0.svc"})
    source = DnsSource("cache.svc", 11211)
    before = polled(source)
    resolver.names = {}
    with pytest.raises(ConnectError) as failed:
        source.poll()
    assert str(failed.value) == (
        "cache.svc:11211: the name 'cache.svc' could not be resolved; does the DNS have A or AAAA records for it?"
    )
    resolver.names = {"10.0.0.1": AGAIN}
    assert polled(source) == before


def test_an_invalid_host_name_is_refused_without_a_lookup() -> None:
    with pytest.raises(InvalidArgumentError):
        DnsSource("a b", 11211)
    with pytest.raises(InvalidArgumentError):
        DnsSource("cache", 0)
    with pytest.raises(InvalidTypeError):
        # A caller without a type checker may pass this.
        DnsSource(None, 11211)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_a_label_that_idna_refuses_is_a_typed_error() -> None:
    with pytest.raises(ConnectError, match="could not be resolved"):
        DnsSource("ä" * 80, 11211).poll()


# --- servers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_server_behind_a_name_is_found_and_used(host: str, shared_memcached: Memcached) -> None:
    port = int(shared_memcached.url.rpartition(":")[2].strip("/"))
    (node,) = load_node_source("dns")(host, port, settings=Settings()).poll()
    assert node.name in (f"localhost:{port}", f"127.0.0.1:{port}")
    with Client(Connection(node)) as client:
        assert client.set("dns", b"found")
        assert client.get("dns") == b"found"


def answer_for(monkeypatch: pytest.MonkeyPatch, names: Mapping[str, tuple[str, ...]], ptr: Mapping[str, str]) -> None:
    """Replace the DNS: *names* have these addresses, and the addresses in *ptr* have names. Literals are unchanged."""
    real: Callable[..., Any] = socket.getaddrinfo  # Any: the types of the original function

    def addresses(host: str, port: int, **options: Any) -> list[Any]:  # Any: as above
        return [found for each in names.get(host, (host,)) for found in real(each, port, **options)]

    def name(address: tuple[str, int], _: int) -> tuple[str, str]:
        if address[0] not in ptr:
            raise NO_NAME
        return ptr[address[0]], "0"

    monkeypatch.setattr(socket, "getaddrinfo", addresses)
    monkeypatch.setattr(socket, "getnameinfo", name)


async def store_through(url: str, *, blocking: bool) -> None:
    settings = Settings(tls=trusting(), timeout=5.0)
    if blocking:
        with connect(url, settings=settings) as client:
            assert client.set("key", b"v")
    else:
        async with connect_async(url, settings=settings) as client:
            assert await client.set("key", b"v")


# The names in the PTR records of cache.svc's servers: a name in the DNS, none, a name that is not in the DNS.
ANSWERS: Final = [
    {},
    {"127.0.0.1": "m-0.cache.svc"},
    {"127.0.0.1": "chosen.invalid"},
    {"127.0.0.1": "chosen.invalid", "::1": "chosen.invalid"},
    {"127.0.0.1": "cache.svc"},
]
CHOSEN: Final = ("m-0.cache.svc", "chosen.invalid", "127.0.0.1", "localhost", "svc")


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("ptr", ANSWERS, ids=str)
async def test_a_certificate_for_the_name_in_the_url_is_accepted(
    monkeypatch: pytest.MonkeyPatch, ptr: Mapping[str, str], *, blocking: bool
) -> None:
    answer_for(monkeypatch, {"cache.svc": ("127.0.0.1",)}, ptr)
    with ScriptedServer(answering((b"HD", None)), tls=serving("cache.svc")) as server:
        await store_through(f"memcacheds+dns://cache.svc:{server.port}", blocking=blocking)


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("ptr", ANSWERS, ids=str)
@pytest.mark.parametrize("chosen", CHOSEN)
async def test_a_certificate_for_a_name_from_dns_is_refused(
    monkeypatch: pytest.MonkeyPatch, ptr: Mapping[str, str], chosen: str, *, blocking: bool
) -> None:
    # An attacker who controls DNS directs every name to one server, and has a certificate for one of the names.
    answer_for(monkeypatch, dict.fromkeys(("cache.svc", *CHOSEN), ("127.0.0.1",)), ptr)
    server = ScriptedServer(silent, tls=serving(chosen))
    with pytest.raises(ConnectError, match="certificate was not accepted"):
        await store_through(f"memcacheds+dns://cache.svc:{server.port}", blocking=blocking)
    with pytest.raises(ssl.SSLError):  # from the view of the server
        server.__exit__(None, None, None)


@pytest.mark.parametrize("blocking", [True, False])
async def test_a_url_with_an_address_requires_a_certificate_for_it(
    monkeypatch: pytest.MonkeyPatch, *, blocking: bool
) -> None:
    answer_for(monkeypatch, {"chosen.invalid": ("127.0.0.1",)}, {"127.0.0.1": "chosen.invalid"})
    with ScriptedServer(answering((b"HD", None)), tls=serving("127.0.0.1")) as server:
        await store_through(f"memcacheds+dns://127.0.0.1:{server.port}", blocking=blocking)


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("ptr", [{}, {"127.0.0.1": "m-0"}, {"127.0.0.1": "m-0", "::1": "m-0"}, {"::1": "m-0"}], ids=str)
async def test_a_server_with_two_addresses_is_one_node(
    monkeypatch: pytest.MonkeyPatch, ptr: Mapping[str, str], *, blocking: bool
) -> None:
    answer_for(monkeypatch, {"cache.svc": ("::1", "127.0.0.1")}, ptr)
    with ScriptedServer(answering((b"HD", None), (b"VA 1 f0", b"v")), tls=None) as server:
        url = f"memcached+dns://cache.svc:{server.port}"
        if blocking:
            with Cluster.from_url(url) as cluster:
                client = cluster.client()
                assert len(cluster.nodes) == 1
                assert client.set("key", b"v")
                assert client.get("key") == b"v"
        else:
            async with AsyncCluster.from_url(url) as nodes:
                waiting = nodes.client()
                assert await waiting.set("key", b"v")
                assert await waiting.get("key") == b"v"
                assert len(nodes.nodes) == 1
