"""Large values, with both clients: right at every size, cut off, late, interrupted, cancelled; and their memory."""

from __future__ import annotations

import asyncio
import gc
import resource
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from metacache import (
    Client,
    ConnectionLost,
    MetacacheError,
    OperationTimeout,
    ProtocolError,
    Settings,
)
from metacache.protocol.blocks import LARGE_BLOCK
from metacache.testing import Memcached
from metacache.transports.blocking import lending, stream
from metacache.transports.blocking.stream import RECEIVE_FIRST
from tests.certificates import serving, trusting
from tests.conftest import start
from tests.scripted import Asked, Peer, Script, ScriptedServer, answering, in_turn, silent
from tests.transports.aio_rig import client_of as aio_client_of
from tests.transports.aio_rig import nothing_left, until
from tests.transports.rig import HIT, client_of, within
from tests.transports.test_interrupts import Interrupt, alarm

MEGABYTE: Final = 1 << 20
# A header line with an opaque has 12 to 25 bytes, so these cut everywhere around what one recv returns.
AROUND: Final = [edge + near for edge in (LARGE_BLOCK, 65_536, 262_144) for near in (-30, -20, -14, -3, -2, -1, 0, 1)]
SIZES: Final = [0, 1, 1000, *AROUND, 1_000_000]


def value_of(size: int) -> bytes:
    return (b"%d\r\nEN\r\nVA 2 O1\r\n" % size * (size // 10 + 1))[:size]


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
def test_values_of_every_size_are_read_alone_and_in_batches(tls_server: Memcached, *, is_tls: bool) -> None:
    with start("-m", "512") as plain:
        server, tls = (tls_server, trusting()) if is_tls else (plain, None)
        with client_of(server.node, Settings(timeout=20.0, tls=tls)) as client:
            values = {f"size:{size}": value_of(size) for size in SIZES}
            assert all(client.set_many(values).values())
            for key, value in values.items():
                assert client.get(key) == value
                assert client.get("none") is None
            for keys in (list(values), list(reversed(values)), [key for key in values for _ in range(2)]):
                assert client.get_many([*keys, "none"]) == values


MIXED: Final = {f"mixed:{size}": value_of(size) for size in (0, 900, 1100, 9000, *AROUND, 100_000)}


@pytest.fixture(scope="module")
def mixed_client() -> Iterator[Client[bytes]]:
    with start() as server, client_of(server.node, Settings(timeout=20.0)) as client:
        assert all(client.set_many(MIXED).values())
        yield client


@hypothesis_settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from([*MIXED, "none", "set"]) | st.lists(st.sampled_from(list(MIXED)), max_size=4)))
def test_values_of_any_sizes_are_read_in_turn(mixed_client: Client[bytes], reads: list[str | list[str]]) -> None:
    for keys in reads:  # on one connection, which asks for fewer bytes after a large value
        if isinstance(keys, list):
            assert mixed_client.get_many(keys) == {key: MIXED[key] for key in keys}
        elif keys == "set":
            assert mixed_client.set("stored", b"x")
        else:
            assert mixed_client.get(keys) == MIXED.get(keys)


@pytest.mark.both_loops
@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
async def test_asyncio_reads_values_of_every_size(tls_server: Memcached, *, is_tls: bool) -> None:
    with start("-m", "512") as plain:
        server, tls = (tls_server, trusting()) if is_tls else (plain, None)
        async with nothing_left(), aio_client_of(server.node, Settings(timeout=20.0, tls=tls)) as client:
            values = {f"size:{size}": value_of(size) for size in SIZES}
            assert all((await client.set_many(values)).values())
            for key, value in values.items():
                assert await client.get(key) == value
                assert await client.get("none") is None
            assert await client.get_many([*values, "none"]) == values
            got = await asyncio.gather(*(client.get(key) for key in [*values, "none", *values]))
            assert got == [*values.values(), None, *values.values()]


# --- servers that stop in the middle ---------------------------------------------------------------------------------

