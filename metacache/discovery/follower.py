"""How a source is followed, written once: a coroutine that awaits nothing but the effects it is given.

The blocking watch runs it with effects that never wait for a loop, the asyncio watch with ones that do. Knows plans and
what to log; knows no thread, no loop and no clock.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from types import MethodType
from typing import Final, Protocol, TypeAlias, final
from weakref import WeakMethod

from metacache.discovery.schedule import Plan, unusable
from metacache.discovery.sources import NodeSource
from metacache.errors import ClosedError, ConnectError, MetacacheError
from metacache.interrupts import is_from_handler
from metacache.nodes import Node
from metacache.settings import Settings

__all__ = ["Answer", "Apply", "Effects", "Follower", "ask", "known_nodes"]

logger: Final = logging.getLogger("metacache.discovery")

Apply: TypeAlias = Callable[[Sequence[Node]], object]
"""Takes the nodes that are to be used from now on."""

Answer: TypeAlias = Sequence[Node] | Exception
"""What a poll of a source came to."""


def ask(source: NodeSource) -> Answer:
    """Poll *source*; return its nodes, or whatever it raises."""
    try:
        return tuple(source.poll())
    except Exception as error:  # the code is not ours: none of its errors may end the watch
        if is_from_handler(error):
            raise
        return error


def known_nodes(source: NodeSource, answer: Answer) -> Sequence[Node]:
    """Return the nodes that a poll of *source* came to. Raises ConnectError when they are none that can be used."""
    if isinstance(answer, MetacacheError):
        raise answer
    if isinstance(answer, Exception):
        raise ConnectError(f"the nodes were not found: {_told(answer)}") from answer
    problem = unusable(answer)
    if problem is not None:
        raise ConnectError(f"{source!r} tells no nodes that can be used: {problem}")
    return answer


class Effects(Protocol):
    """What following a source may wait for."""

    def now(self) -> float:
        """Return the time (``time.monotonic()``)."""
        ...

    async def sleep(self, seconds: float, /) -> bool:
        """Wait; return False as soon as the watch is closed, else True."""
        ...

    async def poll(self) -> Answer:
        """Ask the source."""
        ...


@final
class Follower:
    """Brings what a source says to *apply*, one change at a time.

    What *apply*, a bound method, belongs to is not kept alive; when it is gone, *gone* is called, and there is nobody
    to follow for. Any other callable is held.

    ``plan`` changes over time; only the one `run` that is under way sets it, and a later `run` goes on from it.
    """

    def __init__(
        self, apply: Apply, gone: Callable[[], object], *, settings: Settings, first: Sequence[Node], now: float
    ) -> None:
        self._apply = _weakly(apply, gone)
        self.plan = Plan.of(settings, first, now, random.random())

    async def run(self, effects: Effects) -> None:
        """Follow until the watch is closed, or nobody is there any more to follow for."""
        while await effects.sleep(self.plan.pause(effects.now())):
            now = effects.now()
            nodes = self.plan.change(now)
            if nodes is None:
                if self.plan.wants_poll(now):
                    self._hear(await effects.poll(), effects.now())
            elif not self._change(nodes, now):
                return

    # --- answers -----------------------------------------------------------------------------------------------------

    def _hear(self, answer: Answer, now: float) -> None:
        if isinstance(answer, Exception):
            self._fail(_told(answer), now)
            return
        problem = unusable(answer)
        if problem is not None:
            self._fail(problem, now)
            return
        was, self.plan = self.plan, self.plan.answered(answer, now, random.random())
        if was.is_failing:
            logger.info("the source of nodes is usable again: %d nodes", len(answer))

    def _fail(self, problem: str, now: float) -> None:
        was, self.plan = self.plan, self.plan.failed(now, random.random())
        if not was.is_failing:  # a source that stays away is told once
            logger.warning(
                "the source of nodes gave no usable answer (%s); the %d nodes of the last good one stay",
                problem,
                len(was.target),
            )

    # --- changes -----------------------------------------------------------------------------------------------------

    def _change(self, nodes: tuple[Node, ...], now: float) -> bool:
        """Apply *nodes*; return False when nobody wants them any more."""
        apply = self._apply()
        if apply is None:
            return False
        try:
            apply(nodes)
        except ClosedError:
            return False
        except Exception as error:  # a cluster that refuses a node set keeps the one it has
            if not self.plan.is_refused:
                logger.warning("a change of the nodes was refused (%s); the nodes stay as they are", _told(error))
            self.plan = self.plan.refused(now)
            return True
        logger.info("the nodes are now %s", ", ".join(node.name for node in nodes))
        self.plan = self.plan.applied(nodes, now)
        return True


def _told(error: Exception) -> str:
    # A stranger's message may hold a credential, ours never does.
    return f"{type(error).__name__}: {error}" if isinstance(error, MetacacheError) else type(error).__name__


def _weakly(apply: Apply, gone: Callable[[], object]) -> Callable[[], Apply | None]:
    if isinstance(apply, MethodType):
        return WeakMethod(apply, lambda _: gone())
    return lambda: apply
