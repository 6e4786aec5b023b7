"""metacache_otel: OpenTelemetry spans and metrics of metacache clients, and an instrumentor that adds them to all."""

from metacache_otel.instrumentor import MetacacheInstrumentor
from metacache_otel.observer import OtelObserver
from metacache_otel.pools import observe_pools

__all__ = ["MetacacheInstrumentor", "OtelObserver", "observe_pools"]
