"""Makes a Grafana dashboard of the metrics: ``python -m metacache_prometheus.dashboard > dashboard.json``."""

from __future__ import annotations

import json
import sys
from typing import Final, TypedDict

__all__ = ["dashboard"]

_WIDTH: Final = 12  # Grafana's grid has 24 columns
_HEIGHT: Final = 8
_RATE: Final = "[$__rate_interval]"

# Title, unit, and the queries with their legends.
PANELS: Final[tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...]] = (
    (
        "Calls",
        "ops",
        ((f"sum by (operation) (rate(metacache_operation_duration_seconds_count{_RATE}))", "{{operation}}"),),
    ),
    (
        "Latency of calls, 99th percentile",
        "s",
        (
            (
                "histogram_quantile(0.99, sum by (le, operation) "
                f"(rate(metacache_operation_duration_seconds_bucket{_RATE})))",
                "{{operation}}",
            ),
        ),
    ),
    (
        "Hit rate",
        "percentunit",
        (
            (
                f'sum by (prefix) (rate(metacache_reads_total{{result="hit"}}{_RATE}))'
                f" / sum by (prefix) (rate(metacache_reads_total{_RATE}))",
                "{{prefix}}",
            ),
        ),
    ),
    (
        "Failed calls",
        "ops",
        (
            (
                f'sum by (error) (rate(metacache_operation_duration_seconds_count{{error!=""}}{_RATE}))',
                "{{error}}",
            ),
        ),
    ),
    (
        "Latency of requests by node, 99th percentile",
        "s",
        (
            (
                f"histogram_quantile(0.99, sum by (le, node) (rate(metacache_request_duration_seconds_bucket{_RATE})))",
                "{{node}}",
            ),
        ),
    ),
    ("Nodes that are not up", "short", (('metacache_node_state{state!="up"} == 1', "{{node}} {{state}}"),)),
    (
        "Connections",
        "short",
        (
            ("sum by (node, use) (metacache_pool_connections)", "{{node}} {{use}}"),
            ("sum by (node) (metacache_pool_waiting)", "{{node}} waiting"),
        ),
    ),
    (
        "Computed values by source",
        "ops",
        ((f"sum by (source) (rate(metacache_computations_total{_RATE}))", "{{source}}"),),
    ),
)


class _Target(TypedDict):
    expr: str
    legendFormat: str
    refId: str


def dashboard() -> dict[str, object]:
    """Return the dashboard, as Grafana imports it. Grafana asks for the data source."""
    return {
        "title": "metacache",
        "uid": "metacache",
        "schemaVersion": 39,
        "tags": ["memcached", "metacache"],
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "30s",
        "templating": {
            "list": [{"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}]
        },
        "panels": [_panel(number, *panel) for number, panel in enumerate(PANELS)],
    }


def _panel(number: int, title: str, unit: str, queries: tuple[tuple[str, str], ...]) -> dict[str, object]:
    targets: list[_Target] = [
        {"expr": query, "legendFormat": legend, "refId": chr(ord("A") + position)}
        for position, (query, legend) in enumerate(queries)
    ]
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": title,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
        "gridPos": {"x": number % 2 * _WIDTH, "y": number // 2 * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "targets": targets,
    }


if __name__ == "__main__":
    json.dump(dashboard(), sys.stdout, indent=2)
    sys.stdout.write("\n")
