"""metacache-otel against real servers, with exporters in memory."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import entry_points
from time import monotonic, time_ns

import attrs
import pytest
from metacache_otel import MetacacheInstrumentor, OtelObserver, observe_pools
from metacache_otel.attributes import of_node
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, Tracer

from metacache import (
    AsyncClient,
    AsyncPool,
    Called,
    Client,
    Cluster,
    ConnectError,
    Dialled,
    Exchanged,
    MetacacheError,
    Node,
    NodesChanged,
    Pool,
    PoolStatistics,
    Retried,
    Settings,
    Waited,
    connect_async,
)
from metacache.memory.registry import server_named
from metacache.nodes import MemoryAddress, TcpAddress
from metacache.testing import Memcached
from metacache.transports.counters import CloseReason
from tests.observe.recorder import Recorder


@attrs.frozen
class Telemetry:
    """Providers with exporters in memory."""

    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader
    tracers: TracerProvider
    meters: MeterProvider

    @property
    def observer(self) -> OtelObserver:
        return OtelObserver(tracer_provider=self.tracers, meter_provider=self.meters)

    @property
    def tracer(self) -> Tracer:
        return self.tracers.get_tracer("test")

    def spans(self, kind: SpanKind = SpanKind.CLIENT) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.kind is kind]

    def points(self, name: str) -> list[NumberDataPoint | HistogramDataPoint]:
        data = self.reader.get_metrics_data()
        scopes = [] if data is None else [scope for each in data.resource_metrics for scope in each.scope_metrics]
        metrics = [metric for scope in scopes for metric in scope.metrics if metric.name == name]
        found: list[NumberDataPoint | HistogramDataPoint] = []
        for metric in metrics:
            for point in metric.data.data_points:
                assert isinstance(point, NumberDataPoint | HistogramDataPoint)
                found.append(point)
        return found

    def total(self, name: str, **attributes: str) -> float:
        wanted = {key.replace("__", "."): text for key, text in attributes.items()}.items()
        points = [point for point in self.points(name) if wanted <= dict(point.attributes or {}).items()]
        return sum(point.value if isinstance(point, NumberDataPoint) else point.count for point in points)


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    meters = MeterProvider([reader])
    yield Telemetry(exporter, reader, tracers, meters)
    tracers.shutdown()
    meters.shutdown()


@pytest.fixture
def server() -> Iterator[Memcached]:
    with Memcached() as started:
        yield started


def dead_node() -> Node:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return Node(f"127.0.0.1:{sock.getsockname()[1]}")


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def test_a_request_is_a_span_with_the_attributes_of_the_conventions(telemetry: Telemetry, server: Memcached) -> None:
    with Pool(server.node, observer=telemetry.observer) as pool:
        client = Client(pool, prefix="p:")
        with telemetry.tracer.start_as_current_span("request") as parent:
            client.set("secret", b"hidden")
            client.get("secret")
    spans = telemetry.spans()
    assert isinstance(server.node.address, TcpAddress)
    port = server.node.address.port
    assert [span.name for span in spans] == [f"set 127.0.0.1:{port}", f"get 127.0.0.1:{port}"]
    assert dict(spans[1].attributes or {}) == {
        "db.system.name": "memcached",
        "db.operation.name": "get",
        "server.address": "127.0.0.1",
        "server.port": port,
        "metacache.request.keys": 1,
        "metacache.request.hits": 1,
    }
    assert {parent_of(span) for span in spans} == {parent.get_span_context().span_id}
    assert spans[1].start_time is not None
    assert spans[1].end_time is not None
    assert spans[0].start_time is not None
    assert spans[0].start_time < spans[1].start_time < spans[1].end_time
    assert not [span for span in spans if "secret" in span.to_json() or "hidden" in span.to_json()]


def test_the_histogram_has_the_buckets_of_the_conventions(telemetry: Telemetry, server: Memcached) -> None:
    with Pool(server.node, observer=telemetry.observer) as pool:
        Client(pool).get_many(["a", "b", "c"])
    (point,) = telemetry.points("db.client.operation.duration")
    assert isinstance(point, HistogramDataPoint)
    assert tuple(point.explicit_bounds) == (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
    assert point.count == 1
    assert "db.operation.batch.size" not in dict(point.attributes or {})


def test_hits_misses_and_sources_are_metrics_of_ours(telemetry: Telemetry, server: Memcached) -> None:
    with Pool(server.node, observer=telemetry.observer) as pool:
        client = Client(pool, prefix="p:")
        client.set("a", b"1")
        client.get_many(["a", "b", "c"])
        client.get_or_compute("d", lambda: b"2")
    assert telemetry.total("metacache.reads", metacache__prefix="p:", metacache__result="hit") == 1
    assert telemetry.total("metacache.reads", metacache__prefix="p:", metacache__result="miss") == 3
    assert telemetry.total("metacache.computations", metacache__source="computed") == 1


def test_the_parts_of_a_cluster_batch_have_the_same_parent(telemetry: Telemetry) -> None:
    with Memcached() as one, Memcached() as two:
        with Cluster([one.node, two.node], observer=telemetry.observer) as cluster:
            client = cluster.client()
            with telemetry.tracer.start_as_current_span("request") as parent:
                client.get_many([f"key{number}" for number in range(100)])
        spans = telemetry.spans()
        assert {span.name for span in spans} == {f"get_many {one.node.name}", f"get_many {two.node.name}"}
        assert {parent_of(span) for span in spans} == {parent.get_span_context().span_id}

        async def run() -> int:
            url = f"memcached://{one.node.name},{two.node.name}"
            async with connect_async(url, observer=telemetry.observer) as async_client:
                with telemetry.tracer.start_as_current_span("async request") as async_parent:
                    await async_client.get_many([f"key{number}" for number in range(100)])
            return async_parent.get_span_context().span_id

        telemetry.exporter.clear()
        wanted = asyncio.run(run())
        assert len(telemetry.spans()) == 2
        assert {parent_of(span) for span in telemetry.spans()} == {wanted}


def test_each_thread_and_each_task_has_its_own_parent(telemetry: Telemetry, server: Memcached) -> None:
    with Pool(server.node, observer=telemetry.observer) as pool:
        client = Client(pool)

        def request(number: int) -> None:
            with telemetry.tracer.start_as_current_span(f"request {number}"):
                client.get(f"key{number}")

        threads = [threading.Thread(target=request, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert_own_parents(telemetry, 8)
    telemetry.exporter.clear()

    async def main() -> None:
        async with AsyncPool(server.node, observer=telemetry.observer) as async_pool:
            async_client = AsyncClient(async_pool)

            async def async_request(number: int) -> None:
                with telemetry.tracer.start_as_current_span(f"request {number}"):
                    await async_client.get(f"key{number}")

            await asyncio.gather(*map(async_request, range(8)))

    asyncio.run(main())
    assert_own_parents(telemetry, 8)


def assert_own_parents(telemetry: Telemetry, count: int) -> None:
    parents = {span.context.span_id for span in telemetry.spans(SpanKind.INTERNAL) if span.context is not None}
    assert len(parents) == count
    assert {parent_of(span) for span in telemetry.spans()} == parents


def test_a_dead_node_gives_spans_with_an_error_type(telemetry: Telemetry) -> None:
    with Cluster([dead_node()], settings=Settings(timeout=0.5), observer=telemetry.observer) as cluster:
        client = cluster.client()
        for _ in range(4):
            with suppress(MetacacheError):
                client.get("key")
    spans = telemetry.spans()
    assert [(span.attributes or {})["error.type"] for span in spans] == ["metacache.errors.ConnectError"] * 3
    assert not [span for span in spans if span.status.is_ok]
    assert telemetry.total("metacache.node.state_changes", metacache__node__state="down") == 1
    assert telemetry.total("metacache.call.duration", error__type="metacache.errors.NodeDownError") == 1


def test_pools_are_connection_metrics(telemetry: Telemetry, server: Memcached) -> None:
    with Cluster([server.node], settings=Settings(pool_size=5), observer=telemetry.observer) as cluster:
        observe_pools(cluster, meter_provider=telemetry.meters)
        cluster.client().get("key")
        name = server.node.name
        count = "db.client.connection.count"
        pool = {"db__client__connection__pool__name": name}
        assert telemetry.total(count, **pool, db__client__connection__state="idle") == 1
        assert telemetry.total(count, **pool, db__client__connection__state="used") == 0
        assert telemetry.total("db.client.connection.max", **pool) == 5
        assert telemetry.total("db.client.connection.create_time", **pool) == 1


def test_the_instrumentor_observes_clients_without_an_observer(telemetry: Telemetry, server: Memcached) -> None:
    instrumentor = MetacacheInstrumentor()
    instrumentor.instrument(tracer_provider=telemetry.tracers, meter_provider=telemetry.meters)
    try:
        with Cluster([server.node]) as cluster:
            cluster.client().get("key")
        assert [span.name for span in telemetry.spans()] == [f"get {server.node.name}"]

        async def run() -> None:
            async with connect_async(f"memcached://{server.node.name}", observer=None) as client:
                await client.get("key")

        asyncio.run(run())
        assert len(telemetry.spans()) == 2
        assert telemetry.total("metacache.reads", metacache__result="miss") == 2
    finally:
        instrumentor.uninstrument()
    with Cluster([server.node]) as cluster:
        cluster.client().get("key")
    assert len(telemetry.spans()) == 2


def test_opentelemetry_instrument_finds_the_entry_point(server: Memcached) -> None:
    (found,) = entry_points(group="opentelemetry_instrumentor", name="metacache")
    assert found.load() is MetacacheInstrumentor
    program = (
        "import metacache\n"
        f"with metacache.connect('memcached://{server.node.name}') as client:\n"
        "    print(client.get('key'), client._transport.observer)\n"
    )
    run = "from opentelemetry.instrumentation.auto_instrumentation import run; run()"
    none = {f"OTEL_{kind}_EXPORTER": "none" for kind in ("TRACES", "METRICS", "LOGS")}
    done = subprocess.run(
        [sys.executable, "-c", run, sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **none},
    )
    assert done.stdout.strip() == "None <Reporter of OtelObserver>", done.stderr


def test_each_event_has_its_metrics(telemetry: Telemetry) -> None:
    observer = telemetry.observer
    socket_node, node = Node("unix:/run/cache.sock"), Node("cache:1")
    observer.called(Called("get_many", "p:", 9, 4, 3, 2, 1, None, 0.0, 0.25, None))
    observer.happened(Waited(node, 0.0, 0.5, is_served=False))
    observer.happened(Waited(node, 0.0, 0.25, is_served=True))
    observer.happened(NodesChanged((), (node,)))
    with telemetry.tracer.start_as_current_span("request"):
        observer.happened(Retried("get", node, ConnectError))
        observer.happened(Dialled(socket_node, 0.0, 0.25, ConnectError))
    assert telemetry.total("metacache.reads", metacache__result="undecodable") == 1
    assert telemetry.total("metacache.stale_hits", metacache__prefix="p:") == 2
    assert telemetry.total("db.client.connection.timeouts", db__client__connection__pool__name="cache:1") == 1
    (waited,) = telemetry.points("db.client.connection.wait_time")
    assert isinstance(waited, HistogramDataPoint)
    assert (waited.count, waited.sum) == (1, 0.25)
    assert telemetry.total("metacache.node.set_changes") == 1
    assert telemetry.total("metacache.retries", db__operation__name="get") == 1
    (span,) = telemetry.spans(SpanKind.INTERNAL)
    retried, failed = span.events
    assert (retried.name, failed.name) == ("metacache.retried", "metacache.dial_failed")
    assert dict(failed.attributes or {}) == {
        "server.address": "/run/cache.sock",
        "error.type": "metacache.errors.ConnectError",
    }


def test_a_span_lasts_as_long_as_its_request(telemetry: Telemetry) -> None:
    telemetry.observer.exchanged(Exchanged("get", Node("cache:1"), monotonic() - 2, 1.5, 10, 5, 1, 0, None))
    (span,) = telemetry.spans()
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.end_time - span.start_time == 1_500_000_000
    assert 1.9e9 < time_ns() - span.start_time < 60e9


def test_callers_that_wait_for_a_connection_are_a_metric(telemetry: Telemetry) -> None:
    class Busy:
        @property
        def statistics(self) -> dict[Node, PoolStatistics]:
            discarded = dict.fromkeys(CloseReason, 0)
            return {
                Node("cache:1"): PoolStatistics(
                    size=2, in_use=3, idle=4, waiting=5, created=6, discarded=discarded, waits=8, wait_seconds=9.0
                )
            }

    observe_pools(Busy(), meter_provider=telemetry.meters)
    assert telemetry.total("db.client.connection.pending_requests") == 5
    assert telemetry.total("db.client.connection.max") == 2
    assert telemetry.total("db.client.connection.count", db__client__connection__state="used") == 3
    assert telemetry.total("db.client.connection.count", db__client__connection__state="idle") == 4


def test_an_instrumented_transport_keeps_its_own_observer_and_gets_each_event_once(
    telemetry: Telemetry, server: Memcached
) -> None:
    own = Recorder()
    instrumentor = MetacacheInstrumentor()
    instrumentor.instrument(tracer_provider=telemetry.tracers, meter_provider=telemetry.meters)
    try:
        with Cluster([server.node], observer=own) as cluster:
            cluster.client().get("key")
    finally:
        instrumentor.uninstrument()
    assert [call.verb for call in own.calls] == ["get"]
    assert [exchange.verb for exchange in own.exchanges] == ["get"]
    assert len(telemetry.spans()) == 1
    assert telemetry.total("metacache.reads", metacache__result="miss") == 1


def test_a_node_without_a_port_has_only_an_address() -> None:
    assert of_node(Node("unix:/run/memcached.sock")) == {"server.address": "/run/memcached.sock"}
    assert of_node(Node(MemoryAddress(server_named("otel-attributes")))) == {
        "server.address": "memory://otel-attributes"
    }
