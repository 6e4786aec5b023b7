"""A batch whose stream fails: the stage at which it fails decides which writes may have been applied."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, final

import pytest

from metacache import Batch, ConnectError, ConnectionLost, MetacacheError, OperationTimeout
from metacache.protocol import commands
from metacache.protocol.connection import ProtocolConnection
from metacache.protocol.expectations import Expectation
from metacache.transports.base import Verb
from metacache.transports.blocking.exchange import StreamExchange
from metacache.transports.counters import CloseReason

SET: Final = Verb("set_many", commands.MS, is_read=False)


@final
class Broken:
    """A stream that fails with *error* at *stage*; ``is_closed`` says whether the exchange closed it."""

    is_tls = False

    def __init__(self, stage: str, error: MetacacheError) -> None:
        self.protocol = ProtocolConnection(max_reply_size=1000)
        self.is_closed = False
        self._stage = stage
        self._error = error

    def _at(self, stage: str) -> None:
        if stage == self._stage:
            raise self._error

    def prepare(self, _: float, /) -> bool:
        self._at("prepare")
        return True

    def fileno(self) -> int:
        return -1

    def write(self, data: memoryview, /) -> int:
        self._at("write")
        return len(data)

    def read(self) -> tuple[int, Sequence[Expectation]] | None:
        self._at("read")
        return None

    def unblock(self) -> None:
        self._at("unblock")

    def failed(self, error: BaseException, /) -> MetacacheError | None:
        self.is_closed = True
        return error if isinstance(error, MetacacheError) else None

    def close(self, _: CloseReason, /) -> None:
        self.is_closed = True


def local(error: OperationTimeout) -> OperationTimeout:
    """Return *error*, marked as not caused by the node."""
    error.is_local = True
    return error


ERRORS: Final[dict[str, Callable[[], MetacacheError]]] = {
    "the node's": lambda: ConnectError("refused"),
    "this side's": lambda: local(OperationTimeout("too late")),
}


def outcome_of(stream: Broken) -> tuple[list[MetacacheError], int]:
    """Return the errors of a batch of two writes on *stream*, and how often it gave the stream back."""
    released: list[None] = []
    batch = Batch(SET, ["a", "b"], [b"a", b"b"], [b"ms a 1", b"ms b 1"], [b"x", b"x"])
    exchange = StreamExchange(batch, stream, lambda _: released.append(None), node="node", deadline=math.inf)
    while not exchange.advance(0.0):
        pass
    return list(exchange.outcomes().errors.values()), len(released)


@pytest.mark.parametrize("whose", ERRORS)
def test_a_failure_before_a_byte_is_sent_leaves_the_connection_open(whose: str) -> None:
    stream = Broken("prepare", ERRORS[whose]())
    errors, released = outcome_of(stream)
    assert [error.maybe_applied for error in errors] == [False, False]
    assert not stream.is_closed
    assert released == 1


@pytest.mark.parametrize(
    ("error", "is_applied"),
    [
        (ConnectionLost("the connection broke"), True),
        (local(OperationTimeout("too late")), True),
        (ConnectError("the server took nothing on this connection"), False),
    ],
    ids=lambda given: type(given).__name__,
)
@pytest.mark.parametrize("stage", ["write", "read"])
def test_after_a_byte_is_sent_the_connection_is_closed_and_a_write_may_have_been_applied(
    stage: str, error: MetacacheError, *, is_applied: bool
) -> None:
    stream = Broken(stage, error)
    errors, released = outcome_of(stream)
    assert [error.maybe_applied for error in errors] == [is_applied] * 2
    assert stream.is_closed
    assert released == 1
