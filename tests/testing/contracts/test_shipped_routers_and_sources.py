"""The router and the node sources that metacache ships keep their contracts."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator, Sequence

import pytest
from typing_extensions import override

from metacache import Node, RendezvousRouter, Router, Settings
from metacache.discovery import DnsSource, ElastiCacheSource, NodeSource, StaticSource
from metacache.nodes import TcpAddress
from metacache.testing import NodeSourceContract, RouterContract

NODES = (Node("10.0.0.1:11211", name="a"), Node("10.0.0.2:11211", weight=2.0, name="b"))
NOWHERE = Node("127.0.0.1:1")


class TestRendezvousRouter(RouterContract):
    @override
    def router(self, nodes: Sequence[Node]) -> Router:
        return RendezvousRouter(nodes)


class TestStaticSource(NodeSourceContract):
    @override
    def source(self) -> NodeSource:
        return StaticSource(reversed(NODES))

    @override
    def expected(self) -> Sequence[Node]:
        return NODES


class TestDnsSource(NodeSourceContract):
    @override
    def source(self) -> NodeSource:
        return DnsSource("127.0.0.1", 11211, naming_time=0)

    @override
    def expected(self) -> Sequence[Node]:
        return [Node(TcpAddress("127.0.0.1", 11211, "127.0.0.1"))]

    @override
    def failing(self) -> NodeSource:
        return DnsSource("does-not-exist.invalid", 11211)


CONFIGURATION = b"3\none.example|10.0.0.1|11211 two.example|10.0.0.2|11211\n"


class Endpoint(socketserver.StreamRequestHandler):
    """Answers ``config get cluster`` on any number of connections."""

    @override
    def handle(self) -> None:
        while self.rfile.readline() == b"config get cluster\r\n":
            self.wfile.write(b"CONFIG cluster 0 %d\r\n%b\r\nEND\r\n" % (len(CONFIGURATION), CONFIGURATION))


class TestElastiCacheSource(NodeSourceContract):
    @pytest.fixture(autouse=True)
    def _endpoint(self) -> Iterator[None]:
        with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Endpoint) as server:
            self.node = Node(f"127.0.0.1:{server.server_address[1]}")
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            yield
            server.shutdown()
            thread.join()

    @override
    def source(self) -> NodeSource:
        return ElastiCacheSource(self.node, settings=Settings(timeout=5.0))

    @override
    def expected(self) -> Sequence[Node]:
        return [
            Node(TcpAddress(f"10.0.0.{number}", 11211, "127.0.0.1"), name=f"{host}:11211")
            for number, host in ((1, "one.example"), (2, "two.example"))
        ]

    @override
    def failing(self) -> NodeSource:
        return ElastiCacheSource(NOWHERE)
