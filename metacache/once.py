"""`Once`: a part that is made when it is first used, for what most programs never use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar, final

__all__ = ["Once"]

V = TypeVar("V")


@final
class Once(Generic[V]):
    """A part that *make* makes at its first use. Threads that use it first at the same time all get the same one."""

    __slots__ = ("_made", "_make")

    def __init__(self, make: Callable[[], V]) -> None:
        self._make = make
        self._made: dict[None, V] = {}

    def get(self) -> V:
        """Return the part; make it at the first call."""
        made = self._made.get(None)
        # One call of a C method: the first thread keeps its part, and the others get that one.
        return self._made.setdefault(None, self._make()) if made is None else made

    @property
    def made(self) -> V | None:
        """The part; None before its first use."""
        return self._made.get(None)
