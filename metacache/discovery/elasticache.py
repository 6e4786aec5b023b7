"""`ElastiCacheSource`: asks a discovery endpoint which nodes there are, over a connection of its own each time."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Final, final

from typing_extensions import override

from metacache.copying import refuse_copy
from metacache.discovery.elasticache_answers import ClusterConfig, parse_config, successor
from metacache.discovery.hosts import tcp_address
from metacache.errors import ClientError
from metacache.nodes import Node, UnixAddress
from metacache.protocol import commands
from metacache.protocol.replies import Reply
from metacache.settings import Settings
from metacache.transports.base import Operation, Verb
from metacache.transports.blocking.connection import Connection

__all__ = ["ElastiCacheSource", "elasticache_source"]

DEFAULTS: Final = Settings()
CONFIG: Final = Verb("config_get_cluster", commands.CONFIG_GET_CLUSTER, is_read=True)


@final
class ElastiCacheSource:
    """What a discovery endpoint of ElastiCache or Memorystore answers to ``config get cluster``.

    A node's identity is its host name and port. It is dialled at the IP address that the endpoint names. Over TLS its
    certificate must have the host name that the endpoint names if the endpoint's own certificate was verified, else the
    name of the endpoint: without that check, an attacker in the endpoint's place could choose the name. Every list
    has a version, which must not fall: an endpoint that is behind the others is not believed.

    Args:
        endpoint: the configuration endpoint, as the console of the provider shows it.
        settings: TLS, credentials and timeouts, as for the nodes.
    """

    __reduce_ex__ = refuse_copy

    def __init__(self, endpoint: Node, *, settings: Settings = DEFAULTS) -> None:
        self._endpoint = endpoint
        self._settings = settings
        is_verified = settings.tls is not None and settings.tls.check_hostname
        address = endpoint.address
        self._server_hostname = None if is_verified or isinstance(address, UnixAddress) else address.certificate_name
        self._last: ClusterConfig | None = None

    @override
    def __repr__(self) -> str:
        version = "not asked yet" if self._last is None else f"version {self._last.version}"
        return f"<ElastiCacheSource {self._endpoint.name}: {version}>"

    def poll(self) -> Sequence[Node]:
        """Return the nodes of the cluster now, within ``connect_timeout`` and ``timeout`` together.

        Raises ClientError when the server is not a discovery endpoint, ProtocolError for a list that is broken, empty
        or out of date, and what a connection raises.
        """
        # A connection each time: the endpoint is a name that moves from node to node, and is asked twice a minute.
        with Connection(self._endpoint, settings=self._settings) as connection:
            # No caller waits for it, so a timeout of a few milliseconds need not fail discovery.
            deadline = monotonic() + self._settings.connect_timeout + self._settings.timeout
            try:
                config = connection.run(self._question(), deadline=deadline)
            except ClientError as error:
                why = "it does not answer 'config get cluster' as a discovery endpoint does; name the nodes themselves"
                raise ClientError(why, node=self._endpoint.name, operation=CONFIG.name) from error
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
        return successor(self._last, parse_config(data or b"", server_hostname=self._server_hostname))


def elasticache_source(host: str, port: int, /, *, settings: Settings) -> ElastiCacheSource:
    """Return the source that ``memcached+elasticache://host:port`` means."""
    return ElastiCacheSource(Node(tcp_address(host, port)), settings=settings)
