"""Runs the operations, batches and recipes of a `Client`, and applies its `on_error` policy to their errors."""

from __future__ import annotations

import math
import time
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar, final

from metacache.client.core import replies_after
from metacache.errors import MetacacheError
from metacache.operations.batches import BatchOperation
from metacache.operations.policies import WRITE, ErrorPolicy, Kind
from metacache.operations.results import Outcomes
from metacache.protocol.keys import K
from metacache.protocol.windows import Replies
from metacache.transports.base import Batch, Operation, Transport
from metacache.transports.blocking.driver import drive

__all__ = ["BlockingEffects", "Run"]

R = TypeVar("R")
V = TypeVar("V")


class Run(Protocol):
    """`Transport.run`, as a client calls it."""

    def __call__(self, op: Operation[R], /, *, deadline: float | None) -> R:
        """Run *op*."""
        ...


def _run_within(transport: Transport, timeout: float) -> Run:
    def run(op: Operation[R], /, *, deadline: float | None) -> R:  # noqa: ARG001 - it is set here
        return transport.run(op, deadline=time.monotonic() + timeout)

    return run


@final
class BlockingEffects:
    """The effects that a client's recipes await, and the functions with which its methods run.

    ``transport_run``: runs one operation within the timeout of the client.
    """

    __slots__ = ("_errors", "_timeout", "_transport", "transport_run")

    transport_run: Run

    def __init__(self, transport: Transport, timeout: float | None, errors: ErrorPolicy) -> None:
        self._transport = transport
        self._timeout = timeout
        self._errors = errors
        # Chosen once, so that an operation need not look for a timeout. The function must not refer to the client: such
        # a cycle would keep the client alive until the garbage collector runs.
        self.transport_run = self.run_of(transport)

    def run_of(self, transport: Transport) -> Run:
        """Return a function that runs one operation on *transport* within the timeout of the client."""
        return transport.run if self._timeout is None else _run_within(transport, self._timeout)

    async def run(self, op: Operation[R], /) -> R:
        """Run *op* with a timeout of its own, as one step of a recipe."""
        return self.transport_run(op, deadline=None)

    async def sleep(self, seconds: float, /) -> None:
        """Wait for that number of seconds."""
        time.sleep(seconds)

    def call(self, kind: Kind, op: Operation[R], *, fallback: R) -> R:
        """Run *op*; return *fallback* if the policy suppresses its error."""
        try:
            return self.transport_run(op, deadline=None)
        except MetacacheError as error:
            if self._errors.suppresses(kind, error):
                return fallback
            raise

    def results(self, batch: BatchOperation[K, V]) -> dict[K, V]:
        """Run *batch*; return its results by key. Raises BatchError if the policy does not suppress the errors."""
        return batch.results(self.run_batch(batch.batch), self._errors)

    def outcomes(self, batch: BatchOperation[K, V]) -> Outcomes[K, V]:
        """Run *batch*; return its results and errors by key."""
        return batch.outcomes(self.run_batch(batch.batch), self._errors)

    def run_batch(self, batch: Batch) -> Replies:
        """Run *batch* within one timeout of its own; return a reply or an error for each request."""
        if not len(batch):
            return Replies()
        deadline = math.inf if self._timeout is None else time.monotonic() + self._timeout
        try:
            return self._transport.run_batch(batch, deadline=deadline)
        except MetacacheError as error:
            return replies_after(error, batch)

    # Any: a recipe yields nothing and receives nothing.
    def run_recipe(self, _: str, recipe: Coroutine[Any, Any, R], *, fallback: R) -> R:
        """Run a recipe that writes; return *fallback* if the policy suppresses its error.

        The first argument is the name of the method, which only an observed client uses.
        """
        try:
            return drive(recipe)
        except MetacacheError as error:
            if self._errors.suppresses(WRITE, error):
                return fallback
            raise

    def run_recipe_or_raise(self, _: str, recipe: Coroutine[Any, Any, R]) -> R:  # Any: as above
        """Run a recipe; count its error and raise it, whatever the policy is. The first argument is as above."""
        try:
            return drive(recipe)
        except MetacacheError as error:
            self._errors.count_raised(error)
            raise
