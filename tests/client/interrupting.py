"""Interrupts a client method at its n-th interruption point, like a signal, but not inside the transport.

Interruption points are between any two calls in the package. The transport is real and has its own tests of this
kind; here an interruption waits until the transport reads the reply.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final, TypeVar, final

import metacache
from metacache import Batch, Operation, Transport
from metacache.protocol.replies import Reply
from metacache.protocol.windows import Replies

__all__ = ["AsyncQuiet", "Interrupter", "Quiet", "driven"]

R = TypeVar("R")

PACKAGE: Final = os.path.dirname(metacache.__file__)
EVENTS: Final = frozenset(("call", "return", "c_call", "c_return"))


@final
class Interrupter:
    """Raises *error* at the *at*-th interruption point, from a signal handler, or without a frame of its own.

    *also*: prefixes of the test's classes that have interruption points too, such as ``"Numbers."``.
    """

    def __init__(self, at: int, error: Exception, *, also: tuple[str, ...] = (), from_handler: bool = True) -> None:
        self.left = at
        self._error = error
        self._from_handler = from_handler
        self._also = also
        self._is_quiet = 0

    @contextmanager
    def quiet(self) -> Generator[None]:
        """Suspend interruptions inside the block."""
        self._is_quiet += 1
        try:
            yield
        finally:
            self._is_quiet -= 1

    def _handle(self, _: int, __: FrameType | None) -> None:
        raise self._error

    def _visit(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        is_place = code.co_filename.startswith(PACKAGE) or code.co_qualname.startswith(self._also)
        if self._is_quiet or event not in EVENTS or not is_place:
            return
        self.left -= 1
        if self.left:
            return
        sys.setprofile(None)
        if self._from_handler:
            signal.raise_signal(signal.SIGALRM)
        raise self._error

    def run(self, call: Callable[[], R]) -> R:
        """Call *call* and interrupt it.

        Without the garbage collector: it may close a generator of the package here, and Python drops what is raised
        then.
        """
        before = signal.signal(signal.SIGALRM, self._handle)
        gc.disable()
        sys.setprofile(self._visit)
        try:
            return call()
        finally:
            sys.setprofile(None)
            gc.enable()
            signal.signal(signal.SIGALRM, before)


def driven(coroutine: Coroutine[Any, Any, R]) -> R:  # Any: it yields nothing and receives nothing
    """Run a coroutine that never waits without an event loop, so that exceptions propagate directly."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: R = done.value
        return result
    raise AssertionError("it waited")


def reply_of(reply: Reply) -> Reply:
    return reply


@final
class Quiet:
    """Forwards to a real transport without interruptions; only reading the reply may be interrupted."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.interrupter = Interrupter(0, ValueError())

    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:
        with self.interrupter.quiet():
            bare: Operation[Reply] = Operation()
            bare.verb, bare.given, bare.key, bare.head, bare.body = op.verb, op.given, op.key, op.head, op.body
            bare.read = reply_of
            reply = self._inner.run(bare, deadline=deadline)
        read = op.read
        return read(reply)

    def run_batch(self, batch: Batch, /, *, deadline: float) -> Replies:
        with self.interrupter.quiet():
            return self._inner.run_batch(batch, deadline=deadline)

    def close(self) -> None:
        self._inner.close()


@final
class AsyncQuiet:
    """The asyncio form of `Quiet`, for an event loop or for `driven`."""

    def __init__(self, quiet: Quiet) -> None:
        self._quiet = quiet

    async def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:
        return self._quiet.run(op, deadline=deadline)

    async def run_batch(self, batch: Batch, /, *, deadline: float) -> Replies:
        return self._quiet.run_batch(batch, deadline=deadline)

    async def aclose(self) -> None:
        await asyncio.sleep(0)
        self._quiet.close()
