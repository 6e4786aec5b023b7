"""A small service that is written to be tested: its cache is a parameter.

CACHE_URL=memcached://localhost:11211 python examples/user_service.py ada

Its tests, tests/examples/test_user_service.py, pass a client of ``memory://``. They need no server.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import msgspec

from metacache import Client, connect

CACHE_URL = os.environ.get("CACHE_URL", "memcached://localhost:11211")


class User(msgspec.Struct, frozen=True):
    """A user of the service."""

    name: str
    visits: int


class UserService:
    """Reads users through a cache, and writes to the database first.

    Args:
        cache: stores the users.
        load: reads a user from the database.
        save: writes a user to the database.
    """

    def __init__(self, cache: Client[User], load: Callable[[str], User], save: Callable[[User], None]) -> None:
        self._cache = cache
        self._load = load
        self._save = save

    def user(self, name: str) -> User:
        """Return the user, from the cache if it is there."""
        return self._cache.get_or_compute(name, lambda: self._load(name), ttl=60)

    def visit(self, name: str) -> User:
        """Count a visit, and return the user."""
        before = self._load(name)
        after = User(before.name, before.visits + 1)
        self._save(after)
        self._cache.delete(name)  # the next reader loads the new user
        return after


def main(name: str) -> None:
    """Count a visit of *name*, and print the user."""
    database: dict[str, User] = {}
    with connect(CACHE_URL, User, serializer="msgspec", prefix="user:", timeout=0.25) as cache:
        service = UserService(
            cache,
            load=lambda name: database.get(name, User(name, 0)),
            save=lambda user: database.update({user.name: user}),
        )
        service.visit(name)
        print(service.user(name))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "ada")