SIZE: Final = 1_000_000


def begin(peer: Peer, sent: int) -> None:
    """Answer a request with the first *sent* bytes of a value of `SIZE` bytes."""
    peer.send(peer.request().reply(b"VA %d f0" % SIZE, b"w" * SIZE)[:sent])


def broken(sent: int) -> Script:
    def script(peer: Peer) -> None:
        begin(peer, sent)
        peer.fin()

    return script


CUTS: Final = (20, 40, LARGE_BLOCK, 65_536, 65_537, 500_000, SIZE, SIZE + 10, SIZE + 18)
READS: Final[dict[str, Callable[[Client[bytes]], object]]] = {
    "get": lambda client: client.get("key"),
    "get_many": lambda client: client.get_many_outcomes(["key"]).errors["key"],
}


def failure_of(use: Callable[[], object]) -> object:
    try:
        return use()
    except MetacacheError as error:
        return error


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("sent", CUTS)
def test_a_server_that_closes_in_the_middle_of_a_value_gives_no_value(sent: int, name: str) -> None:
    with ScriptedServer(broken(sent), answering(HIT)) as server, client_of(server) as client:
        assert isinstance(failure_of(lambda: READS[name](client)), ConnectionLost)
        assert client.get("key") == b"right"


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("sent", [40, 65_537, 500_000])
def test_a_value_that_is_not_complete_at_the_deadline_closes_the_connection(sent: int, name: str) -> None:
    stopped = in_turn(lambda peer: begin(peer, sent), silent)
    with ScriptedServer(stopped, answering(HIT)) as server, client_of(server) as client:
        with within(0.09, 5.0):
            hasty = client.with_options(timeout=0.1)
            assert isinstance(failure_of(lambda: READS[name](hasty)), OperationTimeout)
        assert client.get("key") == b"right"


def test_a_server_that_sends_a_value_slowly_does_not_extend_the_deadline() -> None:
    def slow(peer: Peer) -> None:
        whole = peer.request().reply(b"VA %d f0" % SIZE, b"w" * SIZE)
        try:
            peer.send(whole, chunks=range(0, len(whole), 20_000), delay=0.05)
        except OSError:
            return

    with ScriptedServer(slow) as server, client_of(server) as client, within(0.29, 1.5):
        assert isinstance(failure_of(lambda: client.with_options(timeout=0.3).get("key")), OperationTimeout)


def test_a_value_with_a_wrong_size_is_a_protocol_error() -> None:
    def script(peer: Peer) -> None:
        peer.send(peer.request().reply(b"VA %d f0" % SIZE, b"w" * (SIZE + 1)))
        silent(peer)

    with ScriptedServer(script, answering(HIT)) as server, client_of(server) as client:
        with pytest.raises(ProtocolError, match="not followed by CRLF"):
            client.get("key")
        assert client.get("key") == b"right"


def reply_of(request: Asked, size: int) -> tuple[bytes, bytes]:
    """Return a reply of *size* bytes, at most LARGE_BLOCK, and its value."""
    for length in range(size - 40, size):
        value = b"s" * length
        if len(reply := request.reply(b"VA %d f0" % length, value)) == size:
            return reply, value
    raise AssertionError("no value gives that size")


