"""`Watch`: a daemon thread that follows a source of nodes. Knows threads, forks and the end of the interpreter.

What it does between its waits is `Follower`'s.
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

from typing_extensions import override

from metacache.copying import refuse_copy
from metacache.discovery.follower import Answer, Apply, Follower, ask
from metacache.discovery.sources import NodeSource
from metacache.interrupts import ignoring
from metacache.nodes import Node
from metacache.settings import Settings
from metacache.transports import forking

__all__ = ["Watch", "ask_in_thread"]

DEFAULTS: Final = Settings()


@final
class Watch:
    """Polls a source in the background and applies what it says, one change at a time.

    It lives until it is closed, until what *apply* belongs to is gone, or until *apply* raises ClosedError. It survives
    whatever else the source or *apply* raises: the nodes of the last good answer stay. In a forked child it goes on
    from there in a thread of the child's own.

    Args:
        source: is asked every ``Settings.poll_interval``, by the watch's thread.
        apply: called there with the nodes to use from now on, never none, in the order of names. A bound method does
            not keep its object alive.
        settings: ``poll_interval`` and ``change_interval``.
        first: the nodes that are in use already.

    Raises InvalidArgumentError when *first* is empty, names a node twice or has no weight above 0.
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
        # The thread holds the watch: what happens at a fork and at the exit has to find it.
        threading.Thread(target=self._run, args=(self._effects,), name="metacache-watch", daemon=True).start()

    def _run(self, effects: _Effects) -> None:
        # Any: what a coroutine yields and is sent, which is nothing with effects that never suspend it.
        following: Coroutine[Any, Any, None] = self._follower.run(effects)
        try:
            following.send(None)
        except StopIteration:
            pass  # the end of every coroutine
        finally:
            effects.end()

    @override
    def __repr__(self) -> str:
        if self._effects.is_over:
            return "<Watch: closed>"
        return f"<Watch of {self._source!r}: {self._follower.plan}>"

    def close(self) -> None:
        """End. Nothing is waited for: a poll under way is dropped, a change comes to its end. Twice is nothing."""
        self._effects.end()

    def resume(self) -> None:
        """In a forked child: go on with a thread of its own, for the parent's is not there."""
        left = self._effects
        if left.is_over:
            return
        left.end()  # it was the watch's own thread that forked: here it must not follow any more
        self._effects = _Effects(self._source)
        self._start()


@final
class _Effects:
    """What one thread of a watch waits for.

    A bare lock instead of an Event: `end` is called by the garbage collector too, in any thread at any moment, and
    would wait for ever where that thread is inside the Event.
    """

    def __init__(self, source: NodeSource) -> None:
        self._source = source
        self.is_over = False
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def end(self) -> None:
        self.is_over = True
        with ignoring(RuntimeError):  # woken before
            self._asleep.release()

    def now(self) -> float:
        return monotonic()

    async def sleep(self, seconds: float, /) -> bool:
        if not self.is_over:
            self._asleep.acquire(timeout=seconds)
        return not self.is_over

    async def poll(self) -> Answer:
        return ask(self._source)


def ask_in_thread(source: NodeSource, tell: Callable[[Answer], object]) -> None:
    """Poll *source* in a daemon thread, which calls *tell* with what that came to.

    For the asyncio watch: nothing waits at its end for a resolver that hangs, as it would for a thread of an executor.
    """
    work = partial(_tell, source, tell)
    threading.Thread(target=work, name="metacache-poll", daemon=True).start()


def _tell(source: NodeSource, tell: Callable[[Answer], object]) -> None:
    tell(ask(source))


# --- forks, and the end of the interpreter -------------------------------------------------------------------------

_watches: Final[WeakSet[Watch]] = WeakSet()


def _resume_all() -> None:
    for watch in tuple(_watches):
        watch.resume()


def _close_all() -> None:
    for watch in tuple(_watches):
        watch.close()


# Hooks run in the order in which they were registered. Imported, and so registered, before are those that must have run
# when a thread changes the nodes of a cluster in the child: `threading` knows then which threads there are, and what
# `forget_in_children` was told of has new locks.
_EARLIER: Final = (threading, forking)
os.register_at_fork(after_in_child=_resume_all)
atexit.register(_close_all)
