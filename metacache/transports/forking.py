"""Reset registered objects in a forked child: they drop the parent's sockets, and locks of the parent's threads.

The interpreter calls this module after a fork, so no operation compares process ids. Each object resets itself: this
module closes no socket and replaces no lock.
"""

from __future__ import annotations

import os
from typing import Final, Protocol
from weakref import WeakSet

__all__ = ["forget_in_children"]


class _Resettable(Protocol):
    def reset_after_fork(self) -> None:
        """Drop everything that belongs to the parent process. Send nothing on its connections."""
        ...


_registered: Final[WeakSet[_Resettable]] = WeakSet()


def forget_in_children(resettable: _Resettable) -> None:
    """Call ``reset_after_fork`` of *resettable* in every child process that is forked from now on."""
    _registered.add(resettable)


def _reset_all() -> None:
    for resettable in tuple(_registered):
        resettable.reset_after_fork()


os.register_at_fork(after_in_child=_reset_all)
