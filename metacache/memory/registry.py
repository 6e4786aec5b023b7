"""The embedded servers of this process, by the name in ``memory://name``."""

from __future__ import annotations

import re
from typing import Final

from metacache.errors import InvalidArgumentError
from metacache.memory.server import MemoryServer

__all__ = ["forget_server", "server_named"]

_servers: Final[dict[str, MemoryServer]] = {}
_is_name = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII).fullmatch


def server_named(name: str) -> MemoryServer:
    """Return the server behind ``memory://name``: one for the whole process, made when it is first asked for.

    Without a name, return a new one. Raises InvalidArgumentError if *name* has other characters than letters, digits,
    ``_``, ``.`` and ``-``, or more than 64.
    """
    if name and not _is_name(name):
        raise InvalidArgumentError("the name in memory://name has at most 64 letters, digits and _ . - characters")
    if not name:
        return MemoryServer()
    # One call of a C method: of two threads that ask for a new name at the same time, both get the same server.
    return _servers.get(name) or _servers.setdefault(name, MemoryServer(name=name))


def forget_server(name: str) -> None:
    """Remove the server behind ``memory://name``. Open clients keep it; the next client of that name gets a new one."""
    _servers.pop(name, None)
