"""The `Observer` protocol and its events; the states of a node and the sources of a computed value. Does no I/O.

The rooms above report events through a `Reporter`, which keeps an exception of the observer away from their results.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeAlias, final

from metacache.errors import InvalidTypeError
from metacache.interrupts import is_from_handler
from metacache.logs import logger_of
from metacache.marks import override

if TYPE_CHECKING:
    from metacache.nodes import Node

__all__ = [
    "Called",
    "Dialled",
    "Event",
    "Exchanged",
    "NodeState",
    "NodesChanged",
    "Observer",
    "Reporter",
    "Retried",
    "Source",
    "StateChanged",
    "Waited",
    "new_event",
    "reporter_of",
]

# Makes an event of a class and a tuple, for the hot path. The ``__new__`` of a NamedTuple is a Python function: a call
# of it costs 400 instructions more.
new_event: Final[Callable[[Any, Any], Any]] = tuple[Any, ...].__new__  # Any: an event's class, its fields, the event


@final
class NodeState(enum.Enum):
    """The state of a node, from the view of this client."""

    UP = "up"
    SUSPECT = "suspect"
    """It failed, but not often enough in a row to be down. Operations go to it as before."""
    DOWN = "down"
    """It failed three times in a row. Operations fail immediately, or go to the next-ranked node."""
    PROBING = "probing"
    """It is down, and one caller is checking whether it answers."""


@final
class Source(enum.Enum):
    """Where the value of a `get_or_compute` came from."""

    HIT = "hit"
    """It was in the cache, and fresh."""
    STALE = "stale"
    """It was in the cache and is expired or invalidated; another caller computes it, or the factory failed."""
    COMPUTED = "computed"
    """This call computed it and stored it."""
    UNSTORED = "unstored"
    """This call computed it and did not store it, because `should_cache` was false, the key was changed or deleted
    meanwhile, the lease was over, or the cache failed and ``on_error`` suppresses that."""
    WAITED = "waited"
    """Another caller computed it while this call waited."""


class Called(NamedTuple):
    """One call of a client's method, at its end.

    A call that is refused is not reported: its arguments are invalid, or the client or its transport is closed. If
    requests were answered before, the call is reported, whatever ended it. A background refresh is not a call. Its
    requests are `Exchanged` events, and the calls of its factory are calls of their own.

    Attributes:
        verb: the method, such as ``get_many``.
        prefix: the prefix of the client, as text. A view of a namespace has the prefix of its client.
        keys: the number of keys.
        hits: reads that returned a value (None may be a value), or True.
        misses: reads that found no item, or a lease placeholder.
        stale: hits whose item was marked stale.
        undecodable: stored values that could not be decoded. Such a read is neither a hit nor a miss.
        source: where the value of `get_or_compute`, `get_or_compute_item`, `Cached` or `Cached.refresh` came from; None
            for other methods, and if the call failed. The values of `get_or_compute_many` may have several sources:
            see `ClientStatistics.computations`.
        began: ``time.monotonic()`` when the call began.
        seconds: how long it took.
        error: the class of the exception that ended the call, or that ``on_error`` suppressed; None: there was none. A
            `get_or_compute` with an error that was suppressed has a source too.
    """

    verb: str
    prefix: str
    keys: int
    hits: int
    misses: int
    stale: int
    undecodable: int
    source: Source | None
    began: float
    seconds: float
    error: type[BaseException] | None


class Exchanged(NamedTuple):
    """One request, or the part of a batch that one node serves, at its end.

    A method may make several requests, and a call that fails early makes none. Probes are requests too.

    Attributes:
        verb: the method that made the request; ``probe`` for the probe of a node that is down.
        node: the node that served it.
        began: ``time.monotonic()`` when the request began. A wait for a connection and a dial are included.
        seconds: how long it took, without the decoding of values.
        sent: bytes of the request lines and data blocks, without opaques; 0 if no connection could be used.
        received: bytes of the replies, without opaques.
        requests: the number of requests: the keys of a batch's part, else 1.
        hits: requests to read that the node answered with an item that is no lease placeholder. The item may be
            undecodable: the node does not know.
        error: the class of the error that ended the request, or of the first one in a batch; None: it succeeded.
    """

    verb: str
    node: Node
    began: float
    seconds: float
    sent: int
    received: int
    requests: int
    hits: int
    error: type[BaseException] | None


class Dialled(NamedTuple):
    """One attempt to open a connection: name resolution, connect, TLS and authentication.

    Attributes:
        node: the node.
        began: ``time.monotonic()`` when the attempt began.
        seconds: how long it took.
        error: the class of the error; None: the connection is open.
    """

    node: Node
    began: float
    seconds: float
    error: type[BaseException] | None


class Waited(NamedTuple):
    """One request that had to wait for a connection, or until fewer requests were in flight; at the end of its wait.

    Attributes:
        node: the node.
        began: ``time.monotonic()`` when the wait began.
        seconds: how long it took.
        is_served: False if the request gave up: its deadline passed, it was cancelled, or the pool was closed.
    """

    node: Node
    began: float
    seconds: float
    is_served: bool


class Retried(NamedTuple):
    """One request, or a batch's part, that is sent again after an attempt that certainly did nothing.

    Either the server had closed an idle connection, or the node is down and another node serves its keys now. New
    attempts of `update`, `append` and `prepend` after a conflict are not retries.

    Attributes:
        verb: the method that made the request.
        node: the node of the failed attempt.
        error: the class of the error of that attempt.
    """

    verb: str
    node: Node
    error: type[BaseException]


class StateChanged(NamedTuple):
    """The state of a node has changed.

    Attributes:
        node: the node.
        before: the state before.
        after: the state now.
    """

    node: Node
    before: NodeState
    after: NodeState


class NodesChanged(NamedTuple):
    """The set of nodes of a cluster was replaced by another one.

    Attributes:
        before: the nodes before.
        after: the nodes now.
    """

    before: tuple[Node, ...]
    after: tuple[Node, ...]


Event: TypeAlias = Dialled | Waited | Retried | StateChanged | NodesChanged
"""The events that `Observer.happened` gets."""


class Observer(Protocol):
    """Is called with events. It must not block. An exception that it raises is logged once and changes no result.

    Threads that share a client call it at the same time. Events hold no key and no value.
    """

    def called(self, event: Called, /) -> None:
        """Handle the end of a call. It runs where the call was made, with the context variables of its caller."""
        ...

    def exchanged(self, event: Exchanged, /) -> None:
        """Handle the end of a request. It runs with the context variables of the caller."""
        ...

    def happened(self, event: Event, /) -> None:
        """Handle another event. It runs in any task or thread of the client."""
        ...


@final
class Reporter:
    """Calls one observer, and keeps its exceptions away from the code that reports."""

    __slots__ = ("_has_failed", "observer")

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
        self._has_failed = False

    @override
    def __repr__(self) -> str:
        return f"<Reporter of {type(self.observer).__name__}>"

    def called(self, event: Called, /) -> None:
        """Report *event*."""
        try:
            self.observer.called(event)
        except Exception as error:
            self.failed(error)

    def exchanged(self, event: Exchanged, /) -> None:
        """Report *event*."""
        try:
            self.observer.exchanged(event)
        except Exception as error:
            self.failed(error)

    def happened(self, event: Event, /) -> None:
        """Report *event*."""
        try:
            self.observer.happened(event)
        except Exception as error:
            self.failed(error)

    def failed(self, error: Exception) -> None:
        """Log *error* of the observer, the first time; raise it if a signal handler raised it."""
        if is_from_handler(error):
            raise error
        if not self._has_failed:
            self._has_failed = True
            logger_of("metacache.observe").error(
                "the observer %s raised an exception; this and further ones are ignored",
                type(self.observer).__name__,
                exc_info=error,
            )


_METHODS: Final = ("called", "exchanged", "happened")


def is_observer(observer: object) -> bool:
    """Return whether *observer* has the methods of an `Observer`."""
    return not isinstance(observer, type) and all(callable(getattr(observer, name, None)) for name in _METHODS)


def reporter_of(observer: Observer | None) -> Reporter | None:
    """Return the reporter for *observer*, which may be a reporter already; None for None.

    Raises InvalidTypeError if it is not an observer.
    """
    if observer is None or isinstance(observer, Reporter):
        return observer
    if not is_observer(observer):
        given = f"the class {observer.__name__}" if isinstance(observer, type) else type(observer).__name__
        raise InvalidTypeError(f"observer is an object with called, exchanged and happened, not {given}")
    return Reporter(observer)
