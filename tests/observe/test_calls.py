"""`Called`: one event for each call, with its hits and misses."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import attrs
import pytest
from typing_extensions import override

from metacache import (
    AsyncClient,
    AsyncPool,
    BatchError,
    Called,
    Client,
    ClosedError,
    Cluster,
    ConnectError,
    Connection,
    Exchanged,
    InvalidArgumentError,
    InvalidKeyError,
    Node,
    OperationTimeout,
    Pool,
    ServerError,
    Settings,
    Source,
    Stampede,
    connect,
    connect_async,
    load_serializer,
)
from metacache.observe import Event
from metacache.testing import Faults, Memcached
from tests.observe.recorder import CALLER, Recorder


@pytest.fixture(scope="module")
def server() -> Iterator[Memcached]:
    with Memcached() as started:
        yield started


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.mark.parametrize("transport", [Connection, Pool, "cluster"])
def test_hits_and_misses_are_counted_on_each_transport(
    server: Memcached, recorder: Recorder, transport: type[Connection] | type[Pool] | str
) -> None:
    made = (
        Cluster([server.node], observer=recorder)
        if isinstance(transport, str)
        else transport(server.node, observer=recorder)
    )
    with made, Client(made, prefix="hits:") as client:
        client.set("a", b"1")
        assert recorder.last() == ("set", 1, 0, 0, 0, 0)
        client.get("a")
        assert recorder.last() == ("get", 1, 1, 0, 0, 0)
        client.get("absent", b"default")
        assert recorder.last() == ("get", 1, 0, 1, 0, 0)
        client.get_many(["a", "absent", "gone"])
        assert recorder.last() == ("get_many", 3, 1, 2, 0, 0)
        client.get_items(["a", "absent"])
        assert recorder.last() == ("get_items", 2, 1, 1, 0, 0)
        client.invalidate("a", stale_for=30)
        client.get("a")
        assert recorder.last() == ("get", 1, 1, 0, 1, 0)
        client.touch("a", 30)
        assert recorder.last() == ("touch", 1, 0, 0, 0, 0)
        client.get_and_touch("a", 30)
        assert recorder.last() == ("get_and_touch", 1, 1, 0, 1, 0)
        client.append("a", b"2")
        assert recorder.last() == ("append", 1, 0, 0, 0, 0)
        client.update("b", lambda old: (old or b"") + b"x")
        assert recorder.last() == ("update", 1, 0, 0, 0, 0)
        client.delete_many(["a", "b"])
        assert recorder.last() == ("delete_many", 2, 0, 0, 0, 0)
        assert {call.prefix for call in recorder.calls} == {"hits:"}
        assert not [call for call in recorder.calls if call.error is not None or call.seconds <= 0]
        statistics = client.statistics
    assert statistics.hits == sum(call.hits for call in recorder.calls)
    assert statistics.misses == sum(call.misses for call in recorder.calls)
    assert statistics.stale == sum(call.stale for call in recorder.calls)


def test_a_stored_none_is_a_hit_and_an_undecodable_value_is_neither(server: Memcached, recorder: Recorder) -> None:
    with Pool(server.node, observer=recorder) as pool:
        optional = Client(pool, load_serializer("json", int | None), prefix="none:")
        optional.set("a", None)
        assert optional.get("a") is None
        assert recorder.last() == ("get", 1, 1, 0, 0, 0)
        texts = Client(pool, load_serializer("json", str), prefix="none:")
        assert texts.get("a") is None
        assert recorder.last() == ("get", 1, 0, 0, 0, 1)
        texts.set("b", "text")
        assert texts.get_many(["a", "b", "c"]) == {"b": "text"}
        assert recorder.last() == ("get_many", 3, 1, 1, 0, 1)


def test_get_or_compute_reports_its_source_once(server: Memcached, recorder: Recorder) -> None:
    with connect(f"memcached://{server.node.name}", str, observer=recorder, prefix="compute:") as client:

        @client.cached("number:{number}")
        def cached(number: int) -> str:
            return str(number)

        client.get_or_compute("a", lambda: "1")
        client.get_or_compute("a", lambda: "1")
        client.get_or_compute_item("a", lambda: "1")
        cached(1)
        cached(1)
        client.get_or_compute_many(["a", "b"], lambda keys: dict.fromkeys(keys, "2"))
        # The call of the factory is a call of its own.
        client.get_or_compute("outer", lambda: client.get("a") or "")
    assert [(call.verb, call.hits, call.misses, call.source) for call in recorder.calls] == [
        ("get_or_compute", 0, 1, Source.COMPUTED),
        ("get_or_compute", 1, 0, Source.HIT),
        ("get_or_compute_item", 1, 0, Source.HIT),
        ("get_or_compute", 0, 1, Source.COMPUTED),
        ("get_or_compute", 1, 0, Source.HIT),
        ("get_or_compute_many", 1, 1, None),
        ("get", 1, 0, None),
        ("get_or_compute", 0, 1, Source.COMPUTED),
    ]


def test_the_asyncio_client_reports_the_same_calls(server: Memcached, recorder: Recorder) -> None:
    async def factory() -> str:
        await asyncio.sleep(0)
        return "1"

    async def many(_: object) -> dict[str, str]:
        await asyncio.sleep(0)
        return {"a": "1", "b": "2"}

    async def main() -> None:
        url = f"memcached://{server.node.name}"
        async with connect_async(url, str, observer=recorder, prefix="async:") as client:
            await client.set("x", "1")
            await client.get_many(["x", "y"])
            await client.get_or_compute("a", factory)
            await client.get_or_compute("a", factory)
            await client.get_or_compute_many(["a", "b"], many)
            await client.touch("x", 5)
            await client.append("x", "2")
            scoped = await client.namespace("tenant")
            await scoped.get("x")

    asyncio.run(main())
    assert [(call.verb, call.hits, call.misses, call.source) for call in recorder.calls] == [
        ("set", 0, 0, None),
        ("get_many", 1, 1, None),
        ("get_or_compute", 0, 1, Source.COMPUTED),
        ("get_or_compute", 1, 0, Source.HIT),
        ("get_or_compute_many", 1, 1, None),
        ("touch", 0, 0, None),
        ("append", 0, 0, None),
        ("namespace", 0, 0, None),
        ("get", 0, 1, None),
    ]
    assert {call.prefix for call in recorder.calls} == {"async:"}  # without the token of the namespace


def test_calls_of_many_tasks_and_threads_do_not_mix_their_hits(server: Memcached, recorder: Recorder) -> None:
    with Pool(server.node, observer=recorder) as pool:
        client = Client(pool, prefix="mix:")
        client.set("a", b"1")
        recorder.clear()
        work = [["a"], ["b", "c"], ["a", "b", "c"]]

        def read(keys: list[str]) -> None:
            for _ in range(100):
                client.get_many(keys)

        threads = [threading.Thread(target=read, args=(keys,)) for keys in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        statistics = client.statistics
    numbers = {1: (1, 0), 2: (0, 2), 3: (1, 2)}
    assert len(recorder.calls) == 300
    assert not [call for call in recorder.calls if (call.hits, call.misses) != numbers[call.keys]]
    assert (statistics.hits, statistics.misses) == (200, 400)
    recorder.clear()

    async def main() -> None:
        async with AsyncPool(server.node, observer=recorder) as async_pool:
            async_client = AsyncClient(async_pool, prefix="mix:")
            await asyncio.gather(*(async_client.get_many(keys) for keys in work * 100))

    asyncio.run(main())
    assert len(recorder.calls) == 300
    assert not [call for call in recorder.calls if (call.hits, call.misses) != numbers[call.keys]]


def test_a_failed_call_reports_the_class_of_its_error(recorder: Recorder) -> None:
    node = Node("127.0.0.1:1")
    with connect(f"memcached://{node.name}", observer=recorder, on_error="miss") as client:
        assert client.get("a") is None
        assert client.get_many(["a", "b"]) == {}
        with pytest.raises(InvalidKeyError):
            client.get("x" * 300)
    assert [(call.verb, call.error.__name__ if call.error else None) for call in recorder.calls] == [
        ("get", "ConnectError"),
        ("get_many", "BatchError"),
    ]


def test_a_timeout_and_a_cancel_are_reported(server: Memcached, recorder: Recorder) -> None:
    server.freeze()
    try:
        with (
            Pool(server.node, settings=Settings(timeout=0.1), observer=recorder) as pool,
            pytest.raises(OperationTimeout),
        ):
            Client(pool).get("a")
        assert recorder.calls[-1].error is OperationTimeout
        assert recorder.exchanges[-1].error is OperationTimeout

        async def main() -> None:
            async with AsyncPool(server.node, observer=recorder) as pool:
                task = asyncio.create_task(AsyncClient(pool).get("a"))
                await asyncio.sleep(0.05)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert recorder.calls[-1].error is asyncio.CancelledError
                assert recorder.exchanges[-1].error is asyncio.CancelledError
                pool.drop()

        asyncio.run(main())
    finally:
        server.thaw()


def test_events_run_with_the_context_of_their_caller(server: Memcached, recorder: Recorder) -> None:
    with Memcached() as other, Cluster([server.node, other.node], observer=recorder) as cluster:
        CALLER.set("blocking")
        cluster.client().get_many([str(number) for number in range(50)])
        assert recorder.callers == ["blocking"] * 3
        recorder.clear()

        async def call(client: AsyncClient[bytes], name: str) -> None:
            CALLER.set(name)
            await client.get_many([str(number) for number in range(50)])

        async def main() -> None:
            url = f"memcached://{server.node.name},{other.node.name}"
            async with connect_async(url, observer=recorder) as client:
                await asyncio.gather(call(client, "first"), call(client, "second"))

        asyncio.run(main())
        assert sorted(recorder.callers) == ["first"] * 3 + ["second"] * 3


def test_an_observer_that_raises_is_logged_once_and_changes_no_result(
    server: Memcached, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def called(self, _: object, /) -> None:
            raise RuntimeError("called")

        exchanged = happened = called

    with connect(f"memcached://{server.node.name}", observer=Broken(), prefix="broken:") as client:
        client.set("a", b"1")
        assert client.get("a") == b"1"
        assert client.get_many(["a", "b"]) == {"a": b"1"}
    assert [record.name for record in caplog.records] == ["metacache.observe"]
    assert "Broken" in caplog.text


def test_a_closed_client_reports_nothing(server: Memcached, recorder: Recorder) -> None:
    client = connect(f"memcached://{server.node.name}", observer=recorder)
    client.close()
    with pytest.raises(ClosedError):
        client.get("a")
    assert recorder.calls == []


class Interruption(Exception):
    """What a signal handler raises."""


@pytest.mark.parametrize("method", ["called", "exchanged", "happened"])
def test_the_exception_of_a_signal_handler_in_an_observer_is_the_callers(server: Memcached, method: str) -> None:
    def interrupt(_: int, __: object) -> None:
        raise Interruption

    class Signalled(Recorder):
        armed = True

        def signal(self, name: str) -> None:
            if name == method and self.armed:
                self.armed = False
                signal.raise_signal(signal.SIGUSR1)

        @override
        def called(self, event: Called, /) -> None:
            self.signal("called")

        @override
        def exchanged(self, event: Exchanged, /) -> None:
            self.signal("exchanged")

        @override
        def happened(self, event: Event, /) -> None:
            self.signal("happened")

    previous = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with Pool(server.node, settings=Settings(pool_size=1), observer=Signalled()) as pool:
            client = Client(pool, prefix="signal:")
            with pytest.raises(Interruption):
                client.get("a")
            client.set("a", b"1")
            assert client.get("a") == b"1"
            assert client.get_many(["a"]) == {"a": b"1"}
            assert pool.statistics.in_use == 0
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_a_refused_call_is_not_reported(server: Memcached, recorder: Recorder) -> None:
    with Pool(server.node, observer=recorder) as pool:
        client = Client(pool)
        with pytest.raises(InvalidArgumentError):
            client.touch("a", -1)  # refused inside a recipe
        pool.close()
        with pytest.raises(ClosedError):
            client.get("a")
        with pytest.raises(ClosedError):
            client.get_many(["a"])
    assert recorder.calls == []
    assert recorder.exchanges == []


def test_a_call_inside_a_call_keeps_the_counts_of_both(server: Memcached, recorder: Recorder) -> None:
    with Pool(server.node, observer=recorder) as pool:
        numbers = Client(pool, load_serializer("json", int), prefix="inside:")
        texts = Client(pool, load_serializer("json", str), prefix="inside:")
        numbers.set("n", 1)

        def add(_: int | None) -> int:
            if numbers.get("n") == 1:
                texts.set("n", "text")  # another writer was first, and the second attempt cannot decode its value
            return 2

        recorder.clear()
        numbers.update("n", add)
    counted = [(call.verb, call.hits, call.misses, call.undecodable) for call in recorder.calls]
    assert counted == [("get", 1, 0, 0), ("set", 0, 0, 0), ("get", 0, 0, 1), ("update", 0, 0, 1)]


def test_a_call_that_the_function_of_the_caller_ends_is_reported(server: Memcached, recorder: Recorder) -> None:
    def refuse(_: object = None) -> bytes:
        raise InvalidArgumentError("not a cache's error")

    def refuse_many(_: object) -> dict[str, bytes]:
        raise InvalidArgumentError("not a cache's error")

    with Pool(server.node, observer=recorder) as pool:
        client = Client(pool, prefix="ended:")
        with pytest.raises(InvalidArgumentError):
            client.update("a", refuse)
        with pytest.raises(InvalidArgumentError):
            client.get_or_compute("a", refuse)
        with pytest.raises(InvalidArgumentError):
            client.get_or_compute_many(["a", "b"], refuse_many)
    found = [(call.verb, call.misses, call.source, call.error) for call in recorder.calls]
    assert found == [
        ("update", 0, None, InvalidArgumentError),
        ("get_or_compute", 1, None, InvalidArgumentError),
        ("get_or_compute_many", 2, None, InvalidArgumentError),
    ]


def test_a_refused_or_closed_computation_is_not_reported(server: Memcached, recorder: Recorder) -> None:
    def compute(keys: object = None) -> bytes:
        raise AssertionError(keys)

    def compute_many(keys: object) -> dict[str, bytes]:
        raise AssertionError(keys)

    with Pool(server.node, observer=recorder) as pool:
        client = Client(pool, prefix="refused:")
        with pytest.raises(InvalidKeyError):
            client.get_or_compute("x" * 300, compute)
        with pytest.raises(InvalidKeyError):
            client.get_or_compute_many(["a", "x" * 300], compute_many)
        client.close()
        for _ in range(2):
            with pytest.raises(ClosedError):
                client.get_or_compute_many(["a"], compute_many)
            client = Client(pool)
            pool.close()
    assert recorder.calls == []


@pytest.mark.parametrize("is_observed", [True, False])
def test_a_background_refresh_is_no_call_and_counts_the_reads_of_its_factory(
    server: Memcached, recorder: Recorder, *, is_observed: bool
) -> None:
    observer = recorder if is_observed else None
    policy = Stampede(refresh_ahead=timedelta(seconds=50), jitter=0.0)
    with (
        ThreadPoolExecutor(1) as executor,
        Pool(server.node, settings=Settings(pool_size=2), observer=observer) as pool,
    ):
        client = Client(pool, prefix=f"background {is_observed}:")
        client.set("source", b"new")
        client.set("a", b"old", ttl=20)
        recorder.clear()
        beside = attrs.evolve(policy, background=executor)
        assert client.get_or_compute("a", lambda: client.get("source", b""), ttl=60, policy=beside) == b"old"
        executor.shutdown()
        statistics = client.statistics
        assert client.get("a") == b"new"
    assert (statistics.hits, statistics.misses) == (2, 0)
    assert statistics.computations[Source.COMPUTED] == 1
    if is_observed:
        found = sorted((call.verb, call.hits, call.source) for call in recorder.calls[:-1])
        assert found == [("get", 1, None), ("get_or_compute", 1, Source.HIT)]
        # The ask, the shorter TTL of the old value, the read of the factory, and the store.
        assert [exchange.verb for exchange in recorder.exchanges].count("get_or_compute") >= 2


def test_a_computation_without_the_cache_reports_the_error_that_on_error_suppresses(recorder: Recorder) -> None:
    def many(keys: Sequence[str]) -> dict[str, str]:
        return dict.fromkeys(keys, "2")

    with connect("memcached://127.0.0.1:1", str, observer=recorder, on_error="miss") as client:
        client.get_or_compute("a", lambda: "1")
        client.get_or_compute_item("a", lambda: "1")
        client.get_or_compute_many(["a", "b"], many)
        assert client.statistics.errors == 4
    assert [(call.verb, call.source, call.error) for call in recorder.calls] == [
        ("get_or_compute", Source.UNSTORED, ConnectError),
        ("get_or_compute_item", Source.UNSTORED, ConnectError),
        ("get_or_compute_many", None, BatchError),
    ]


def test_a_computation_whose_ask_or_store_fails_reports_the_error_that_on_error_suppresses(
    recorder: Recorder, metacache_url: str, metacache_faults: Faults
) -> None:
    async def compute() -> str:
        return "1"

    async def many(keys: Sequence[str]) -> dict[str, str]:
        return dict.fromkeys(keys, "2")

    async def main() -> None:
        async with connect_async(metacache_url, str, observer=recorder, on_error="ignore") as client:
            metacache_faults.on("mg").error("SERVER_ERROR out of memory")
            await client.get_or_compute("f", compute)
            metacache_faults.on("ms").error("SERVER_ERROR out of memory")
            await client.get_or_compute("a", compute)
            metacache_faults.on("ms").error("SERVER_ERROR out of memory")
            await client.get_or_compute_many(["c", "d"], many)
            await client.get_or_compute("e", compute)

    asyncio.run(main())
    assert [(call.verb, call.source, call.error) for call in recorder.calls] == [
        ("get_or_compute", Source.UNSTORED, ServerError),
        ("get_or_compute", Source.UNSTORED, ServerError),
        ("get_or_compute_many", None, BatchError),
        ("get_or_compute", Source.COMPUTED, None),
    ]


def test_an_error_that_a_factory_meets_in_its_own_call_is_not_one_of_the_computation(
    server: Memcached, recorder: Recorder
) -> None:
    with (
        connect(server.url, str, observer=recorder, prefix="outer:") as client,
        connect("memcached://127.0.0.1:1", str, observer=recorder, on_error="miss", prefix="inner:") as inner,
    ):
        client.get_or_compute("a", lambda: inner.get_or_compute("a", lambda: "1"))
    assert [(call.prefix, call.source, call.error) for call in recorder.calls] == [
        ("inner:", Source.UNSTORED, ConnectError),
        ("outer:", Source.COMPUTED, None),
    ]