# The bytes of a recv after a large value, and about.
@pytest.mark.parametrize("size", [None, *range(RECEIVE_FIRST - 1, RECEIVE_FIRST + 2)])
@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
def test_bytes_behind_a_value_close_the_connection_before_its_next_use(
    monkeypatch: pytest.MonkeyPatch, size: int | None, *, is_tls: bool
) -> None:
    # So fast that neither the age of the connection nor a new timeout lets the client check it.
    now = time.monotonic()
    monkeypatch.setattr(lending, "monotonic", lambda: now)
    monkeypatch.setattr(stream, "monotonic", lambda: now)
    surplus = b"EN\r\n"
    sent = threading.Event()
    values = [b"r" * SIZE]

    def script(peer: Peer) -> None:
        large = peer.request().reply(b"VA %d f0" % SIZE, values[0])
        peer.send(large[:500_000])
        peer.send(large[500_000:] + (surplus if size is None else b""))  # over TLS, in one record with the end
        if size is not None:
            second, value = reply_of(peer.request(), size)
            values.append(value)
            peer.send(second + surplus)
        sent.set()
        peer.expect_end()

    tls = trusting() if is_tls else None
    with (
        ScriptedServer(script, answering(HIT), tls=serving() if is_tls else None) as server,
        client_of(server.node, Settings(timeout=5.0, tls=tls)) as client,
    ):
        assert client.get("key") == values[0]
        if size is not None:
            found = client.get("key")
            assert found == values[1]
        sent.wait(5.0)
        time.sleep(0.1)  # the kernel may deliver the bytes a moment after it took them
        assert client.get("key") == b"right"


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("sent", [40, 65_537, 500_000])
def test_a_signal_in_the_middle_of_a_value_closes_the_connection(sent: int, name: str) -> None:
    stopped = in_turn(lambda peer: begin(peer, sent), silent)
    with ScriptedServer(stopped, answering(HIT)) as server, client_of(server) as client:
        with alarm(0.1), pytest.raises(Interrupt):
            READS[name](client)
        assert "not connected" in repr(client)
        assert client.get("key") == b"right"


# --- asyncio: callers that give up -----------------------------------------------------------------------------------

BIG: Final = 40_000_000


