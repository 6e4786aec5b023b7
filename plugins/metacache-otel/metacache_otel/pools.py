"""`observe_pools`: connection pool metrics that are read from `statistics` when metrics are exported. Does no I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter

from metacache import Node, PoolStatistics
from metacache_otel.attributes import pool_name
from metacache_otel.observer import NAME, SCHEMA

__all__ = ["observe_pools"]


class _Cluster(Protocol):
    """What is read of a `Cluster` or an `AsyncCluster`."""

    @property
    def statistics(self) -> Mapping[Node, PoolStatistics]: ...


def observe_pools(cluster: _Cluster, *, meter_provider: MeterProvider | None = None) -> None:
    """Report the pools of *cluster* as ``db.client.connection.*`` whenever metrics are collected.

    Call it once for each cluster. *meter_provider*: None: the global one.
    """
    meter = get_meter(NAME, meter_provider=meter_provider, schema_url=SCHEMA)
    meter.create_observable_up_down_counter(
        "db.client.connection.count",
        (_counts(cluster),),
        "{connection}",
        "The number of connections that are currently in the state of the attribute.",
    )
    meter.create_observable_up_down_counter(
        "db.client.connection.max",
        (_each(cluster, lambda pool: pool.size),),
        "{connection}",
        "The maximum number of open connections allowed.",
    )
    meter.create_observable_up_down_counter(
        "db.client.connection.pending_requests",
        (_each(cluster, lambda pool: pool.waiting),),
        "{request}",
        "The number of requests that wait for a connection.",
    )


def _counts(cluster: _Cluster) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_: CallbackOptions) -> Iterable[Observation]:
        for node, pool in cluster.statistics.items():
            name = {"db.client.connection.pool.name": pool_name(node)}
            yield Observation(pool.in_use, {**name, "db.client.connection.state": "used"})
            yield Observation(pool.idle, {**name, "db.client.connection.state": "idle"})

    return observe


def _each(
    cluster: _Cluster, number: Callable[[PoolStatistics], int]
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_: CallbackOptions) -> Iterable[Observation]:
        for node, pool in cluster.statistics.items():
            yield Observation(number(pool), {"db.client.connection.pool.name": pool_name(node)})

    return observe
