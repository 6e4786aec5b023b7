"""Shared by the tests of clusters: several servers, and keys by the node that owns them."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from metacache import Client, Cluster, MetacacheError, Node, Settings
from metacache.observe import NodeState
from metacache.testing import Memcached
from tests.conftest import start
from tests.pool.rig import until

PATIENT: Final = Settings(timeout=10.0)
QUICK: Final = Settings(timeout=0.3)
NOWHERE: Final = Node("127.0.0.1:1", name="nowhere")  # refuses every connection


@contextmanager
def servers(count: int) -> Generator[list[Memcached]]:
    """Run *count* private servers."""
    with ExitStack() as stack:
        yield [stack.enter_context(start()) for _ in range(count)]


def nodes_of(servers: list[Memcached]) -> list[Node]:
    """Return the nodes of *servers*, named a, b, c, …: their keys are the same in every run."""
    return [Node(server.node.address, name="abcdefgh"[place]) for place, server in enumerate(servers)]


def keys_of(cluster: Cluster, name: str, count: int, prefix: str = "key") -> list[str]:
    """Return *count* keys that the node called *name* owns."""
    numbered = (f"{prefix}:{number}" for number in range(1_000_000))
    owned = (key for key in numbered if cluster.router.pick(key.encode()).name == name)
    return [key for key, _ in zip(owned, range(count), strict=False)]


def key_of(cluster: Cluster, name: str) -> str:
    """Return a key that the node called *name* owns."""
    return keys_of(cluster, name, 1)[0]


def state_of(cluster: Cluster, name: str) -> NodeState:
    """Return the state of the node called *name*."""
    return {node.name: state for node, state in cluster.states.items()}[name]


def failure_of(operation: Callable[[], object]) -> MetacacheError:
    """Return the error that *operation* raises."""
    try:
        operation()
    except MetacacheError as error:
        return error
    raise AssertionError("it did not fail")


def bring_down(client: Client[bytes], key: str) -> None:
    """Fail three times on the node of *key*."""
    for _ in range(3):
        failure_of(lambda: client.get(key))


def freeze(server: Memcached) -> None:
    """Freeze *server*, and wait until none of its threads runs any more."""
    server.freeze()
    tasks = Path(f"/proc/{server.pid}/task")
    until(lambda: all(_state_letter(task) == "T" for task in tasks.iterdir()))


def _state_letter(task: Path) -> str:
    # proc(5): "pid (name) state …"
    return (task / "stat").read_text().rpartition(") ")[2][:1]
