"""The cached queries: how many of them run, and the whole program."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from examples.cached_queries import Catalogue, Product, new_database
from metacache import Client, load_serializer
from metacache.testing import FakeTransport, Memcached

PROGRAM: Final = Path(__file__).parents[2] / "examples" / "cached_queries.py"
TEA: Final = Product("tea", "Tea", 350)


def test_a_query_runs_once_and_again_after_a_change() -> None:
    client = Client(FakeTransport(), load_serializer("msgspec", Product | None), default_ttl=60)
    with closing(new_database()) as database:
        catalogue = Catalogue(database, client)
        assert [catalogue.product("tea"), catalogue.product("tea")] == [TEA, TEA]
        assert [catalogue.product("none"), catalogue.product("none")] == [None, None]
        assert catalogue.queries == 2
        assert catalogue.products(["tea", "pot", "none"]) == {
            "tea": TEA,
            "pot": Product("pot", "Pot", 1990),
            "none": None,
        }
        assert catalogue.queries == 3
        catalogue.change_price("tea", 375)
        assert catalogue.product("tea") == Product("tea", "Tea", 375)
        assert catalogue.queries == 4


def test_an_old_value_covers_a_failure_of_the_database(caplog: pytest.LogCaptureFixture) -> None:
    client = Client(FakeTransport(), load_serializer("msgspec", Product | None), default_ttl=60)
    database = new_database()
    catalogue = Catalogue(database, client)
    assert catalogue.product("tea") == TEA
    client.invalidate("tea", stale_for=60)
    database.close()
    assert catalogue.product("tea") == TEA
    assert "ProgrammingError" in caplog.text


def test_the_program_runs_as_its_first_lines_say(shared_memcached: Memcached) -> None:
    environment = {**os.environ, "CACHE_URL": shared_memcached.url}
    command = [sys.executable, "-W", "error", str(PROGRAM)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-2:] == ["tea: Product(sku='tea', name='Tea', cents=375)", "queries: 4"]
