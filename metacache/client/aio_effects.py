"""Runs the verbs of an `AsyncClient`: operations, batches, recipes. The policy decides which errors are raised."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Coroutine
from typing import Any, Protocol, TypeVar, final

from metacache.client.core import replies_after
from metacache.errors import MetacacheError
from metacache.operations.batches import BatchOperation
from metacache.operations.policies import WRITE, ErrorPolicy, Kind
from metacache.operations.results import Outcomes
from metacache.protocol.keys import K
from metacache.protocol.windows import Replies
from metacache.transports.base import AsyncTransport, Batch, Operation

__all__ = ["AsyncEffects", "Run"]

R = TypeVar("R")
V = TypeVar("V")


class Run(Protocol):
    """`AsyncTransport.run`, as a client calls it."""

    def __call__(self, op: Operation[R], /, *, deadline: float | None) -> Awaitable[R]:
        """Run *op*."""
        ...


def _run_within(transport: AsyncTransport, timeout: float) -> Run:
    def run(op: Operation[R], /, *, deadline: float | None) -> Awaitable[R]:  # noqa: ARG001 - it is set here
        return transport.run(op, deadline=time.monotonic() + timeout)

    return run


@final
class AsyncEffects:
    """The effects of a client's recipes, and how its verbs run."""

    __slots__ = ("_errors", "_timeout", "_transport", "run_now")

    run_now: Run

    def __init__(self, transport: AsyncTransport, timeout: float | None, errors: ErrorPolicy) -> None:
        self._transport = transport
        self._timeout = timeout
        self._errors = errors
        # Chosen once, so that no operation asks. It does not refer to the client, which is freed when it is dropped.
        self.run_now = transport.run if timeout is None else _run_within(transport, timeout)

    async def run(self, op: Operation[R], /) -> R:
        """Run *op* within one timeout of its own, as a step of a recipe."""
        return await self.run_now(op, deadline=None)

    async def sleep(self, seconds: float, /) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    async def call(self, kind: Kind, op: Operation[R], *, fallback: R) -> R:
        """Run *op*; return *fallback* if it fails and the policy forgives that."""
        try:
            return await self.run_now(op, deadline=None)
        except MetacacheError as error:
            if self._errors.forgives(kind, error):
                return fallback
            raise

    async def results(self, batch: BatchOperation[K, V]) -> dict[K, V]:
        """Run *batch* and return its results by key. Raises BatchError if a part failed that is not forgiven."""
        return batch.results(await self._drive(batch.batch), self._errors)

    async def outcomes(self, batch: BatchOperation[K, V]) -> Outcomes[K, V]:
        """Run *batch* and return its results and errors by key."""
        return batch.outcomes(await self._drive(batch.batch), self._errors)

    async def _drive(self, batch: Batch) -> Replies:
        if not len(batch):
            return Replies()
        deadline = math.inf if self._timeout is None else time.monotonic() + self._timeout
        try:
            return await self._transport.run_batch(batch, deadline=deadline)
        except MetacacheError as error:
            return replies_after(error, batch)

    # Any: the loop chooses the values that a recipe yields and is sent.
    async def follow(self, recipe: Coroutine[Any, Any, R], *, fallback: R) -> R:
        """Run a recipe that writes; return *fallback* if it fails and the policy forgives that."""
        try:
            return await recipe
        except MetacacheError as error:
            if self._errors.forgives(WRITE, error):
                return fallback
            raise

    async def follow_strictly(self, recipe: Coroutine[Any, Any, R]) -> R:  # Any: as above
        """Run a recipe of which no error is forgiven."""
        try:
            return await recipe
        except MetacacheError as error:
            self._errors.count_raised(error)
            raise
