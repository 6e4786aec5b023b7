"""`ElastiCacheSource`: asks a discovery endpoint for the nodes of its cluster. Opens a new connection for each poll."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Final, final

import attrs

from metacache.copying import refuse_copy
from metacache.discovery.elasticache_answers import ClusterConfig, newer_config, parse_config
from metacache.discovery.hosts import tcp_address
from metacache.errors import ClientError
from metacache.marks import override
from metacache.nodes import Node, TcpAddress
from metacache.protocol import commands
from metacache.protocol.replies import Reply
from metacache.settings import Settings
from metacache.transports.base import Operation, Verb
from metacache.transports.blocking.connection import Connection

__all__ = ["ElastiCacheSource", "elasticache_source"]

DEFAULTS: Final = Settings()
# Bytes. ElastiCache has 300 nodes at most, with about 100 bytes each.
MAX_REPLY: Final = 1 << 20
CONFIG: Final = Verb("config_get_cluster", commands.CONFIG_GET_CLUSTER, is_read=True)


@final
class ElastiCacheSource:
    """The nodes in the reply of a discovery endpoint of ElastiCache or Memorystore to ``config get cluster``.

    The identity of a node is its host name and port. The client dials the IP address in the reply, or the host name if
    the reply has no address. With TLS, a node needs a certificate for its host name in the reply if the certificate of
    the endpoint was verified. Otherwise it needs one for the name of the endpoint: an attacker who replaces an
    unverified endpoint could choose the host names. A reply with a lower version than the last one is refused, and one
    of more than 1 MiB before memory is allocated.

    Args:
        endpoint: the configuration endpoint, as the console of the provider shows it.
        settings: TLS, credentials and timeouts of the connection to the endpoint.
    """

    __reduce_ex__ = refuse_copy

    def __init__(self, endpoint: Node, *, settings: Settings = DEFAULTS) -> None:
        self._endpoint = endpoint
        self._settings = attrs.evolve(settings, max_reply_size=min(settings.max_reply_size, MAX_REPLY))
        is_verified = settings.tls is not None and settings.tls.check_hostname
        address = endpoint.address
        hostname = address.certificate_name if isinstance(address, TcpAddress) else None
        self._server_hostname = None if is_verified else hostname
        self._last: ClusterConfig | None = None

    @override
    def __repr__(self) -> str:
        version = "not polled yet" if self._last is None else f"version {self._last.version}"
        return f"<ElastiCacheSource {self._endpoint.name}: {version}>"

    def poll(self) -> Sequence[Node]:
        """Return the current nodes of the cluster, within the sum of ``connect_timeout`` and ``timeout``.

        Raises ClientError if the server is not a discovery endpoint, ProtocolError if the list is broken, empty or out
        of date, and the errors of a connection.
        """
        # A new connection for each poll, which happens about twice a minute: the endpoint moves from node to node.
        with Connection(self._endpoint, settings=self._settings) as connection:
            # Not `timeout` alone: it may be a few milliseconds, which is too short for discovery.
            deadline = monotonic() + self._settings.connect_timeout + self._settings.timeout
            try:
                config = connection.run(self._question(), deadline=deadline)
            except ClientError as error:
                problem = "the server is not a discovery endpoint; write the nodes themselves in the URL"
                raise ClientError(problem, node=self._endpoint.name, operation=CONFIG.name) from error
        self._last = config
        return config.nodes

    def _question(self) -> Operation[ClusterConfig]:
        op: Operation[ClusterConfig] = Operation()
        op.verb, op.given, op.key, op.body = CONFIG, None, b"", None
        op.head = commands.config_get_cluster().head
        op.read = self._read
        return op

    def _read(self, reply: Reply) -> ClusterConfig:
        _, data = reply
        return newer_config(self._last, parse_config(data or b"", server_hostname=self._server_hostname))


def elasticache_source(host: str, port: int, /, *, settings: Settings) -> ElastiCacheSource:
    """Return the source for ``memcached+elasticache://host:port``."""
    return ElastiCacheSource(Node(tcp_address(host, port)), settings=settings)
