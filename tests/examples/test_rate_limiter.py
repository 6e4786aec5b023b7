"""The rate limiter: its counting with a clock of the test's own, and the whole program over HTTP."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from examples.rate_limiter import RateLimiter
from metacache import Client, Connection, Node, load_serializer
from metacache.testing import FakeServer, FakeTransport, Memcached

PROGRAM: Final = Path(__file__).parents[2] / "examples" / "rate_limiter.py"


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


def test_a_window_allows_its_limit_and_ends_although_calls_go_on() -> None:
    clock = Clock()
    transport = FakeTransport(FakeServer(clock=clock))
    limiter = RateLimiter(Client(transport, load_serializer("int", int)), limit=2, window=60)
    assert [limiter.allows("ada") for _ in range(3)] == [True, True, False]
    assert limiter.allows("bob")
    clock.now += 59
    assert not limiter.allows("ada")
    clock.now += 1
    assert limiter.allows("ada")
    assert transport.operations == ["increment"] * 6  # one exchange per call


def test_without_its_cache_the_limiter_allows_every_call() -> None:
    with Connection(Node("127.0.0.1:1")) as transport:
        limiter = RateLimiter(Client(transport, load_serializer("int", int)), limit=1, window=60)
        assert [limiter.allows("ada") for _ in range(3)] == [True, True, True]


@contextmanager
def running(url: str) -> Generator[str]:
    """Run the program on a free port; yield its address."""
    environment = {**os.environ, "CACHE_URL": url}
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), "0"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as program:
        assert program.stdout is not None
        try:
            yield program.stdout.readline().strip()
        finally:
            program.kill()


def get(address: str, path: str) -> tuple[int, str]:
    parts = urlsplit(address)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_two_processes_of_the_service_share_one_limit(memcached: Memcached) -> None:
    with running(memcached.url) as one, running(memcached.url) as two:
        answers = [get(address, "/x") for address in (one, two, one, two, one, two, one)]
    assert answers[:5] == [(200, "hello, this is /x\n")] * 5
    assert answers[5:] == [(429, "too many requests\n")] * 2
