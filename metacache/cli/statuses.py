"""The exit statuses of the command line. Pure."""

from __future__ import annotations

import enum
from typing import final

__all__ = ["Status"]


@final
class Status(enum.IntEnum):
    """How a command ended. The value is the exit status of the process."""

    DONE = 0
    """The command did what it was asked; the item exists."""
    NO = 1
    """There is no such item, or the user answered no."""
    USAGE = 2
    """An argument, the URL or the key is invalid. Nothing was sent."""
    FAILED = 3
    """A server could not be reached, or failed; of several nodes, at least one."""
    INTERRUPTED = 130
    """Ctrl-C ended the command."""
    PIPE_CLOSED = 141
    """The reader of the output closed it, as ``| head`` does."""
