"""The parts of a client that both kinds of client share: serializer frame, options, operations, policies, counters.

It builds these parts and does no I/O. The counters and the policies change while the client is used.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, Unpack, final

import attrs

from metacache.errors import ClosedError, InvalidArgumentError, InvalidTypeError, MetacacheError, ValueTooLargeError
from metacache.interrupts import is_injected
from metacache.once import Once
from metacache.operations.batches import Batches
from metacache.operations.options import Options, ViewOptions, refuse_unknown
from metacache.operations.policies import ErrorPolicy, UndecodablePolicy
from metacache.operations.readers import Reader
from metacache.operations.requests import Operations
from metacache.operations.statistics import ClientStatistics, Counts
from metacache.operations.tallies import ReadCounts, TallyCounts
from metacache.protocol.keys import Key
from metacache.protocol.windows import Replies
from metacache.serializers.frame import Frame
from metacache.serializers.interfaces import Serializer
from metacache.serializers.plain import BytesSerializer, IntSerializer, StrSerializer
from metacache.settings import Settings
from metacache.transports.base import Batch
from metacache.transports.batch_windows import failed_replies

if TYPE_CHECKING:
    from metacache.caching.shared import Shared
    from metacache.client.calls import Calls
    from metacache.observe import Reporter

__all__ = ["Core", "check_transport", "observed_options", "replies_after"]

T = TypeVar("T")


@final
class Core(Generic[T]):
    """The parts of one client. Its views share the frame and the counters."""

    __slots__ = (
        "_counts",
        "_frame",
        "_label",
        "_reads",
        "batches",
        "calls",
        "errors",
        "operations",
        "options",
        "shared",
        "undecodable",
    )

    def __init__(
        self,
        frame: Frame[T],
        options: Options,
        undecodable: UndecodablePolicy,
        errors: ErrorPolicy,
        counts: Counts,
        reads: TallyCounts | None,
        shared: Once[Shared[T]],
        label: str | None = None,
    ) -> None:
        self._reads = reads
        self.shared = shared
        self._frame = frame
        self._counts = counts
        self.options = options
        self.undecodable = undecodable
        self.errors = errors
        self.operations = Operations(Reader(frame, undecodable, reads or counts), options, time.time)
        self.batches = Batches(self.operations)
        self._label = label
        self.calls: Calls | None = None
        if reads is not None and options.observer is not None:
            self.calls = self._calls(options.observer, reads, options.prefix)

    def _calls(self, reporter: Reporter, reads: TallyCounts, prefix: Key) -> Calls:
        from metacache.client.calls import Calls, prefix_text  # late: only a client with an observer needs it

        self._label = prefix_text(prefix) if self._label is None else self._label
        return Calls(reporter, reads, self._label, self.operations)

    @classmethod
    def of(cls, serializer: Serializer[T], options: Options) -> Core[T]:
        """Return the core of a new client. Raises InvalidTypeError if *serializer* is not a Serializer."""
        # Items of other clients, and numbers that the server creates, have client flags 0. They are plain bytes, text
        # or digits.
        reads_plain = isinstance(serializer, _PLAIN)
        if not reads_plain:
            _check_serializer(serializer)
        frame = Frame(serializer, compressor=options.compressor, reads_plain=reads_plain)
        counts = Counts()
        reads = None if options.observer is None else TallyCounts(counts)
        undecodable = UndecodablePolicy(strict=options.on_undecodable == "raise", reads=reads)
        return cls(
            frame,
            options,
            undecodable,
            ErrorPolicy(options.on_error, counts, {}),
            counts,
            reads,
            Once(_shared),
        )

    def namespace_view(self, prefix: Key) -> Core[T]:
        """Return a core for the keys of a namespace: they begin with *prefix*. Events keep the prefix of this core."""
        return self._with(attrs.evolve(self.options, prefix=prefix), self._label)

    def view(self, **changes: Unpack[ViewOptions]) -> Core[T]:
        """Return a core with some options changed. Raises InvalidTypeError for an option that a view cannot change."""
        refuse_unknown(changes)
        fixed = changes.keys() - ViewOptions.__annotations__.keys()
        if fixed:
            changed = f"with_options changes {', '.join(ViewOptions.__annotations__)}, not {', '.join(sorted(fixed))}"
            raise InvalidTypeError(f"{changed}; make another client for that")
        return self._with(attrs.evolve(self.options, **changes), None if "prefix" in changes else self._label)

    def _with(self, options: Options, label: str | None) -> Core[T]:
        return Core(
            self._frame,
            options,
            self.undecodable,
            self.errors.view(options.on_error),
            self._counts,
            self._reads,
            self.shared,
            label,
        )

    @property
    def timeout(self) -> float:
        """The seconds that closing waits for other threads: the client's timeout, or the default of a transport."""
        return Settings().timeout if self.options.timeout is None else self.options.timeout

    @property
    def read_counts(self) -> ReadCounts:
        """What the readers of this client count with."""
        return self._reads or self._counts

    @property
    def statistics(self) -> ClientStatistics:
        """A snapshot of the counters."""
        undecodable = sum(self.undecodable.counts.values())
        shared = self.shared.made
        if shared is None:
            return self._counts.snapshot(undecodable, {}, {})
        return self._counts.snapshot(undecodable, shared.computations.by_source(), shared.computations.failures())


