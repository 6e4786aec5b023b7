"""`drive`: run a coroutine whose effects never suspend it, and return its result.

Recipes of several exchanges and the decisions of a cluster are written once, as coroutines. The asyncio side awaits
them. The blocking side gives them effects that block, and runs them here. Does no I/O of its own.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar, cast

from metacache.interrupts import is_from_handler

__all__ = ["drive"]

R = TypeVar("R")


def drive(coroutine: Coroutine[Any, Any, R]) -> R:  # Any: nothing is yielded and nothing is sent
    """Run *coroutine* to its end and return its result. What it raises comes out unchanged."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        if is_from_handler(done):
            raise
        return cast("R", done.value)  # typeshed cannot know the type of a StopIteration's value
    except RuntimeError as error:
        # PEP 479: a coroutine turns a StopIteration, here of a signal handler, into this error.
        interruption = error.__cause__
        if not isinstance(interruption, StopIteration):
            raise
    else:
        raise RuntimeError("the coroutine waited for something other than its effects")
    finally:
        coroutine.close()  # a signal may interrupt before it began, and an unstarted coroutine warns
    raise interruption
