"""Objects that own connections refuse copies and pickles with one clear error. The original is not affected."""

from __future__ import annotations

import copy
import pickle
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, Final

import attrs
import pytest

import metacache
from metacache import (
    AsyncClient,
    AsyncCluster,
    AsyncConnection,
    AsyncPool,
    Client,
    Cluster,
    Connection,
    InvalidTypeError,
    Node,
    Pool,
    Settings,
    connect,
    connect_async,
)
from metacache.discovery import DnsSource, ElastiCacheSource, StaticSource
from metacache.discovery.aio_watch import AsyncWatch
from metacache.discovery.watch import Watch
from metacache.testing import Memcached

SECRET: Final = "canary"
SETTINGS: Final = Settings(username="root", password=SECRET, poll_interval=3600.0)
NODE: Final = Node("127.0.0.1:1")
URL: Final = f"memcached://root:{SECRET}@127.0.0.1:1"
SOURCE: Final = StaticSource([NODE])


def nothing(_: object) -> None:
    pass


# Any: clients of any type, closed in different ways.
MAKE: Final[dict[str, Callable[[], Any]]] = {
    "Client": lambda: connect(URL),
    "a used view of a Client": lambda: connect(URL).with_options(prefix="p"),
    "AsyncClient": lambda: connect_async(URL),
    "a client of one Connection": lambda: Client(Connection(NODE, settings=SETTINGS)),
    "Connection": lambda: Connection(NODE, settings=SETTINGS),
    "AsyncConnection": lambda: AsyncConnection(NODE, settings=SETTINGS),
    "Pool": lambda: Pool(NODE, settings=SETTINGS),
    "AsyncPool": lambda: AsyncPool(NODE, settings=SETTINGS),
    "Cluster": lambda: Cluster([NODE], settings=SETTINGS),
    "AsyncCluster": lambda: AsyncCluster([NODE], settings=SETTINGS),
    "Watch": lambda: Watch(SOURCE, nothing, settings=SETTINGS, first=[NODE]),
    "AsyncWatch": lambda: AsyncWatch(SOURCE, nothing, settings=SETTINGS, first=[NODE]),
    "StaticSource": lambda: SOURCE,
    "DnsSource": lambda: DnsSource("localhost", 1),
    "ElastiCacheSource": lambda: ElastiCacheSource(NODE, settings=SETTINGS),
}
WAYS: Final[dict[str, Callable[[object], object]]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "deepcopy of a list": lambda made: copy.deepcopy([made]),
    "pickle of a dict": lambda made: pickle.dumps({"made": made}),
    **{f"pickle {number}": partial(pickle.dumps, protocol=number) for number in range(pickle.HIGHEST_PROTOCOL + 1)},
}


@pytest.fixture(params=MAKE)
async def made(request: pytest.FixtureRequest) -> AsyncIterator[Any]:  # Any: as in MAKE
    made = MAKE[request.param]()
    yield made
    if hasattr(made, "aclose"):
        await made.aclose()
    elif hasattr(made, "close"):
        made.close()


@pytest.mark.parametrize("way", WAYS)
async def test_a_copy_is_refused_and_the_error_names_the_alternative(made: object, way: str) -> None:
    name = type(made).__name__
    with pytest.raises(InvalidTypeError, match=f"a {name} cannot be copied or pickled.*connect") as refused:
        WAYS[way](made)
    assert isinstance(refused.value, TypeError)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("way", WAYS)
def test_a_bound_method_of_a_client_cannot_be_pickled(way: str) -> None:
    with connect(URL) as client, pytest.raises(InvalidTypeError, match="a Client cannot be copied"):
        WAYS["deepcopy" if way == "copy" else way](client.get)


@pytest.mark.parametrize("way", WAYS)
def test_the_original_still_works_after_a_refused_copy(way: str, shared_memcached: Memcached) -> None:
    with connect(shared_memcached.url) as client:
        assert client.set("copying", b"v")
        with pytest.raises(TypeError):
            WAYS[way](client)
        assert client.get("copying") == b"v"


def test_every_public_class_with_a_close_method_refuses_copies() -> None:
    closed = {
        name
        for name in metacache.__all__
        if isinstance(found := getattr(metacache, name), type)
        and (hasattr(found, "close") or hasattr(found, "aclose"))
        and not getattr(found, "_is_protocol", False)
    }
    copied = [Client, AsyncClient, Connection, AsyncConnection, Pool, AsyncPool, Cluster, AsyncCluster]
    assert closed == {each.__name__ for each in copied}
    assert all(getattr(metacache, name).__reduce_ex__ is not object.__reduce_ex__ for name in closed)


# --- values can be copied ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [SETTINGS, NODE, Settings()], ids=["settings", "node", "defaults"])
def test_settings_and_nodes_are_copied_and_pickled(value: object) -> None:
    assert copy.copy(value) == copy.deepcopy(value) == value
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(value, protocol)) == value


def test_changed_settings_keep_their_credentials() -> None:
    assert attrs.evolve(SETTINGS, timeout=0.1).password == SECRET
