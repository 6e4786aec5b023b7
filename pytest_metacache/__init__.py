"""The pytest plugin of metacache: fixtures for tests of code that uses a cache.

It has a package of its own and imports metacache inside the fixtures only. So pytest loads nothing of metacache in a
run that uses no fixture of this plugin.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from metacache.testing import Faults, MovableClock, PrivateServer
    from metacache.testing.fixtures import EmbeddedServer

__all__ = [
    "memcached",
    "metacache_clock",
    "metacache_faults",
    "metacache_socket_url",
    "metacache_url",
]

_OPTION: Final = "--metacache-server"
_CHOICES: Final = ("auto", "memcached", "embedded")
_HELP: Final = "server of the fixture memcached: auto (a memcached if one is installed), memcached or embedded"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that chooses the server, and its setting in the configuration file."""
    group = parser.getgroup("metacache")
    group.addoption(_OPTION, choices=_CHOICES, default=None, help=_HELP)
    parser.addini("metacache_server", _HELP, default="auto")


def pytest_report_header(config: pytest.Config) -> str:
    """Say which server the fixture memcached uses."""
    choice = _choice(config)
    program = os.environ.get("METACACHE_MEMCACHED") or shutil.which("memcached")
    if choice == "embedded":
        return "metacache: the fixture memcached uses the embedded server"
    if program is not None:
        return f"metacache: the fixture memcached starts {program}"
    missing = "memcached is not installed"
    if choice == "memcached":
        return f"metacache: the fixture memcached fails: {missing}"
    return f"metacache: the fixture memcached uses the embedded server ({missing})"


def _choice(config: pytest.Config) -> str:
    given: str = config.getoption(_OPTION) or config.getini("metacache_server")
    if given not in _CHOICES:
        raise pytest.UsageError(f"metacache_server is one of {', '.join(_CHOICES)}, not {given!r}")
    return given


@pytest.fixture(scope="session")
def _metacache_server(pytestconfig: pytest.Config) -> Iterator[PrivateServer]:
    """The server of the fixture memcached: one for each pytest process, so one for each worker of xdist."""
    from metacache.testing.fixtures import start_server

    with start_server(_choice(pytestconfig)) as server:
        yield server


@pytest.fixture
def memcached(_metacache_server: PrivateServer) -> PrivateServer:
    """A private server with ``url`` and ``node``, empty at the start of each test.

    It is a memcached process if memcached is installed, else the embedded server. Its ``kind`` says which.
    """
    from metacache.testing.fixtures import make_ready

    make_ready(_metacache_server)
    return _metacache_server


@pytest.fixture
def _metacache_embedded() -> Iterator[EmbeddedServer]:
    """An embedded server for one test."""
    from metacache.testing.fixtures import EmbeddedServer

    with EmbeddedServer() as embedded:
        yield embedded


@pytest.fixture
def metacache_url(_metacache_embedded: EmbeddedServer) -> str:
    """The ``memory://`` URL of an embedded server that belongs to this test alone."""
    return _metacache_embedded.url


@pytest.fixture
def metacache_socket_url(_metacache_embedded: EmbeddedServer) -> str:
    """The URL of the server of metacache_url on a loopback port, for other processes and for tests of sockets."""
    return _metacache_embedded.listen()


@pytest.fixture
def metacache_clock(_metacache_embedded: EmbeddedServer) -> MovableClock:
    """The clock of the server of metacache_url. ``advance(60)`` moves its time."""
    return _metacache_embedded.clock


@pytest.fixture
def metacache_faults(_metacache_embedded: EmbeddedServer) -> Faults:
    """The fault script of the server of metacache_url."""
    return _metacache_embedded.server.faults
