"""Which keys the running task or thread computes, so that a factory that asks for its own key is refused."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextvars import ContextVar
from typing import Final, final

from metacache.errors import BusyError
from metacache.protocol.keys import K

__all__ = ["begin_computing", "computing", "end_computing", "refuse_own"]


@final
class Computation:
    """A factory that runs. Tasks that it starts inherit it, and may outlive it: then it refuses nothing any more."""

    __slots__ = ("is_running", "outer", "owner", "raws")

    def __init__(self, owner: object, raws: Collection[bytes], outer: Computation | None) -> None:
        self.owner: object = owner
        self.raws = frozenset(raws)
        self.outer = outer
        self.is_running = True


_computing: ContextVar[Computation | None] = ContextVar("metacache_computing", default=None)

computing: Final = _computing.get
"""Return the innermost computation of the running task or thread; None if there is none."""


def begin_computing(owner: object, raws: Collection[bytes]) -> Computation:
    """Note that the caller computes the keys *raws* of *owner*: what a client shares with its views."""
    began = Computation(owner, raws, _computing.get())
    _computing.set(began)
    return began


def end_computing(began: Computation) -> None:
    """End what `begin_computing` began."""
    began.is_running = False
    # The garbage collector may close a coroutine in the context of another task, which this must not change.
    if _computing.get() is began:
        _computing.set(began.outer)


def refuse_own(owner: object, operation: str, keys: Mapping[K, bytes]) -> None:
    """Raise BusyError if the caller computes one of *keys*, routing keys by the caller's keys, right now."""
    each = _computing.get()
    while each is not None:
        if each.is_running and each.owner is owner:
            for key in keys:
                if keys[key] in each.raws:
                    raise BusyError(
                        "the factory of this key asks for the key itself, whose value it is computing",
                        operation=operation,
                        key=key,
                    )
        each = each.outer
