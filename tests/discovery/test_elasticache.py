"""`ElastiCacheSource`: the replies to ``config get cluster``, which of them are accepted, and the connection."""

from __future__ import annotations

import ssl
from typing import Final

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metacache import ClientError, ConnectError, Node, OperationTimeout, ProtocolError, Settings, connect
from metacache.discovery import ElastiCacheSource, load_node_source
from metacache.discovery.elasticache import MAX_REPLY
from metacache.discovery.elasticache_answers import ClusterConfig, newer_config, parse_config
from metacache.nodes import TcpAddress
from metacache.testing import Memcached
from tests.certificates import serving, trusting
from tests.scripted import Peer, Script, ScriptedServer, answering, silent

NODES: Final = b"c.0001.cache.amazonaws.com|10.82.235.120|11211 c.0002.cache.amazonaws.com|10.80.249.27|11212"
FOUND: Final = (
    Node(TcpAddress("10.82.235.120", 11211, "c.0001.cache.amazonaws.com"), name="c.0001.cache.amazonaws.com:11211"),
    Node(TcpAddress("10.80.249.27", 11212, "c.0002.cache.amazonaws.com"), name="c.0002.cache.amazonaws.com:11212"),
)


def certified(name: str, *nodes: Node) -> tuple[Node, ...]:
    """Return copies of *nodes* whose certificates must have *name*."""
    found: list[Node] = []
    for node in nodes:
        assert isinstance(node.address, TcpAddress)
        found.append(Node(attrs.evolve(node.address, server_hostname=name), name=node.name))
    return tuple(found)


def node_of(address: str, host: str, port: int = 11211) -> Node:
    return Node(TcpAddress(address, port, host), name=f"{host}:{port}")


# --- bytes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "version", "nodes"),
    [
        (b"12\n" + NODES + b"\n", 12, FOUND),
        (b"12\n" + NODES, 12, FOUND),
        (b"12\r\n" + NODES + b"\r\n\r\n", 12, FOUND),
        (b"0\nh|10.0.0.1|11211", 0, (node_of("10.0.0.1", "h"),)),
        (b"1\nh||11211\n", 1, (node_of("h", "h"),)),
        (b"1\nH.Example.|10.0.0.1|1\n", 1, (node_of("10.0.0.1", "h.example", 1),)),
        (b"1\nh|fd00::A|11211\n", 1, (node_of("fd00::a", "h"),)),
        (b"1\n10.0.0.1|10.0.0.1|11211\n", 1, (node_of("10.0.0.1", "10.0.0.1"),)),
        (b"18446744073709551615\nh||11211\n", 2**64 - 1, (node_of("h", "h"),)),
    ],
)
def test_a_reply_has_a_version_and_nodes(data: bytes, version: int, nodes: tuple[Node, ...]) -> None:
    assert parse_config(data) == ClusterConfig(version, nodes)


