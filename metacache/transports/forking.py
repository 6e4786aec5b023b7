"""What must be forgotten in a forked child: the parent's sockets, and locks held by threads that are not there.

Knows who asked to be told; knows no socket and no lock. The interpreter tells of a fork, so no operation asks for its
process id.
"""

from __future__ import annotations

import os
from typing import Final, Protocol
from weakref import WeakSet

__all__ = ["forget_in_children"]


class _Forgetful(Protocol):
    def reset_after_fork(self) -> None:
        """Forget what belongs to the parent, without a word on the wire."""
        ...


_known: Final[WeakSet[_Forgetful]] = WeakSet()


def forget_in_children(forgetful: _Forgetful) -> None:
    """Have *forgetful* leave behind what is the parent's in every child forked from now on."""
    _known.add(forgetful)


def _forked() -> None:
    for forgetful in tuple(_known):
        forgetful.reset_after_fork()


os.register_at_fork(after_in_child=_forked)
