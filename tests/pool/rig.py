"""Helpers for tests of pools: connections that stay in use, and threads that return results."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from time import monotonic
from typing import Final, Generic, TypeVar, final
from unittest.mock import patch

from typing_extensions import override

from metacache import Cluster, Connection, Pool, Settings
from metacache.cluster import blocking_batch
from metacache.operations.batches import GET_MANY
from metacache.transports.base import Batch
from metacache.transports.blocking.exchange import Exchange

R = TypeVar("R")

PATIENCE: Final = 10.0
PATIENT: Final = Settings(timeout=PATIENCE)


def some_batch() -> Batch:
    """Return a batch of one read."""
    return Batch(GET_MANY, ["held"], [b"held"], [b"mg held f v"])


def begin(
    transport: Connection | Pool | Cluster, batch: Batch | None = None, deadline: float | None = None
) -> Exchange:
    """Start *batch*, or one of one read; its connection is in use until the test finishes or drops the exchange."""
    batch = some_batch() if batch is None else batch
    deadline = monotonic() + PATIENCE if deadline is None else deadline
    if isinstance(transport, Cluster):
        with patch.object(blocking_batch, "run_quickly", return_value=None):  # it would finish the batch
            return transport._begin(batch, deadline)
    return transport.lending.begin(batch, deadline)


def finish(exchange: Exchange) -> None:
    """Drive *exchange* to its end, so that its connection goes back to the pool."""
    end = monotonic() + PATIENCE
    while not exchange.advance(monotonic()):
        exchange.wait(PATIENCE)
        assert monotonic() < end
        time.sleep(0)
    exchange.outcomes()


@contextmanager
def held(pool: Pool, count: int = 1) -> Generator[None]:
    """Keep *count* connections of *pool* in use."""
    exchanges = [begin(pool) for _ in range(count)]
    for exchange in exchanges:
        exchange.advance(monotonic())  # dials, and writes
    yield
    for exchange in exchanges:
        finish(exchange)


@final
class Call(threading.Thread, Generic[R]):
    """Calls *function* in a thread of its own, which starts immediately."""

    def __init__(self, function: Callable[[], R]) -> None:
        super().__init__(daemon=True)
        self._function = function
        self._returned: list[R] = []
        self._failure: BaseException | None = None
        self.start()

    @override
    def run(self) -> None:
        try:
            self._returned.append(self._function())
        except BaseException as failure:  # raised again by `result`
            self._failure = failure

    def result(self) -> R:
        """Wait for the thread; return the result of the function, or raise its exception."""
        self.join(3 * PATIENCE)
        assert not self.is_alive(), "it hangs"
        if self._failure is not None:
            raise self._failure
        return self._returned[0]


def until(condition: Callable[[], bool]) -> None:
    """Poll until *condition* holds, which another thread makes true."""
    end = monotonic() + PATIENCE
    while not condition():
        assert monotonic() < end, "the condition did not become true"
        time.sleep(0.001)


def open_sockets() -> int:
    """Return how many descriptors of this process are sockets."""
    return sum(_is_socket(name) for name in os.listdir("/proc/self/fd"))


def _is_socket(name: str) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    except OSError:  # the descriptor of the listing itself
        return False
