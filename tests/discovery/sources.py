"""Helpers for the discovery tests: sources with fixed answers, and a function that receives the changes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Final, final

from metacache import Node
from metacache.discovery.follower import Answer

__all__ = ["PATIENCE", "Heard", "Listed", "ended", "ignore", "nodes"]

PATIENCE: Final = 10.0  # seconds after which a test fails; much longer than anything it waits for


def nodes(text: str) -> tuple[Node, ...]:
    """Return the nodes that *text* lists, such as ``"a b=2 c@host=0.5"``: names, other addresses, weights."""
    return tuple(_node(word) for word in text.split())


def _node(word: str) -> Node:
    rest, _, weight = word.partition("=")
    name, _, host = rest.partition("@")
    return Node(host or name, weight=float(weight or 1), name=name)


@final
class Listed:
    """Returns its answers one after another, and then always the last one. Signals when it first returns that one."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.asked = 0
        self.is_spent = threading.Event()

    def poll(self) -> Sequence[Node]:
        self.asked += 1
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if len(self._answers) == 1 and self.asked > 1:
            self.is_spent.set()
        if isinstance(answer, Exception):
            raise answer
        return answer


@final
class Heard:
    """Receives nodes like a cluster, and signals when it has those that a test waits for."""

    def __init__(self, until: Callable[[Heard], bool] = lambda _: True) -> None:
        self.sets: list[tuple[str, ...]] = []
        self.threads: set[str] = set()
        self.is_enough = threading.Event()
        self._until = until

    def set_nodes(self, found: Sequence[Node]) -> None:
        self.sets.append(tuple(node.name for node in found))
        self.threads.add(threading.current_thread().name)
        if self._until(self):
            self.is_enough.set()


def ignore(_: Sequence[Node]) -> None:
    """Receive nodes and drop them. A function has no object that could be freed."""


def ended(threads: Iterable[threading.Thread]) -> bool:
    """Return whether all *threads* end in time."""
    for thread in threads:
        thread.join(PATIENCE)
    return not any(thread.is_alive() for thread in threads)
