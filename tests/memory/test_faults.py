"""Fault scripts act in process and over sockets, on both clients, as the same failures of a real server do."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from metacache import (
    AsyncClient,
    Client,
    Cluster,
    ConnectionLost,
    InvalidArgumentError,
    MetacacheError,
    OperationTimeout,
    ServerError,
    Settings,
    connect,
    connect_async,
)
from metacache.memory.faults import Faults
from metacache.memory.registry import server_named
from metacache.memory.server import MemoryServer
from metacache.testing.served import ServedMemory

VALUE = b"value " * 20
Script = Callable[[Faults], None]


class Place:
    """An embedded server, and the URL of it: in process, on a TCP port or on a unix socket."""

    def __init__(self, server: MemoryServer, url: str) -> None:
        self.server = server
        self.url = url
        server.faults.clear()
        server.answer(b"flush_all\r\n")


@pytest.fixture(params=["memory", "tcp", "unix"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    if request.param == "memory":
        yield Place(server_named("faults"), "memory://faults")
        return
    with ServedMemory(unix=request.param == "unix") as served:
        yield Place(served.server, served.url)


@asynccontextmanager
async def client_of(kind: str, url: str) -> AsyncGenerator[AsyncClient[bytes] | _Blocking, None]:
    if kind == "asyncio":
        async with connect_async(url, settings=Settings(timeout=0.4)) as tasks:
            yield tasks
    else:
        with connect(url, settings=Settings(timeout=0.4)) as blocking:
            yield _Blocking(blocking)


class _Blocking:
    """The blocking client with methods that are coroutines."""

    def __init__(self, client: Client[bytes]) -> None:
        self._client = client

    async def get(self, key: str) -> bytes | None:
        return self._client.get(key)

    async def set(self, key: str, value: bytes) -> object:
        return self._client.set(key, value)

    async def get_many(self, keys: list[str]) -> dict[str, bytes]:
        return self._client.get_many(keys)


HARMLESS: dict[str, Script] = {
    "a value cut in the middle": lambda faults: faults.on("mg").close_mid_value(),
    "a reset": lambda faults: faults.on("mg").reset(),
    "a close": lambda faults: faults.on("mg").close(),
    "single bytes": lambda faults: faults.on("mg", times=None).split_every(1),
    "a short delay": lambda faults: faults.on("mg").delay(0.05),
}
HARMFUL: dict[str, tuple[Script, type[MetacacheError]]] = {
    "two cut values": (lambda faults: faults.on("mg", times=2).close_mid_value(), ConnectionLost),
    "two resets": (lambda faults: faults.on("mg", times=2).reset(), ConnectionLost),
    "a server that stops reading": (lambda faults: faults.on("mg").stop_reading(), OperationTimeout),
    "a long delay": (lambda faults: faults.on("mg").delay(5), OperationTimeout),
    "an error line": (lambda faults: faults.on("mg").error("SERVER_ERROR out of memory"), ServerError),
    "bytes of another protocol": (lambda faults: faults.on("mg").reply(b"HTTP/1.1 400\r\n"), MetacacheError),
}


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
@pytest.mark.parametrize("name", HARMLESS)
async def test_a_read_survives(place: Place, kind: str, name: str) -> None:
    async with client_of(kind, place.url) as client:
        await client.set("k", VALUE)
        HARMLESS[name](place.server.faults)
        assert await client.get("k") == VALUE
        assert await client.get_many(["k", "none"]) == {"k": VALUE}


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
@pytest.mark.parametrize("name", HARMLESS)
async def test_a_batch_survives(place: Place, kind: str, name: str) -> None:
    async with client_of(kind, place.url) as client:
        await client.set("k", VALUE)
        HARMLESS[name](place.server.faults)
        assert await client.get_many(["k", "none"]) == {"k": VALUE}


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
@pytest.mark.parametrize("name", HARMFUL)
async def test_a_read_fails_with_a_typed_error_in_time_and_later_ones_succeed(
    place: Place, kind: str, name: str
) -> None:
    script, error = HARMFUL[name]
    async with client_of(kind, place.url) as client:
        await client.set("k", VALUE)
        script(place.server.faults)
        began = time.monotonic()
        with pytest.raises(error):
            await client.get("k")
        assert time.monotonic() - began < 3
        # Under asyncio the connection is closed when nothing has arrived for `timeout`, so the next read may fail too.
        with contextlib.suppress(OperationTimeout, ConnectionLost):
            await client.get("k")
        assert await client.get("k") == VALUE


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
async def test_a_write_that_was_executed_before_the_reset_may_be_applied(place: Place, kind: str) -> None:
    async with client_of(kind, place.url) as client:
        await client.set("k", b"old")
        place.server.faults.on("ms").reset()
        with pytest.raises(ConnectionLost) as raised:
            await client.set("k", b"new")
        assert raised.value.maybe_applied
        assert await client.get("k") == b"new"
        place.server.faults.on("ms").reset(executes=False)
        with pytest.raises(ConnectionLost):
            await client.set("k", b"newer")
        assert await client.get("k") == b"new"


def test_the_nth_request_meets_the_fault_and_later_ones_do_not() -> None:
    server = MemoryServer()
    server.faults.on("mg", n=3).reply(b"HD\r\n")
    assert server.answer(b"mg k\r\nmn\r\nmg k\r\nmg k\r\nmg k\r\n") == b"EN\r\nMN\r\nEN\r\nHD\r\nEN\r\n"
    server.faults.on("*", times=2).error("SERVER_ERROR busy")
    assert server.answer(b"mn\r\nmg k\r\nmn\r\n") == b"SERVER_ERROR busy\r\n" * 2 + b"MN\r\n"
    server.faults.on("mg", times=None).reply(b"HD\r\n")
    server.faults.clear()
    assert server.answer(b"mg k\r\n") == b"EN\r\n"
    assert not server.faults.are_armed


def test_a_frozen_node_fails_its_part_of_a_batch_only() -> None:
    with Cluster.from_url("memory://part1,part2/?timeout=0.3") as cluster:
        client = cluster.client(str)
        texts = {f"k{number}": str(number) for number in range(50)}
        client.set_many(texts)
        server_named("part1").faults.on("mg").stop_reading()
        outcomes = client.get_many_outcomes(list(texts))
        owned = {key for key in texts if cluster.router.pick(key.encode()).name == "memory://part1"}
        assert set(outcomes.errors) == owned
        assert set(outcomes.results) == set(texts) - owned
        assert client.get_many(texts) == texts


WRONG: list[Script] = [
    lambda faults: faults.on("mg", n=0).close(),
    lambda faults: faults.on("mg", times=0).close(),
    lambda faults: faults.on("mg k").close(),
    lambda faults: faults.on("mg").delay(-1),
    lambda faults: faults.on("mg").split_every(0),
    lambda faults: faults.on("mg").error("two\r\nlines"),
    # a wrong type
    lambda faults: faults.on("mg").reply("text"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
]


@pytest.mark.parametrize("arm", WRONG)
def test_a_wrong_script_is_refused(arm: Script) -> None:
    with pytest.raises(InvalidArgumentError):
        arm(MemoryServer().faults)


@pytest.mark.parametrize(
    ("options", "scheme"), [(["--port", "0"], "memcached://127.0.0.1:"), ([], "memcached+unix://")]
)
@pytest.mark.parametrize("signal_name", ["SIGINT", "SIGTERM"])
def test_serve_listens_and_ends_cleanly_on_a_signal(
    options: list[str], scheme: str, signal_name: str, tmp_path: object
) -> None:
    options = options or ["--unix", f"{tmp_path}/m.sock"]
    process = subprocess.Popen(
        [sys.executable, "-m", "metacache", "serve", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        words = process.stdout.readline().replace(";", "").split()
        url = next(word for word in words if word.startswith(scheme))
        with connect(url, int) as numbers:
            numbers.set("n", 41)
            assert numbers.increment("n") == 42
            process.send_signal(getattr(signal, signal_name))
            assert process.wait(20) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.communicate()


def test_serve_says_why_it_cannot_listen() -> None:
    with ServedMemory(unix=True) as served:
        path = served.url.removeprefix("memcached+unix://")
        done = subprocess.run(
            [sys.executable, "-m", "metacache", "serve", "--unix", path], capture_output=True, text=True, check=False
        )
    assert done.returncode == 2
    assert "listens on" in done.stderr


async def test_a_listener_serves_many_connections_at_the_same_time() -> None:
    with ServedMemory() as served:
        async with connect_async(f"{served.url}/?pool_size=8") as c:
            await asyncio.gather(*(c.set(f"k{number}", b"%d" % number) for number in range(300)))
            found = await c.get_many([f"k{number}" for number in range(300)])
    assert found == {f"k{number}": b"%d" % number for number in range(300)}
