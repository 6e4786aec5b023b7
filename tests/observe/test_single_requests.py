"""`Called` and `Exchanged` of methods with one request, which take a shorter way than the others."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest
from typing_extensions import override

from metacache import (
    AsyncClient,
    AsyncCluster,
    AsyncConnection,
    AsyncPool,
    Batch,
    Client,
    Cluster,
    Connection,
    DecodeError,
    Node,
    Operation,
    Pool,
    Replies,
    load_serializer,
)
from metacache.testing import Memcached
from tests.observe.recorder import Recorder

R = TypeVar("R")


@pytest.fixture(scope="module")
def server() -> Iterator[Memcached]:
    with Memcached() as started:
        yield started


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


READS = [
    ("get", 1, 1, 0, 0, 0),
    ("get", 1, 0, 1, 0, 0),
    ("get", 1, 1, 0, 0, 0),
    ("get", 1, 0, 1, 0, 0),
    ("get_item", 1, 1, 0, 0, 0),
    ("exists", 1, 0, 1, 0, 0),
    ("get", 1, 0, 0, 0, 1),
    ("get", 1, 0, 0, 0, 1),
    ("get", 1, 1, 0, 1, 0),
    ("delete", 1, 0, 0, 0, 0),
]


def one_node(node: Node, *, observer: Recorder) -> Cluster:
    return Cluster([node], observer=observer)


def async_one_node(node: Node, *, observer: Recorder) -> AsyncCluster:
    return AsyncCluster([node], observer=observer)


def counts(recorder: Recorder) -> list[tuple[str, int, int, int, int, int]]:
    calls = [call for call in recorder.calls if call.verb not in {"set", "invalidate"}]
    return [(call.verb, call.keys, call.hits, call.misses, call.stale, call.undecodable) for call in calls]


@pytest.mark.parametrize("kind", [Connection, Pool, one_node])
def test_each_read_counts_what_it_found(
    server: Memcached, recorder: Recorder, kind: Callable[..., Connection | Pool | Cluster]
) -> None:
    made = kind(server.node, observer=recorder)
    with made:
        optional = Client(made, load_serializer("json", int | None), prefix="single:")
        texts = Client(made, load_serializer("json", str), prefix="single:")
        optional.set("a", None)
        assert optional.get("a", 5) is None
        assert optional.get("absent") is None
        assert optional.get("a") is None
        assert optional.get("absent", 5) == 5
        assert optional.get_item("a") is not None
        assert not optional.exists("absent")
        assert texts.get("a") is None
        assert texts.get("a", "default") == "default"
        optional.invalidate("a", stale_for=30)
        assert optional.get("a") is None
        assert optional.delete("a")
        statistics = [client.statistics for client in (optional, texts)]
    assert counts(recorder) == READS
    assert [(each.hits, each.misses, each.stale, each.undecodable) for each in statistics] == [
        (4, 3, 1, 0),
        (0, 0, 0, 2),
    ]
    assert len(recorder.exchanges) == len(recorder.calls)
    for call, exchange in zip(recorder.calls, recorder.exchanges, strict=True):
        assert call.verb == exchange.verb
        assert call.began <= exchange.began < exchange.began + exchange.seconds
        assert exchange.began + exchange.seconds <= call.began + call.seconds + 1e-6


@pytest.mark.parametrize("kind", [AsyncConnection, AsyncPool, async_one_node])
def test_each_read_of_an_asyncio_client_counts_what_it_found(
    server: Memcached, recorder: Recorder, kind: Callable[..., AsyncConnection | AsyncPool | AsyncCluster]
) -> None:
    async def main() -> None:
        made = (
            AsyncCluster([server.node], observer=recorder)
            if kind is AsyncCluster
            else kind(server.node, observer=recorder)
        )
        async with made:
            optional = AsyncClient(made, load_serializer("json", int | None), prefix="single:")
            texts = AsyncClient(made, load_serializer("json", str), prefix="single:")
            await optional.set("a", None)
            assert await optional.get("a", 5) is None
            assert await optional.get("absent") is None
            assert await optional.get("a") is None
            assert await optional.get("absent", 5) == 5
            assert await optional.get_item("a") is not None
            assert not await optional.exists("absent")
            assert await texts.get("a") is None
            assert await texts.get("a", "default") == "default"
            await optional.invalidate("a", stale_for=30)
            assert await optional.get("a") is None
            assert await optional.delete("a")
            found = optional.statistics
            assert (found.hits, found.misses, found.stale) == (4, 3, 1)

    asyncio.run(main())
    assert counts(recorder) == READS
    assert [call.verb for call in recorder.calls] == [exchange.verb for exchange in recorder.exchanges]


def test_a_hit_has_the_size_of_its_reply_on_each_transport(server: Memcached, recorder: Recorder) -> None:
    pool, cluster = Pool(server.node, observer=recorder), Cluster([server.node], observer=recorder)
    with pool, cluster:
        for client in (Client(pool, prefix="size:"), cluster.client(prefix="size:")):
            for value in (b"12345", b"", b"x" * 20_000):
                client.set("key", value)
                assert client.get("key") == value
        flags = b"f%d" % client._core.operations.frame.flags
    received = [exchange.received for exchange in recorder.exchanges if exchange.verb == "get"]
    assert received == 2 * [len(b"VA %d %b\r\n" % (size, flags)) + size + 2 for size in (5, 0, 20_000)]
    sent = {exchange.sent for exchange in recorder.exchanges if exchange.verb == "get"}
    assert sent == {len("mg size:key v f\r\n")}
    assert {exchange.hits for exchange in recorder.exchanges if exchange.verb == "get"} == {1}


def test_single_reads_of_many_threads_do_not_mix_their_counts(server: Memcached, recorder: Recorder) -> None:
    with Pool(server.node, observer=recorder) as pool:
        optional = Client(pool, load_serializer("json", int | None), prefix="mix:")
        optional.set("none", None)
        Client(pool, load_serializer("json", str), prefix="mix:").set("text", "1")
        recorder.clear()
        wanted = {"none": (1, 0, 0), "absent": (0, 1, 0), "text": (0, 0, 1)}

        def read(key: str) -> None:
            view = optional.with_options(prefix="mix:")
            for _ in range(100):
                view.get(key)
                view.get_item(key)

        threads = [threading.Thread(target=read, args=(key,)) for key in (*wanted, *wanted)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        statistics = optional.statistics
    found = [(call.hits, call.misses, call.undecodable) for call in recorder.calls]
    assert {each: found.count(each) for each in found} == dict.fromkeys(wanted.values(), 400)
    assert (statistics.hits, statistics.misses, statistics.undecodable) == (400, 400, 400)


class Forwarding:
    """A wrapper that looks at results, and forwards every other attribute to its transport."""

    def __init__(self, inner: Pool) -> None:
        self.inner = inner
        self.results: list[object] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:
        result = self.inner.run(op, deadline=deadline)
        self.results.append(result)
        return result

    def run_batch(self, batch: Batch, /, *, deadline: float) -> Replies:
        return self.inner.run_batch(batch, deadline=deadline)

    def close(self) -> None:
        self.inner.close()


def test_a_wrapper_sees_the_results_of_an_observed_client(server: Memcached, recorder: Recorder) -> None:
    with Pool(server.node, observer=recorder) as pool:
        wrapper = Forwarding(pool)
        client = Client(wrapper, prefix="wrapper:")
        client.set("a", b"1")
        client.get("a")
        client.get("b")
        assert wrapper.results[1:] == [b"1", None]
    assert [call[3:5] for call in recorder.calls] == [(0, 0), (1, 0), (0, 1)]
    assert [exchange.verb for exchange in recorder.exchanges] == ["set", "get", "get"]


def test_a_timeout_of_the_client_keeps_the_events(server: Memcached, recorder: Recorder) -> None:
    with Pool(server.node, observer=recorder) as pool:
        client = Client(pool, prefix="timeout:", timeout=5.0)
        client.get("a")
    assert [call.misses for call in recorder.calls] == [1]
    assert [exchange.verb for exchange in recorder.exchanges] == ["get"]


def test_an_undecodable_value_that_raises_is_counted_and_names_its_node(server: Memcached, recorder: Recorder) -> None:
    for kind in (Connection, Pool):
        with kind(server.node, observer=recorder) as made:
            Client(made, load_serializer("json", str), prefix="strict:").set("a", "text")
            numbers = Client(made, load_serializer("json", int), prefix="strict:", on_undecodable="raise")
            with pytest.raises(DecodeError) as caught:
                numbers.get("a")
            assert (caught.value.node, caught.value.key) == (server.node.name, "a")
        assert recorder.calls[-1].error is DecodeError
        assert recorder.last() == ("get", 1, 0, 0, 0, 1)
        assert recorder.exchanges[-1].error is None


class Bytes:
    """A serializer whose `loads` does what a test says."""

    wire_id = 224
    fingerprint = 1

    def __init__(self) -> None:
        self.failures: list[Exception] = []

    def dumps(self, value: bytes, /) -> bytes:
        return value

    def loads(self, data: bytes, /) -> bytes:
        if self.failures:
            raise self.failures[0]
        return data


def test_a_value_of_the_own_type_that_cannot_be_decoded_is_no_hit(server: Memcached, recorder: Recorder) -> None:
    serializer = Bytes()
    with Pool(server.node, observer=recorder) as pool:
        client = Client(pool, serializer, prefix="broken:")
        client.set("a", b"1")
        serializer.failures = [ValueError("broken")]
        assert client.get("a") is None
        assert recorder.last() == ("get", 1, 0, 0, 0, 1)
        serializer.failures = []
        assert client.get("a") == b"1"
        assert recorder.last() == ("get", 1, 1, 0, 0, 0)
        assert (client.statistics.hits, client.statistics.undecodable) == (1, 1)


class Interruption(Exception):
    """What a signal handler raises."""


def test_a_signal_that_interrupts_the_decoding_is_the_callers_and_ends_the_call(
    server: Memcached, recorder: Recorder
) -> None:
    class Signalled(Bytes):
        @override
        def loads(self, data: bytes, /) -> bytes:
            if not interrupted:
                interrupted.append(True)
                signal.raise_signal(signal.SIGUSR1)
            return data

    def interrupt(_: int, __: object) -> None:
        raise Interruption

    interrupted: list[bool] = []
    previous = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with Pool(server.node, observer=recorder) as pool:
            client = Client(pool, Signalled(), prefix="signal:")
            client.set("a", b"1")
            with pytest.raises(Interruption):
                client.get("a")
            assert recorder.calls[-1].error is Interruption
            assert recorder.last() == ("get", 1, 0, 0, 0, 0)
            assert client.get("a") == b"1"
            assert client.statistics.hits == 1
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_an_asyncio_connection_has_slots(server: Memcached) -> None:
    assert not hasattr(AsyncConnection(server.node), "__dict__")
