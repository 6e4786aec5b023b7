"""Constructors check the types of their arguments, and the error names the right type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import pytest

from metacache import (
    AsyncClient,
    AsyncCluster,
    AsyncConnection,
    AsyncPool,
    Client,
    Cluster,
    Connection,
    InvalidArgumentError,
    InvalidTypeError,
    Node,
    Pool,
    RendezvousRouter,
    connect,
    connect_async,
)

NODE: Final = Node("127.0.0.1:1")
STRANGER: Final = Node("127.0.0.1:2")
Make = Callable[..., object]


@pytest.mark.parametrize("make", [Connection, AsyncConnection])
def test_a_connection_requires_a_node(make: Make) -> None:
    with pytest.raises(InvalidTypeError, match="to a Node, not str"):
        make("127.0.0.1:1")


@pytest.mark.parametrize("make", [Cluster, AsyncCluster, RendezvousRouter])
@pytest.mark.parametrize(
    ("nodes", "message"), [(5, "an iterable of Node, not int"), (["127.0.0.1:1"], "it contains str")]
)
def test_a_cluster_requires_nodes(make: Make, nodes: Any, message: str) -> None:  # Any: a type checker would refuse it
    with pytest.raises(InvalidTypeError, match=message):
        make(nodes)


@pytest.mark.parametrize("make", [Connection, AsyncConnection, Pool, AsyncPool])
def test_a_connection_or_pool_requires_settings(make: Make) -> None:
    with pytest.raises(InvalidTypeError, match="a Settings, not dict"):
        make(NODE, settings={"timeout": 0.5})


@pytest.mark.parametrize("make", [Cluster, AsyncCluster])
def test_a_cluster_requires_settings(make: Make) -> None:
    with pytest.raises(InvalidTypeError, match="a Settings, not dict"):
        make([NODE], settings={"timeout": 0.5})


@pytest.mark.parametrize("make", [connect, connect_async])
@pytest.mark.parametrize("settings", [{}, 0, ""])
def test_connect_requires_settings_also_where_they_are_false(make: Make, settings: object) -> None:
    with pytest.raises(InvalidTypeError, match="a Settings, not"):
        make("memory://", str, settings=settings)


@pytest.mark.parametrize("make", [Cluster, AsyncCluster])
def test_a_cluster_requires_functions(make: Make) -> None:
    with pytest.raises(InvalidTypeError, match=r"router is a function .*, not an object of class RendezvousRouter"):
        make([NODE], router=RendezvousRouter([NODE]))
    with pytest.raises(InvalidTypeError, match=r"on_state_change is a function .*, not int"):
        make([NODE], on_state_change=5)


class First:
    """A router of the user that checks nothing: the first node owns every key."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = tuple(nodes)

    def pick(self, key: bytes, /) -> Node:  # noqa: ARG002 - the method of a router
        return self.nodes[0]

    def rank(self, key: bytes, n: int, /) -> tuple[Node, ...]:  # noqa: ARG002 - as above
        return self.nodes[:n]


@pytest.mark.parametrize("make", [Cluster, AsyncCluster])
@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([], "there are no nodes"),
        ([NODE, NODE], "two nodes have the name"),
        (["127.0.0.1:1"], "it contains str"),
        (5, "an iterable of Node, not int"),
    ],
)
def test_a_cluster_checks_its_nodes_with_any_router(make: Make, nodes: Any, message: str) -> None:  # Any: as above
    with pytest.raises(InvalidArgumentError, match=message):
        make(nodes, router=First)


class Lost:
    """A router that returns a node that the cluster does not have."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = tuple(nodes)

    def pick(self, _: bytes, /) -> Node:
        return STRANGER

    def rank(self, _: bytes, __: int, /) -> tuple[Node, ...]:
        return (STRANGER,)


def test_a_router_that_returns_an_unknown_node_is_a_typed_error() -> None:
    with Cluster([NODE], router=Lost) as cluster:
        client = Client(cluster)
        for use in (partial(client.get, "key"), partial(client.get_many, ["key"]), partial(client.set, "key", b"")):
            with pytest.raises(InvalidArgumentError, match=f"the router chose {STRANGER.name}"):
                use()


async def test_a_router_that_returns_an_unknown_node_is_a_typed_error_in_asyncio() -> None:
    async with AsyncCluster([NODE], router=Lost) as cluster:
        client = AsyncClient(cluster)
        with pytest.raises(InvalidArgumentError, match=f"the router chose {STRANGER.name}"):
            await client.get("key")
        with pytest.raises(InvalidArgumentError, match=f"the router chose {STRANGER.name}"):
            await client.get_many(["key"])
