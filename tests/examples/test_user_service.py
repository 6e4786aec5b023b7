"""The small service: its tests on ``memory://``, with a clock and with faults, and the whole program."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest

from examples.user_service import User, UserService
from metacache import Client, Node, Pool, ServerError, connect, load_serializer
from metacache.nodes import MemoryAddress
from metacache.testing import Memcached, MemoryServer

PROGRAM: Final = Path(__file__).parents[2] / "examples" / "user_service.py"


class Database:
    """A database in memory that counts its reads."""

    def __init__(self) -> None:
        self.users = {"ada": User("ada", 0)}
        self.reads = 0

    def load(self, name: str) -> User:
        self.reads += 1
        return self.users[name]

    def save(self, user: User) -> None:
        self.users[user.name] = user


def test_a_user_is_loaded_once() -> None:
    database = Database()
    with connect("memory://", User, serializer="msgspec") as cache:
        service = UserService(cache, database.load, database.save)
        assert [service.user("ada") for _ in range(3)] == [User("ada", 0)] * 3
    assert database.reads == 1


def test_a_visit_replaces_the_cached_user() -> None:
    database = Database()
    with connect("memory://", User, serializer="msgspec") as cache:
        service = UserService(cache, database.load, database.save)
        service.user("ada")
        service.visit("ada")
        assert service.user("ada") == User("ada", 1)


def test_a_user_is_loaded_again_after_a_minute() -> None:
    database, now = Database(), [time.time()]
    server = MemoryServer(lambda: now[0])
    with Client(Pool(Node(MemoryAddress(server))), load_serializer("msgspec", User)) as cache:
        service = UserService(cache, database.load, database.save)
        service.user("ada")
        now[0] += 61
        service.user("ada")
    assert database.reads == 2


def test_a_failed_delete_is_raised_after_the_user_is_saved() -> None:
    database, server = Database(), MemoryServer()
    with Client(Pool(Node(MemoryAddress(server))), load_serializer("msgspec", User)) as cache:
        server.faults.on("md").error("SERVER_ERROR out of memory")
        with pytest.raises(ServerError):
            UserService(cache, database.load, database.save).visit("ada")
    assert database.users["ada"] == User("ada", 1)


@pytest.mark.parametrize("is_embedded", [True, False])
def test_the_program_prints_the_user(memcached: Memcached, *, is_embedded: bool) -> None:
    url = "memory://" if is_embedded else memcached.url
    command = [sys.executable, str(PROGRAM), "ada"]
    done = subprocess.run(command, env={**os.environ, "CACHE_URL": url}, capture_output=True, text=True, check=True)
    assert done.stdout == "User(name='ada', visits=1)\n"
