"""Runs the verbs of a `Client`: operations, batches, recipes in one go. The policy decides which errors are raised."""

from __future__ import annotations

import math
import time
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar, cast, final

from metacache.client.core import replies_after
from metacache.errors import MetacacheError
from metacache.interrupts import is_from_handler
from metacache.operations.batches import BatchOperation
from metacache.operations.policies import WRITE, ErrorPolicy, Kind
from metacache.operations.results import Outcomes
from metacache.protocol.keys import K
from metacache.protocol.windows import Replies
from metacache.transports.base import Batch, Operation, Transport

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
    """The effects of a client's recipes, and how its verbs run."""

    __slots__ = ("_errors", "_timeout", "_transport", "run_now")

    run_now: Run

    def __init__(self, transport: Transport, timeout: float | None, errors: ErrorPolicy) -> None:
        self._transport = transport
        self._timeout = timeout
        self._errors = errors
        # Chosen once, so that no operation asks. It does not refer to the client, which is freed when it is dropped.
        self.run_now = transport.run if timeout is None else _run_within(transport, timeout)

    async def run(self, op: Operation[R], /) -> R:
        """Run *op* within one timeout of its own, as a step of a recipe."""
        return self.run_now(op, deadline=None)

    async def sleep(self, seconds: float, /) -> None:
        """Wait."""
        time.sleep(seconds)

    def call(self, kind: Kind, op: Operation[R], *, fallback: R) -> R:
        """Run *op*; return *fallback* if it fails and the policy forgives that."""
        try:
            return self.run_now(op, deadline=None)
        except MetacacheError as error:
            if self._errors.forgives(kind, error):
                return fallback
            raise

    def results(self, batch: BatchOperation[K, V]) -> dict[K, V]:
        """Run *batch* and return its results by key. Raises BatchError if a part failed that is not forgiven."""
        return batch.results(self._drive(batch.batch), self._errors)

    def outcomes(self, batch: BatchOperation[K, V]) -> Outcomes[K, V]:
        """Run *batch* and return its results and errors by key."""
        return batch.outcomes(self._drive(batch.batch), self._errors)

    def _drive(self, batch: Batch) -> Replies:
        if not len(batch):
            return Replies()
        deadline = math.inf if self._timeout is None else time.monotonic() + self._timeout
        try:
            return self._transport.run_batch(batch, deadline=deadline)
        except MetacacheError as error:
            return replies_after(error, batch)

    # Any: a recipe yields nothing and is sent nothing.
    def follow(self, recipe: Coroutine[Any, Any, R], *, fallback: R) -> R:
        """Run a recipe that writes; return *fallback* if it fails and the policy forgives that."""
        try:
            return _result(recipe)
        except MetacacheError as error:
            if self._errors.forgives(WRITE, error):
                return fallback
            raise

    def follow_strictly(self, recipe: Coroutine[Any, Any, R]) -> R:  # Any: as above
        """Run a recipe of which no error is forgiven."""
        try:
            return _result(recipe)
        except MetacacheError as error:
            self._errors.count_raised(error)
            raise


def _result(recipe: Coroutine[Any, Any, R]) -> R:  # Any: as above
    """Run a recipe whose effects never suspend it."""
    try:
        recipe.send(None)
    except StopIteration as done:
        if is_from_handler(done):
            raise
        return cast("R", done.value)  # typeshed cannot know the type of a StopIteration's value
    except RuntimeError as error:
        # PEP 479: a coroutine turns a StopIteration, here of a signal handler, into this error.
        interruption = error.__cause__
        if not isinstance(interruption, StopIteration):
            raise
    else:
        raise RuntimeError("a recipe waited for something other than its effects")
    finally:
        recipe.close()  # one that was interrupted before it began
    raise interruption