@pytest.mark.both_loops
@pytest.mark.parametrize("how", ["cancel", "deadline"])
@pytest.mark.parametrize("is_batch", [False, True], ids=["get", "get_many"])
async def test_the_value_of_a_caller_that_gave_up_is_dropped_and_needs_no_memory(how: str, *, is_batch: bool) -> None:
    begun = threading.Event()
    proceed = [threading.Event() for _ in range(2)]

    def script(peer: Peer) -> None:
        peer.request().answer(*HIT)
        asked = peer.request()
        head = asked.reply(b"VA %d f0" % BIG)
        peer.send(head + bytes(1_000_000))
        begun.set()
        assert proceed[0].wait(10.0)
        peer.send(bytes(1_000_000))
        assert proceed[1].wait(10.0)
        for _ in range(BIG // 1_000_000 - 2):
            peer.send(bytes(1_000_000))
        peer.send(b"\r\n")
        peer.request().answer(*HIT)
        peer.expect_end()

    with ScriptedServer(script) as server:
        async with aio_client_of(server.node, Settings(timeout=10.0)) as client:
            assert await client.get("key") == b"right"  # the dial does not count against the short deadline
            tracemalloc.start()
            try:
                hasty = client.with_options(timeout=1.0) if how == "deadline" else client
                call = hasty.get_many(["key"]) if is_batch else hasty.get("key")
                task = asyncio.ensure_future(call)
                assert await asyncio.to_thread(begun.wait, 10.0)
                await asyncio.sleep(0.1)
                if how == "cancel":
                    task.cancel()
                await asyncio.wait([task])
                del task
                gc.collect()
                proceed[0].set()
                await until(lambda: tracemalloc.get_traced_memory()[0] < BIG / 4)  # dropped
                tracemalloc.reset_peak()
                after = asyncio.ensure_future(client.get("key"))
                proceed[1].set()
                assert await after == b"right"
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert peak < BIG / 4
    assert server.accepted == 1


@pytest.mark.both_loops
async def test_values_that_are_given_up_at_any_moment_leave_right_values_to_others(shared_memcached: Memcached) -> None:
    async with nothing_left(), aio_client_of(shared_memcached.node) as client:
        values = {f"given-up:{size}": value_of(size) for size in (10, 20_000, 300_000, 900_000)}
        assert all((await client.set_many(values)).values())
        for round_ in range(60):
            tasks = [asyncio.ensure_future(client.get(key)) for key in values for _ in range(2)]
            many = asyncio.ensure_future(client.get_many(list(values)))
            for _ in range(round_ % 12):
                await asyncio.sleep(0)
            await asyncio.sleep(0.0005 * (round_ % 4))
            for task in tasks[:: 1 + round_ % 3]:
                task.cancel()
            if round_ % 2:
                many.cancel()
            found = await asyncio.gather(*tasks, return_exceptions=True)
            keys = [key for key in values for _ in range(2)]
            for key, value in zip(keys, found, strict=True):
                assert isinstance(value, asyncio.CancelledError) or value == values[key]
            if not round_ % 2:
                assert await many == values


@pytest.mark.both_loops
async def test_asyncio_a_server_that_closes_in_the_middle_of_a_value_gives_no_value() -> None:
    for sent in CUTS:
        with ScriptedServer(broken(sent), answering(HIT)) as server:
            async with aio_client_of(server.node) as client:
                with pytest.raises(ConnectionLost):
                    await client.get("key")
                assert await client.get("key") == b"right"


# --- memory ----------------------------------------------------------------------------------------------------------

MEMORY: Final = """if True:
    import re, sys
    from pathlib import Path
    from metacache import Client, Connection, Node, Settings
    client = Client(Connection(Node(sys.argv[1]), settings=Settings(timeout=30.0)))
    keys = sys.argv[2:]
    read = (lambda: client.get(keys[0])) if len(keys) == 1 else (lambda: client.get_many(keys))
    client.get("small")
    def peak():  # ru_maxrss would be that of the parent process
        return int(re.search(r"VmHWM:\\s+([0-9]+) kB", Path("/proc/self/status").read_text())[1]) * 1024
    before = peak()
    found = read()
    print(peak() - before)
"""


@pytest.mark.parametrize(("count", "size"), [(1, 100_000_000), (200, 500_000), (1000, 100_000)])
def test_the_peak_of_memory_is_at_most_a_fifth_above_the_size_of_the_values(count: int, size: int) -> None:
    with start("-I", "200m", "-m", "1000") as server, client_of(server.node, Settings(timeout=30.0)) as client:
        keys = [f"m:{number}" for number in range(count)]
        for key in keys:
            assert client.set(key, bytes(size))
        ran = subprocess.run(
            [sys.executable, "-c", MEMORY, str(server.node), *keys], capture_output=True, text=True, check=True
        )
    grown = int(ran.stdout)
    assert count * size * 0.9 < grown < count * size * 1.2


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_a_server_that_announces_a_gigabyte_and_sends_nothing_costs_no_memory() -> None:
    announced = threading.Event()

    def lying(peer: Peer) -> None:
        asked = peer.request()
        peer.send(asked.reply(b"VA %d f0" % (1 << 30)))
        announced.set()
        silent(peer)

    with ScriptedServer(lying) as server, client_of(server, Settings(timeout=1.0)) as client:
        before = resident()
        grown: list[int] = []
        reader = threading.Thread(target=lambda: failure_of(lambda: client.get("key")))
        reader.start()
        assert announced.wait(5.0)
        while reader.is_alive():
            grown.append(resident() - before)
            reader.join(0.02)
    assert max(grown) < 20 * MEGABYTE


@pytest.mark.both_loops
async def test_asyncio_a_server_that_announces_a_gigabyte_and_sends_nothing_costs_no_memory() -> None:
    def lying(peer: Peer) -> None:
        peer.send(peer.request().reply(b"VA %d f0" % (1 << 30)))
        silent(peer)

    with ScriptedServer(lying) as server:
        async with aio_client_of(server.node, Settings(timeout=0.5)) as client:
            before = resident()
            task = asyncio.ensure_future(client.get("key"))
            grown = 0
            while not task.done():
                await asyncio.sleep(0.02)
                grown = max(grown, resident() - before)
            assert isinstance(task.exception(), OperationTimeout)
            assert grown < 20 * MEGABYTE
