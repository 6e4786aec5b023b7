"""`OtelObserver`: makes spans and metrics of the events of metacache clients. Reads the clock; does no I/O."""

from __future__ import annotations

import time
from typing import Final, final

from opentelemetry import trace
from opentelemetry.metrics import MeterProvider, get_meter
from opentelemetry.trace import SpanKind, Status, StatusCode, TracerProvider, get_tracer

from metacache import Called, Dialled, Exchanged, NodesChanged, Retried, StateChanged, Waited
from metacache_otel.attributes import error_type, of_node, of_operation, pool_name

__all__ = ["BUCKETS", "OtelObserver"]

NAME: Final = "metacache_otel"
SCHEMA: Final = "https://opentelemetry.io/schemas/1.30.0"

BUCKETS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
"""The bucket boundaries of ``db.client.operation.duration``, in seconds, as the conventions advise."""


@final
class OtelObserver:
    """Makes a span of each request to a node, and metrics: ``connect(url, observer=OtelObserver())``.

    One observer may serve all clients of a process. No attribute holds a key.

    Args:
        tracer_provider: None: the global one.
        meter_provider: None: the global one.
    """

    def __init__(
        self, *, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
    ) -> None:
        self._tracer = get_tracer(NAME, tracer_provider=tracer_provider, schema_url=SCHEMA)
        meter = get_meter(NAME, meter_provider=meter_provider, schema_url=SCHEMA)
        self._duration = meter.create_histogram(
            "db.client.operation.duration",
            "s",
            "Duration of database client operations.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        self._calls = meter.create_histogram(
            "metacache.call.duration",
            "s",
            "Duration of calls of a client's methods.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        self._reads = meter.create_counter("metacache.reads", "{key}", "Keys that were read, by result.")
        self._stale = meter.create_counter("metacache.stale_hits", "{key}", "Hits whose item was marked stale.")
        self._sources = meter.create_counter(
            "metacache.computations", "{value}", "Values of get_or_compute, by source."
        )
        self._create_time = meter.create_histogram(
            "db.client.connection.create_time", "s", "The time it took to create a new connection."
        )
        self._wait_time = meter.create_histogram(
            "db.client.connection.wait_time", "s", "The time it took to obtain an open connection from the pool."
        )
        self._timeouts = meter.create_counter(
            "db.client.connection.timeouts", "{timeout}", "Requests that gave up their wait for a connection."
        )
        self._retries = meter.create_counter("metacache.retries", "{request}", "Requests that were sent again.")
        self._changes = meter.create_counter(
            "metacache.node.state_changes", "{change}", "Changes of the state of a node."
        )
        self._node_sets = meter.create_counter(
            "metacache.node.set_changes", "{change}", "Replacements of the set of nodes."
        )

    def called(self, event: Called, /) -> None:
        """Count one call: its duration, and its hits and misses by prefix."""
        prefix = {"metacache.prefix": event.prefix}
        call: dict[str, str] = {"db.system.name": "memcached", "db.operation.name": event.verb, **prefix}
        if event.error is not None:
            call["error.type"] = error_type(event.error)
        self._calls.record(event.seconds, call)
        for result, count in (("hit", event.hits), ("miss", event.misses), ("undecodable", event.undecodable)):
            if count:
                self._reads.add(count, {**prefix, "metacache.result": result})
        if event.stale:
            self._stale.add(event.stale, prefix)
        if event.source is not None:
            self._sources.add(1, {**prefix, "metacache.source": event.source.value})

    def exchanged(self, event: Exchanged, /) -> None:
        """Make a span of one request, whose parent is the current span of the caller, and count its duration."""
        attributes = of_operation(event.verb, event.node, event.error)
        self._duration.record(event.seconds, attributes)
        # The clock of the event has another origin than that of spans.
        age = time.monotonic() - event.began
        start = time.time_ns() - int(age * 1e9)
        span = self._tracer.start_span(
            f"{event.verb} {pool_name(event.node)}",
            kind=SpanKind.CLIENT,
            attributes=attributes,
            start_time=start,
        )
        if event.error is not None:
            span.set_status(Status(StatusCode.ERROR))
        if span.is_recording():
            span.set_attribute("metacache.request.keys", event.requests)
            span.set_attribute("metacache.request.hits", event.hits)
        span.end(start + int(event.seconds * 1e9))

    def happened(self, event: Dialled | Waited | Retried | StateChanged | NodesChanged, /) -> None:
        """Count another event. A retry and a failed dial are also events of the current span."""
        match event:
            case Dialled():
                pool = {"db.client.connection.pool.name": pool_name(event.node)}
                if event.error is None:
                    self._create_time.record(event.seconds, pool)
                else:
                    attributes = {**of_node(event.node), "error.type": error_type(event.error)}
                    trace.get_current_span().add_event("metacache.dial_failed", attributes)
            case Waited():
                pool = {"db.client.connection.pool.name": pool_name(event.node)}
                if event.is_served:
                    self._wait_time.record(event.seconds, pool)
                else:
                    self._timeouts.add(1, pool)
            case Retried():
                attributes = of_operation(event.verb, event.node, event.error)
                self._retries.add(1, attributes)
                trace.get_current_span().add_event("metacache.retried", attributes)
            case StateChanged():
                self._changes.add(1, {**of_node(event.node), "metacache.node.state": event.after.value})
            case NodesChanged():
                self._node_sets.add(1)