def test_the_names_in_a_reply_of_an_unverified_server_are_not_certificate_names() -> None:
    nodes = parse_config(b"12\n" + NODES, server_hostname="endpoint").nodes
    assert nodes == certified("endpoint", *FOUND)
    assert [node.name for node in nodes] == [node.name for node in FOUND], "the identity does not depend on TLS"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not a line with a version"),
        (b"\n", "not a line with a version"),
        (NODES, "not a line with a version"),
        (b"twelve\n" + NODES, "not a line with a version"),
        (b"-1\n" + NODES, "not a line with a version"),
        (b"+1\n" + NODES, "not a line with a version"),
        (b"1_0\n" + NODES, "not a line with a version"),
        (b"9" * 21 + b"\n" + NODES, "not a line with a version"),
        (b"1\n" + NODES + b"\n" + NODES, "not a line with a version"),
        (b"12", "lists no node"),
        (b"12\n", "lists no node"),
        (b"12\n \n", "lists no node"),
        (b"12\nh|10.0.0.1\n", "node 1 is not"),
        (b"12\nh|10.0.0.1|11211 h2|10.0.0.2|11211|x\n", "node 2 is not"),
        (b"12\n|10.0.0.1|11211\n", "node 1 is not"),
        (b"12\nh|10.0.0.1|\n", "node 1 is not"),
        (b"12\nh|10.0.0.1|+1\n", "node 1 is not"),
        (b"12\nh|10.0.0.1|0\n", "node 1 has a malformed"),
        (b"12\nh|10.0.0.1|65536\n", "node 1 has a malformed"),
        (b"12\nh|10.0.0.256|11211\n", "node 1 has a malformed"),
        (b"12\nh|name|11211\n", "node 1 has a malformed"),
        (b"12\nh@x|10.0.0.1|11211\n", "node 1 has a malformed"),
        (b"12\n.|10.0.0.1|11211\n", "node 1 has a malformed"),
        (b"12\nh|10.0.0.1|11211 H|10.0.0.2|11211\n", "lists a node twice"),
        (b"12\nh\xc3\xa4|10.0.0.1|11211\n", "not ASCII"),
    ],
)
def test_a_broken_reply_is_refused_and_not_quoted(data: bytes, why: str) -> None:
    with pytest.raises(ProtocolError, match=why) as broken:
        parse_config(data)
    assert "10.0.0" not in str(broken.value)


@given(st.binary() | st.text("0123456789|.:ah \n\r").map(str.encode))
def test_any_reply_is_a_list_of_nodes_or_a_typed_error(data: bytes) -> None:
    try:
        config = parse_config(data)
    except ProtocolError:
        return
    assert config.nodes


def test_the_version_decides_which_list_is_used() -> None:
    old, new = ClusterConfig(4, FOUND[:1]), ClusterConfig(5, FOUND)
    assert newer_config(None, old) is old
    assert newer_config(old, new) is new
    assert newer_config(new, ClusterConfig(5, FOUND[:1])) is new, "an equal version means equal nodes"
    with pytest.raises(ProtocolError, match="out of date: it has version 4 after version 5"):
        newer_config(new, old)


# --- the wire ----------------------------------------------------------------------------------------------------


def saying(data: bytes, *chunks: int) -> Script:
    """Return a script that replies to one request with *data*, cut at *chunks*, and then expects the end."""

    def script(peer: Peer) -> None:
        peer.expect(b"config get cluster\r\n")
        peer.send(b"CONFIG cluster 0 %d\r\n%b\r\nEND\r\n" % (len(data), data), chunks=chunks, delay=0.001)
        peer.expect_end()

    return script


def test_each_poll_opens_a_connection_and_a_bad_reply_keeps_the_last_list() -> None:
    first, second = b"1\nh|10.0.0.1|11211\n", b"2\n" + NODES + b"\n"
    scripts = [saying(data) for data in (first, second, b"1\n" + NODES, b"3\n\n", b"", b"2\nother||1\n", b"3\nz||1")]
    with ScriptedServer(*scripts) as server:
        source = ElastiCacheSource(server.node)
        assert repr(source) == f"<ElastiCacheSource {server.node}: not polled yet>"
        assert source.poll() == certified("127.0.0.1", node_of("10.0.0.1", "h"))
        assert source.poll() == certified("127.0.0.1", *FOUND)
        for _ in range(3):
            with pytest.raises(ProtocolError) as refused:
                source.poll()
            assert (refused.value.node, refused.value.operation) == (server.node.name, "config_get_cluster")
        assert source.poll() == certified("127.0.0.1", *FOUND)
        assert source.poll() == certified("127.0.0.1", node_of("z", "z", 1))
        assert repr(source) == f"<ElastiCacheSource {server.node}: version 3>"


def test_a_reply_in_pieces_is_parsed_the_same() -> None:
    with ScriptedServer(saying(b"12\n" + NODES + b"\n", *range(1, 30), 120, 121, 122, 123, 124)) as server:
        assert ElastiCacheSource(server.node).poll() == certified("127.0.0.1", *FOUND)


