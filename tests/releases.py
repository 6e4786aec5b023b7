"""What the memcached of a test run can do: its release, and a proxy if it has one."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

import pytest

from metacache import Cluster, Node, Settings
from metacache.testing import Memcached
from tests.conftest import start

__all__ = ["needs", "proxy", "release_of"]

PATIENT = Settings(timeout=10.0, connect_timeout=10.0)


def release_of(node: Node) -> tuple[int, ...]:
    """Return the release of the server, for example (1, 6, 18)."""
    with Cluster([node], settings=PATIENT) as cluster:
        (version,) = cluster.version().values()
    assert isinstance(version, str)
    return tuple(int(part) for part in version.partition("-")[0].split("_")[0].split("."))


def needs(node: Node, since: str) -> None:
    """Skip the test, with the reason, if the server of *node* is older than *since*."""
    found = release_of(node)
    if found < tuple(map(int, since.split("."))):
        pytest.skip(f"needs memcached {since}; this one is {'.'.join(map(str, found))} (METACACHE_MEMCACHED)")


@contextmanager
def proxy(backends: Iterable[Node], where: Path) -> Generator[Memcached]:
    """Start memcached's own proxy before *backends*; skip the test if this memcached has none."""
    listed = ", ".join(f'"{node.name}"' for node in backends)
    config = where / f"proxy-{abs(hash(listed))}.lua"
    config.write_text(
        f"pools{{ main = {{ backends = {{ {listed} }} }} }}\nroutes{{ default = route_direct{{ child = 'main' }} }}\n"
    )
    try:
        server = start("-o", f"proxy_config=routelib,proxy_arg={config}")
    except RuntimeError as error:
        pytest.skip(f"this memcached has no proxy with its route library: {error}")
    with server:
        yield server
