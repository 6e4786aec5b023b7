"""`Follower`: polls a source and applies its changes, written once for both watches as a coroutine over effects.

The effects of the blocking watch block its thread; those of the asyncio watch await the event loop. The follower logs
changes and failures, and calls the random number generator. Its effects wait, poll and read the clock.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from types import MethodType
from typing import Final, Protocol, TypeAlias, final
from weakref import WeakMethod

from metacache.discovery.schedule import Plan, node_set_problem
from metacache.discovery.sources import NodeSource
from metacache.errors import ClosedError, ConnectError, MetacacheError
from metacache.interrupts import is_from_handler
from metacache.nodes import Node
from metacache.settings import Settings

__all__ = ["Answer", "Apply", "Effects", "Follower", "poll_source", "usable_nodes"]

logger: Final = logging.getLogger("metacache.discovery")

Apply: TypeAlias = Callable[[Sequence[Node]], object]
"""Receives the nodes to use from now on."""

Answer: TypeAlias = Sequence[Node] | Exception
"""The result of a poll: the nodes, or the exception that the source raised."""


def poll_source(source: NodeSource) -> Answer:
    """Poll *source*; return its nodes, or the Exception that it raises."""
    try:
        return tuple(source.poll())
    except Exception as error:  # a source is user code: none of its errors may end the watch
        if is_from_handler(error):
            raise
        return error


def usable_nodes(source: NodeSource, answer: Answer) -> Sequence[Node]:
    """Return the nodes of *answer*, the result of a poll of *source*. Raises ConnectError if they are not usable."""
    if isinstance(answer, MetacacheError):
        raise answer
    if isinstance(answer, Exception):
        raise ConnectError(f"the nodes were not found: {_describe(answer)}") from answer
    problem = node_set_problem(answer)
    if problem is not None:
        raise ConnectError(f"{source!r} returned no usable nodes: {problem}")
    return answer


class Effects(Protocol):
    """The effects that a follower may await, and its clock."""

    def now(self) -> float:
        """Return the current time (``time.monotonic()``)."""
        ...

    async def sleep(self, seconds: float, /) -> bool:
        """Wait for that number of seconds and return True; return False as soon as the watch is closed."""
        ...

    async def poll(self) -> Answer:
        """Poll the source."""
        ...


@final
class Follower:
    """Calls *apply* with the changes of a source, one node at a time.

    If *apply* is a bound method, the follower keeps only a weak reference to its object. When the object is freed, the
    follower calls *on_freed* and ends. Any other callable is kept alive.

    ``plan`` changes over time. Only one `run` is in progress and sets it; a later `run` continues with it.
    """

    def __init__(
        self, apply: Apply, on_freed: Callable[[], object], *, settings: Settings, first: Sequence[Node], now: float
    ) -> None:
        self._apply = _weak_reference(apply, on_freed)
        self.plan = Plan.of(settings, first, now, random.random())

    async def run(self, effects: Effects) -> None:
        """Follow the source until the watch is closed, *apply* raises ClosedError, or the object of *apply* is gone."""
        while await effects.sleep(self.plan.pause(effects.now())):
            now = effects.now()
            nodes = self.plan.change(now)
            if nodes is None:
                if self.plan.is_poll_due(now):
                    self._handle_answer(await effects.poll(), effects.now())
            elif not self._apply_change(nodes, now):
                return

    # --- answers -----------------------------------------------------------------------------------------------------

    def _handle_answer(self, answer: Answer, now: float) -> None:
        if isinstance(answer, Exception):
            self._record_failure(_describe(answer), now)
            return
        problem = node_set_problem(answer)
        if problem is not None:
            self._record_failure(problem, now)
            return
        was, self.plan = self.plan, self.plan.answered(answer, now, random.random())
        if was.is_failing:
            logger.info("the source of nodes is usable again: %d nodes", len(answer))

    def _record_failure(self, problem: str, now: float) -> None:
        was, self.plan = self.plan, self.plan.failed(now, random.random())
        if not was.is_failing:  # only the first of several failures is logged
            logger.warning(
                "the source of nodes gave no usable answer (%s); keeping the %d nodes of the last good answer",
                problem,
                len(was.target),
            )

    # --- changes -----------------------------------------------------------------------------------------------------

    def _apply_change(self, nodes: tuple[Node, ...], now: float) -> bool:
        """Apply *nodes*; return False if the object of *apply* is freed or closed."""
        apply = self._apply()
        if apply is None:
            return False
        try:
            apply(nodes)
        except ClosedError:
            return False
        except Exception as error:  # a cluster that refuses new nodes keeps its old ones
            if not self.plan.is_refused:
                logger.warning("a change of the nodes was refused (%s); the nodes do not change", _describe(error))
            self.plan = self.plan.refused(now)
            return True
        logger.info("the nodes are now %s", ", ".join(node.name for node in nodes))
        self.plan = self.plan.applied(nodes, now)
        return True


def _describe(error: Exception) -> str:
    # The message of another library may contain a credential. A message of this package contains none.
    return f"{type(error).__name__}: {error}" if isinstance(error, MetacacheError) else type(error).__name__


def _weak_reference(apply: Apply, on_freed: Callable[[], object]) -> Callable[[], Apply | None]:
    if isinstance(apply, MethodType):
        return WeakMethod(apply, lambda _: on_freed())
    return lambda: apply
