"""`MetacacheInstrumentor`: gives an `OtelObserver` to every transport that the program makes.

`opentelemetry-instrument` finds it by its entry point. It replaces the ``__init__`` of the transports.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import wraps
from typing import Any, Final, final

# Its module begins with "type: ignore", so mypy sees no class in it.
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]
from typing_extensions import override

from metacache import AsyncCluster, AsyncConnection, AsyncPool, Called, Cluster, Connection, Exchanged, Observer, Pool
from metacache.cluster.per_loop import PerLoop
from metacache.observe import Event, Reporter
from metacache_otel.observer import OtelObserver

__all__ = ["MetacacheInstrumentor"]

# `PerLoop` is the transport of a client of `connect_async`.
TRANSPORTS: Final[tuple[type[Any], ...]] = (  # Any: their __init__ is replaced, which no type describes
    Cluster,
    AsyncCluster,
    PerLoop,
    Pool,
    AsyncPool,
    Connection,
    AsyncConnection,
)

_Init = Callable[..., None]


@final
class _Both:
    """An observer that passes each event to two."""

    def __init__(self, first: Observer, second: Observer) -> None:
        self._first = first
        self._second = second

    def called(self, event: Called, /) -> None:
        self._first.called(event)
        self._second.called(event)

    def exchanged(self, event: Exchanged, /) -> None:
        self._first.exchanged(event)
        self._second.exchanged(event)

    def happened(self, event: Event, /) -> None:
        self._first.happened(event)
        self._second.happened(event)


@final
class MetacacheInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # as above: its base is Any for mypy
    """Observes all transports that are made after `instrument`, until `uninstrument`.

    A transport with an observer of its own keeps that one too. It subclasses BaseInstrumentor, which
    `opentelemetry-instrument` requires.
    """

    _originals: dict[type[Any], _Init]  # Any: as in TRANSPORTS

    @override
    def instrumentation_dependencies(self) -> Collection[str]:
        """Return the distribution that it instruments."""
        return ("metacache >= 0.1",)

    @override
    def _instrument(self, **kwargs: Any) -> None:  # Any: the providers, as BaseInstrumentor declares them
        observer = OtelObserver(
            tracer_provider=kwargs.get("tracer_provider"), meter_provider=kwargs.get("meter_provider")
        )
        self._originals = {transport: transport.__init__ for transport in TRANSPORTS}
        for transport, init in self._originals.items():
            transport.__init__ = _observing(init, observer)

    @override
    def _uninstrument(self, **kwargs: Any) -> None:  # Any: as above
        for transport, init in self._originals.items():
            transport.__init__ = init


def _observing(init: _Init, observer: OtelObserver) -> _Init:
    @wraps(init)
    def observed(self: object, *args: Any, observer: Observer | None = None, **kwargs: Any) -> None:  # Any: of *init*
        init(self, *args, observer=_combined(observer), **kwargs)

    def _combined(own: Observer | None) -> Observer:
        if own is None:
            return observer
        # A cluster passes its observer, which includes this one, to its pools.
        is_included = isinstance(own, Reporter) and isinstance(own.observer, OtelObserver | _Both)
        return own if is_included else _Both(observer, own)

    return observed
