"""The Django site: by its development server, which makes a thread for each request, and under ASGI."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final

from metacache import Cluster
from metacache.testing import Memcached

PROGRAM: Final = Path(__file__).parents[2] / "examples" / "django_site.py"
ADDRESS: Final = re.compile(r"development server at http://127\.0\.0\.1:(\d+)/")
TEA: Final = {"name": "Tea", "cents": 350}

# 400 requests under ASGI, one after the other, half of them to the async view; then the last answer of each view.
REQUESTS: Final = """
import asyncio, json
from django_site import asgi

async def get(path):
    messages = iter([{"type": "http.request", "body": b""}])
    sent = []
    async def receive():
        return next(messages, None) or await asyncio.Future()
    async def send(message):
        sent.append(message)
    scope = {"type": "http", "method": "GET", "path": path, "headers": [(b"host", b"localhost")], "query_string": b""}
    await asyncio.create_task(asgi(scope, receive, send))
    return json.loads(sent[1]["body"])

async def main():
    for _ in range(200):
        product = await get("/products/tea/")
        products = await get("/products/")
    print(json.dumps([product, products]))

asyncio.run(main())
"""


def environment(location: str) -> Mapping[str, str]:
    return {**os.environ, "CACHE_LOCATION": location, "PYTHONUNBUFFERED": "1"}


def dialled(server: Memcached) -> int:
    with Cluster([server.node]) as cluster:
        stats = cluster.stats()[server.node]
    assert isinstance(stats, dict)
    return int(stats["total_connections"])


@contextmanager
def running(location: str) -> Generator[int]:
    """Run the development server; yield its port."""
    command = [sys.executable, str(PROGRAM), "runserver", "--noreload", "127.0.0.1:0"]
    with subprocess.Popen(
        command, env=environment(location), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as program:
        assert program.stdout is not None
        try:
            found = next(filter(None, map(ADDRESS.search, program.stdout)), None)
            assert found is not None, "the server did not start"
            yield int(found[1])
        finally:
            program.kill()


def get(port: int, path: str, cookie: str = "") -> tuple[int, Any, str]:  # Any: JSON
    """Return the status, the answer and the cookie of the session."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        for _ in range(100):
            try:
                connection.request("GET", path, headers={"Cookie": cookie} if cookie else {})
                break
            except ConnectionRefusedError:  # the server says its address a little before it listens
                time.sleep(0.05)
        response = connection.getresponse()
        sent = response.headers.get("Set-Cookie", "").partition(";")[0]
        return response.status, json.loads(response.read()), sent or cookie
    finally:
        connection.close()


def test_the_site_keeps_objects_counts_and_sessions_in_the_cache(memcached: Memcached) -> None:
    with running(str(memcached.node.address)) as port:
        status, answer, _ = get(port, "/products/tea/")
        assert (status, answer) == (200, {"product": TEA, "views": 1})
        before = dialled(memcached)
        cookie = ""
        for number in range(1, 11):
            assert get(port, "/products/tea/")[1]["views"] == number + 1
            _, answer, cookie = get(port, "/visit/", cookie)
            assert answer == {"visits": number}
        assert dialled(memcached) - before == 1  # that of `dialled`
        assert get(port, "/products/")[1] == {"tea": TEA}
        assert get(port, "/products/none/")[0] == 404


def test_400_requests_under_asgi_dial_once_for_threads_and_once_for_the_event_loop(memcached: Memcached) -> None:
    time.sleep(0.1)  # until the server has counted the connection that started it
    before = dialled(memcached)
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", REQUESTS],
        env=environment(str(memcached.node.address)),
        cwd=PROGRAM.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert json.loads(ran.stdout) == [{"product": TEA, "views": 200}, {"tea": TEA}]
    assert dialled(memcached) - before - 1 == 2


def test_the_site_works_without_its_cache() -> None:
    with running("127.0.0.1:1") as port:
        assert get(port, "/products/tea/")[:2] == (200, {"product": TEA, "views": 0})
        assert get(port, "/products/")[:2] == (200, {})
