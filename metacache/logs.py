"""`logger_of`: the loggers of the modules that a first `get` loads. Most programs log nothing here."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logging import Logger

__all__ = ["logger_of"]


def logger_of(name: str) -> Logger:
    """Return the logger called *name*."""
    import logging  # late: with what it loads, it is a tenth of the start of a small program

    return logging.getLogger(name)