def test_with_verified_tls_the_names_in_the_reply_are_certificate_names() -> None:
    with ScriptedServer(saying(b"12\n" + NODES), tls=serving()) as server:
        source = load_node_source("elasticache")("127.0.0.1", server.port, settings=Settings(tls=trusting()))
        assert source.poll() == FOUND


def test_with_unverified_tls_the_names_in_the_reply_are_not_certificate_names() -> None:
    careless = trusting()
    careless.check_hostname = False
    with ScriptedServer(saying(b"12\n" + NODES), tls=serving("other.invalid")) as server:
        source = ElastiCacheSource(server.node, settings=Settings(tls=careless))
        assert source.poll() == certified("127.0.0.1", *FOUND)


@pytest.mark.parametrize(("host", "is_served"), [("c.0001.invalid", True), ("other.invalid", False)])
def test_a_node_needs_a_certificate_for_the_name_in_the_reply(host: str, is_served: bool) -> None:
    node = ScriptedServer(answering((b"HD", None)) if is_served else silent, tls=serving(host))
    answer = b"1\nc.0001.invalid|127.0.0.1|%d\n" % node.port
    with ScriptedServer(saying(answer), tls=serving()) as endpoint:
        url = f"memcacheds+elasticache://127.0.0.1:{endpoint.port}"
        with connect(url, settings=Settings(tls=trusting(), timeout=5.0)) as client:
            if is_served:
                assert client.set("key", b"v")
                client.close()
                node.__exit__(None, None, None)
                return
            with pytest.raises(ConnectError, match="certificate was not accepted"):
                client.set("key", b"v")
    with pytest.raises(ssl.SSLError):  # from the view of the server
        node.__exit__(None, None, None)


def test_a_server_that_is_not_an_endpoint_is_a_client_error(shared_memcached: Memcached) -> None:
    node = Node(shared_memcached.url.partition("//")[2].strip("/"))
    with pytest.raises(ClientError, match="is not a discovery endpoint; write the nodes") as refused:
        ElastiCacheSource(node).poll()
    assert str(refused.value).startswith(f"config_get_cluster on {node}: ")


def test_a_silent_endpoint_is_a_timeout_and_an_absent_one_a_connect_error() -> None:
    with ScriptedServer(silent) as server:
        with pytest.raises(OperationTimeout):
            ElastiCacheSource(server.node, settings=Settings(timeout=0.05, connect_timeout=0.05)).poll()
        node = server.node
    with pytest.raises(ConnectError):
        ElastiCacheSource(node).poll()


def test_a_poll_may_take_longer_than_one_operation() -> None:
    def slow(peer: Peer) -> None:
        peer.expect(b"config get cluster\r\n")
        peer.send(b"CONFIG cluster 0 6\r\n1\nz||1\r\nEND\r\n", chunks=range(1, 36), delay=0.005)
        peer.expect_end()

    with ScriptedServer(slow) as server:
        assert ElastiCacheSource(server.node, settings=Settings(timeout=0.02, connect_timeout=5.0)).poll()


@pytest.mark.parametrize(("size", "limit"), [(MAX_REPLY + 1, MAX_REPLY), (10**9, MAX_REPLY), (101, 100)])
def test_a_reply_that_announces_more_than_its_limit_is_refused(size: int, limit: int) -> None:
    def announcing(peer: Peer) -> None:
        peer.expect(b"config get cluster\r\n")
        peer.send(b"CONFIG cluster 0 %d\r\n" % size)
        peer.expect_end()

    settings = Settings(timeout=5.0, max_reply_size=limit if limit < MAX_REPLY else 1 << 30)
    with (
        ScriptedServer(announcing) as server,
        pytest.raises(ProtocolError, match=f"{size} bytes, the limit is {limit}"),
    ):
        ElastiCacheSource(server.node, settings=settings).poll()
