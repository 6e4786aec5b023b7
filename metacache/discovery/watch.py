"""`Watch`: a daemon thread that follows a source of nodes.

`Follower` decides what to do; this module runs it in a thread, restarts it in a forked child, and ends it when the
interpreter exits.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from time import monotonic
from typing import Any, Final, final
from weakref import WeakSet

from metacache.copying import refuse_copy
from metacache.discovery.follower import Answer, Apply, Follower, poll_source
from metacache.discovery.sources import NodeSource
from metacache.interrupts import ignoring
from metacache.marks import override
from metacache.nodes import Node
from metacache.settings import Settings
from metacache.transports import forking

__all__ = ["Watch", "poll_source_in_thread"]

DEFAULTS: Final = Settings()


@final
class Watch:
    """Polls a source in the background and applies its changes one by one.

    The watch ends when it is closed, when the object of the bound method *apply* is freed, or when *apply* raises
    ClosedError. Another error of the source or of *apply* does not end it: the nodes do not change. A forked child
    continues with its own thread.

    Args:
        source: is polled every ``Settings.poll_interval``, in the thread of the watch.
        apply: is called in that thread with the new nodes, at least one, sorted by name. A bound method does not keep
            its object alive.
        settings: ``poll_interval`` and ``change_interval``.
        first: the nodes that are already in use.

    Raises InvalidArgumentError if *first* is empty, names a node twice or has no weight above 0.
    """

    __reduce_ex__ = refuse_copy

    def __init__(
        self, source: NodeSource, apply: Apply, *, settings: Settings = DEFAULTS, first: Sequence[Node]
    ) -> None:
        self._source = source
        self._follower = Follower(apply, self.close, settings=settings, first=first, now=monotonic())
        self._effects = _Effects(source)
        _watches.add(self)
        self._start()

    def _start(self) -> None:
        # The thread keeps the watch alive, so that the hooks for forks and for the exit find it in `_watches`.
        threading.Thread(target=self._run, args=(self._effects,), name="metacache-watch", daemon=True).start()

    def _run(self, effects: _Effects) -> None:
        # Any: the coroutine yields nothing and receives nothing, because its effects never suspend it.
        following: Coroutine[Any, Any, None] = self._follower.run(effects)
        try:
            following.send(None)
        except StopIteration:
            pass  # the normal end of a coroutine
        finally:
            effects.end()

    @override
    def __repr__(self) -> str:
        if self._effects.is_over:
            return "<Watch: closed>"
        return f"<Watch of {self._source!r}: {self._follower.plan}>"

    def close(self) -> None:
        """End the watch without waiting: drop the answer of a poll in progress, but complete a change. Idempotent."""
        self._effects.end()

    def resume(self) -> None:
        """Continue in a forked child with a new thread, because a fork does not copy the thread of the parent."""
        inherited = self._effects
        if inherited.is_over:
            return
        inherited.end()  # if the thread of the watch forked, it runs in the child too, and must end
        self._effects = _Effects(self._source)
        self._start()


@final
class _Effects:
    """The effects that the follower of one thread awaits. They block the thread.

    A bare lock and not an Event: the garbage collector may call `end` in any thread at any moment. If that thread
    were just holding the lock inside the Event, it would wait for itself forever.
    """

    def __init__(self, source: NodeSource) -> None:
        self._source = source
        self.is_over = False
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def end(self) -> None:
        self.is_over = True
        with ignoring(RuntimeError):  # the lock is already released
            self._asleep.release()

    def now(self) -> float:
        return monotonic()

    async def sleep(self, seconds: float, /) -> bool:
        if not self.is_over:
            self._asleep.acquire(timeout=seconds)
        return not self.is_over

    async def poll(self) -> Answer:
        return poll_source(self._source)


def poll_source_in_thread(source: NodeSource, report: Callable[[Answer], object]) -> None:
    """Poll *source* in a new daemon thread, which calls *report* with the result.

    For the asyncio watch. With a thread of an executor, the end of the event loop would wait for a hanging resolver.
    """
    work = partial(_poll_and_report, source, report)
    threading.Thread(target=work, name="metacache-poll", daemon=True).start()


def _poll_and_report(source: NodeSource, report: Callable[[Answer], object]) -> None:
    report(poll_source(source))


# --- forks, and the end of the interpreter -------------------------------------------------------------------------

_watches: Final[WeakSet[Watch]] = WeakSet()


def _resume_all() -> None:
    for watch in tuple(_watches):
        watch.resume()


def _close_all() -> None:
    for watch in tuple(_watches):
        watch.close()


# Hooks for a forked child run in the order of their registration. The hooks of these two modules must run before a
# watch starts a thread: `threading` then knows which threads exist, and the objects that `forking` resets have new
# locks.
_EARLIER: Final = (threading, forking)
os.register_at_fork(after_in_child=_resume_all)
atexit.register(_close_all)
