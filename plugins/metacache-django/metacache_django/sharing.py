"""`Shared`: the clients of one location and its OPTIONS. All cache objects of a process with the same ones share it.

Django makes a cache object for each thread, and under ASGI for each request. Connections must outlive these objects.
This module opens clusters. It holds no lock, so a fork while a thread opens a cluster cannot block the child.
"""

from __future__ import annotations

import atexit
from collections.abc import Mapping
from typing import Any, Final, TypeAlias, final

import attrs
from django.core.signals import setting_changed

from metacache import AsyncClient, Client, Cluster, load_serializer
from metacache.cluster.per_loop import PerLoop
from metacache_django.options import Configuration, Location, configuration
from metacache_django.sealing import SEALED

__all__ = ["AsyncClients", "Clients", "Shared", "shared"]


@final
@attrs.frozen
class Clients:
    """The blocking clients of one cluster.

    Attributes:
        cluster: their transport.
        values: stores sealed values.
        numbers: counts.
    """

    cluster: Cluster
    values: Client[bytes]
    numbers: Client[int]

    @classmethod
    def of(cls, configured: Configuration) -> Clients:
        """Open a cluster and return its clients."""
        cluster = configured.open()
        values = Client(cluster, SEALED, on_error=configured.on_error, compressor=configured.compressor)
        return cls(cluster, values, Client(cluster, load_serializer("int", int), on_error=configured.on_error))


@final
@attrs.frozen
class AsyncClients:
    """The asyncio clients of the clusters of all event loops. The attributes are those of `Clients`."""

    values: AsyncClient[bytes]
    numbers: AsyncClient[int]

    @classmethod
    def of(cls, configured: Configuration) -> AsyncClients:
        """Return the clients. Each event loop opens a cluster at its first use, and closes it at its end."""
        transport = PerLoop(
            configured.open_async, name=configured.name, owner="MetaCache", timeout=configured.settings.timeout
        )
        values = AsyncClient(transport, SEALED, on_error=configured.on_error, compressor=configured.compressor)
        return cls(values, AsyncClient(transport, load_serializer("int", int), on_error=configured.on_error))


@final
class Shared:
    """The clients of one configuration. `blocking` opens them at the first use, and again after `close`.

    Args:
        configured: the location and the options.
    """

    __slots__ = ("_clients", "aio", "configured")

    def __init__(self, configured: Configuration) -> None:
        self.configured = configured
        self.aio = AsyncClients.of(configured)
        self._clients: dict[str, Clients] = {}

    @property
    def ignores_errors(self) -> bool:
        """True if a write does nothing when a server is down."""
        return self.configured.on_error == "ignore"

    @property
    def blocking(self) -> Clients:
        """The clients for threads."""
        try:
            return self._clients[""]
        except KeyError:
            pass
        made = Clients.of(self.configured)
        kept = self._clients.setdefault("", made)  # of two threads that make clients, both get those of the first one
        if kept is not made:
            made.cluster.close()
        return kept

    def close(self) -> None:
        """Close the cluster of the threads. The clusters of event loops close with their loops. Idempotent."""
        clients = self._clients.pop("", None)
        if clients is not None:
            clients.cluster.close()


_Key: TypeAlias = tuple[object, ...]
_all: Final[dict[_Key, Shared]] = {}


def shared(location: Location, options: Mapping[str, Any]) -> Shared:  # Any: values of every type
    """Return the `Shared` of *location* and *options*. Raises ImproperlyConfigured."""
    key = _key(location, options)
    found = _all.get(key)
    return _all.setdefault(key, Shared(configuration(location, options))) if found is None else found


def _key(location: Location, options: Mapping[str, object]) -> _Key:
    # An object, such as an SSL context, is compared by identity. `Shared` keeps it, so no other object gets its id.
    parts = [(name, type(each), each if isinstance(each, _PLAIN) else id(each)) for name, each in options.items()]
    return (location if isinstance(location, str) else tuple(location), *sorted(parts, key=repr))


_PLAIN: Final = (str, int, float, type(None))


def _close_all() -> None:
    for each in tuple(_all.values()):
        each.close()


def _on_setting_changed(*, setting: str, **_: object) -> None:
    """Close the connections of the settings that a test replaced (``override_settings``)."""
    if setting == "CACHES":
        _close_all()


setting_changed.connect(_on_setting_changed, dispatch_uid="metacache_django")
atexit.register(_close_all)