def _shared() -> Shared[Any]:  # Any: T of the client that uses it first, and of its views
    from metacache.caching.shared import Shared  # late: only `get_or_compute` and its relatives need it

    return Shared()


_SERIALIZER = ("wire_id", "fingerprint", "dumps", "loads")
_PLAIN: Final = (BytesSerializer, StrSerializer, IntSerializer)


def _check_serializer(serializer: object) -> None:
    if isinstance(serializer, str) or not all(hasattr(serializer, name) for name in _SERIALIZER):
        raise InvalidTypeError(
            f"a client takes a Serializer, not {type(serializer).__name__}; load_serializer(name, type) makes one"
        )


_RAISED: Final = (ClosedError, ValueTooLargeError, InvalidArgumentError)


def replies_after(error: MetacacheError, batch: Batch) -> Replies:
    """Return *error*, which a transport raised, for each request of *batch*. Call it where *error* is caught.

    Raises *error* itself if it concerns the whole batch and nothing was sent, or if it interrupted the transport.
    """
    if isinstance(error, _RAISED) or is_injected(error):
        raise error
    return failed_replies(batch, error)


# For each client: the method its transport needs beside `run` and `run_batch`, the transports by name, the function
# that makes both.
_CLIENTS: Final = {
    "Client": ("close", "a Connection, a Pool or a Cluster", "connect"),
    "AsyncClient": ("aclose", "an AsyncConnection, an AsyncPool or an AsyncCluster", "connect_async"),
}


def observed_options(options: Options, transport: object) -> Options:
    """Return *options* with the observer of *transport* if they have none. A wrapper of a user may have no observer."""
    observer = getattr(transport, "observer", None)
    return options if options.observer is not None or observer is None else attrs.evolve(options, observer=observer)


def _fits(transport: object, client: str) -> bool:
    method, _, _ = _CLIENTS[client]
    is_complete = hasattr(transport, method) and hasattr(transport, "run") and hasattr(transport, "run_batch")
    return is_complete and not isinstance(transport, type)


def check_transport(transport: object, client: str) -> None:
    """Raise InvalidTypeError unless *transport* has the methods that *client* calls. A wrapper has them too."""
    if _fits(transport, client):
        return
    fitting = [name for name in _CLIENTS if _fits(transport, name)]
    _, wanted, maker = _CLIENTS[client]
    given = f"the class {transport.__name__}" if isinstance(transport, type) else type(transport).__name__
    hint = f"that is for {fitting[0]}" if fitting else f"{maker}(url) makes a client of a URL"
    raise InvalidTypeError(f"{client} takes {wanted}, or a wrapper of one, not {given}; {hint}")
