"""What is made of the wrong parts says so when it is made, and names what it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from metacache import (
    AsyncCluster,
    AsyncConnection,
    AsyncPool,
    Cluster,
    Connection,
    InvalidTypeError,
    Node,
    Pool,
    RendezvousRouter,
)

NODE: Final = Node("127.0.0.1:1")
Make = Callable[..., object]


@pytest.mark.parametrize("make", [Connection, AsyncConnection])
def test_a_connection_is_to_a_node(make: Make) -> None:
    with pytest.raises(InvalidTypeError, match="to a Node, not str"):
        make("127.0.0.1:1")


@pytest.mark.parametrize("make", [Cluster, AsyncCluster, RendezvousRouter])
@pytest.mark.parametrize(
    ("nodes", "told"), [(5, "an iterable of Node, not int"), (["127.0.0.1:1"], "one of them is str")]
)
def test_a_cluster_is_of_nodes(make: Make, nodes: Any, told: str) -> None:  # Any: what a checker would refuse
    with pytest.raises(InvalidTypeError, match=told):
        make(nodes)


@pytest.mark.parametrize("make", [Connection, AsyncConnection, Pool, AsyncPool])
def test_the_settings_of_one_node_are_settings(make: Make) -> None:
    with pytest.raises(InvalidTypeError, match="a Settings, not dict"):
        make(NODE, settings={"timeout": 0.5})


@pytest.mark.parametrize("make", [Cluster, AsyncCluster])
def test_the_settings_of_a_cluster_are_settings(make: Make) -> None:
    with pytest.raises(InvalidTypeError, match="a Settings, not dict"):
        make([NODE], settings={"timeout": 0.5})
