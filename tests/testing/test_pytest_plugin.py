"""The pytest plugin: it loads nothing before a fixture is used, and its fixtures give each test an empty server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

import pytest

Suite: TypeAlias = Callable[..., "subprocess.CompletedProcess[str]"]

HAS_MEMCACHED: Final = shutil.which("memcached") is not None
needs_memcached: Final = pytest.mark.skipif(not HAS_MEMCACHED, reason="memcached is not installed")


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Suite:
    """Return a function that writes a file of tests, runs pytest on it in a new process, and checks the counts."""
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)

    def run(source: str, *options: str, passed: int, failed: int = 0) -> subprocess.CompletedProcess[str]:
        (tmp_path / "test_suite.py").write_text(source)
        (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs", *options, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=50)
        report = done.stdout + done.stderr
        assert (f"{passed} passed" in report) == bool(passed), report
        assert (f"{failed} failed" in report) == bool(failed), report
        return done

    return run


def test_the_plugin_is_an_entry_point_of_pytest(suite: Suite) -> None:
    done = suite("def test_nothing(): pass", passed=1)
    assert "metacache: the fixture memcached" in done.stdout


def test_a_run_without_a_fixture_of_the_plugin_loads_nothing(suite: Suite) -> None:
    suite(
        """
import sys

AT_COLLECTION = sorted(name for name in sys.modules if "metacache" in name)

def test_modules():
    assert AT_COLLECTION == ["pytest_metacache"]
    assert sorted(name for name in sys.modules if "metacache" in name) == ["pytest_metacache"]
    for name in ("attrs", "xxhash", "msgspec"):
        assert name not in sys.modules
""",
        *("-p", "no:asyncio", "-p", "no:hypothesispytest", "-p", "no:anyio"),
        passed=1,
    )


ISOLATED: Final = """
import sys
import pytest
from metacache import connect, connect_async

@pytest.mark.parametrize("number", range(3))
def test_each_test_has_an_empty_server(memcached, number):
    with connect(memcached.url, int) as numbers:
        assert numbers.get("n") is None
        assert numbers.set("n", number)

@pytest.mark.parametrize("number", range(3))
def test_each_test_has_an_empty_embedded_server(metacache_url, number):
    assert metacache_url.startswith("memory://")
    with connect(metacache_url, int) as numbers, connect(metacache_url, int) as same:
        assert numbers.get("n") is None
        assert numbers.set("n", number)
        assert same.get("n") == number

async def test_asyncio(metacache_url, memcached):
    for url in (metacache_url, memcached.url):
        async with connect_async(url, int) as numbers:
            assert await numbers.get("n") is None
            await numbers.set("n", 1)
            assert await numbers.get("n") == 1
"""


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("server", ["auto", "embedded"])
def test_tests_are_isolated_also_beside_other_workers(suite: Suite, server: str, workers: int) -> None:
    suite(ISOLATED, f"--metacache-server={server}", "-n", str(workers), passed=7)


@needs_memcached
def test_a_memcached_is_used_if_it_is_installed(suite: Suite) -> None:
    source = """
def test_kind(memcached):
    assert memcached.kind == "memcached"
"""
    program = os.environ.get("METACACHE_MEMCACHED") or shutil.which("memcached")
    assert f"starts {program}" in suite(source, passed=1).stdout
    suite(source, "--metacache-server=memcached", passed=1)


def test_the_embedded_server_is_used_if_it_is_chosen(suite: Suite) -> None:
    source = """
def test_kind(memcached):
    assert memcached.kind == "embedded"
    assert memcached.url.startswith("memcached://127.0.0.1:")
"""
    assert "uses the embedded server" in suite(source, "--metacache-server=embedded", passed=1).stdout
    assert "uses the embedded server" in suite(source, "-o", "metacache_server=embedded", passed=1).stdout


def test_without_a_memcached_the_embedded_server_is_used_and_the_report_says_so(
    suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("METACACHE_MEMCACHED", raising=False)
    source = "def test_kind(memcached): assert memcached.kind == 'embedded'"
    done = suite(source, passed=1)
    assert "uses the embedded server (memcached is not installed)" in done.stdout
    failed = suite(source, "--metacache-server=memcached", passed=0)
    assert "the fixture memcached fails: memcached is not installed" in failed.stdout
    assert "MemcachedNotFound: no memcached on PATH" in failed.stdout


def test_a_wrong_setting_is_refused(suite: Suite) -> None:
    done = suite("def test_nothing(): pass", "-o", "metacache_server=redis", passed=0)
    assert "metacache_server is one of auto, memcached, embedded, not 'redis'" in done.stderr


@needs_memcached
@pytest.mark.parametrize("harm", ["kill", "freeze", "restart"])
def test_a_server_that_a_test_left_broken_is_repaired_for_the_next_one(suite: Suite, harm: str) -> None:
    suite(
        f"""
from metacache import connect

def test_first(memcached):
    with connect(memcached.url, int) as numbers:
        numbers.set("n", 1)
    memcached.{harm}()

def test_second(memcached):
    with connect(memcached.url, int) as numbers:
        assert numbers.get("n") is None
        assert numbers.set("n", 1)
""",
        passed=2,
    )


def test_the_clock_and_the_faults_act_on_the_server_of_the_url(suite: Suite) -> None:
    suite(
        """
import pytest
from datetime import timedelta
from metacache import ServerError, connect, connect_async

def test_time(metacache_url, metacache_clock):
    metacache_clock.stop()
    with connect(metacache_url, int) as numbers:
        numbers.set("n", 1, ttl=60)
        metacache_clock.advance(59)
        assert numbers.get("n") == 1
        metacache_clock.advance(timedelta(seconds=1))
        assert numbers.get("n") is None

async def test_faults(metacache_url, metacache_faults):
    async with connect_async(metacache_url, int) as numbers:
        metacache_faults.on("mg", n=2).error("SERVER_ERROR out of memory")
        assert await numbers.get("n") is None
        with pytest.raises(ServerError):
            await numbers.get("n")

def test_faults_end_with_their_test(metacache_faults):
    assert not metacache_faults.are_armed
    metacache_faults.on("mg", times=None).reset()

def test_faults_over_a_socket(metacache_url, metacache_socket_url, metacache_faults, metacache_clock):
    assert not metacache_faults.are_armed
    with connect(metacache_url, int) as near, connect(metacache_socket_url, int) as far:
        near.set("n", 1, ttl=60)
        assert far.get("n") == 1
        metacache_faults.on("mg").error("SERVER_ERROR out of memory")
        with pytest.raises(ServerError):
            far.get("n")
        metacache_clock.advance(61)
        assert far.get("n") is None
""",
        passed=4,
    )


def test_tests_in_the_style_of_unittest_use_the_fixtures(suite: Suite) -> None:
    suite(
        """
import unittest
import pytest
from metacache import connect

class TestService(unittest.TestCase):
    @pytest.fixture(autouse=True)
    def _cache(self, metacache_url, metacache_clock):
        self.clock = metacache_clock
        with connect(metacache_url, str, default_ttl=60) as self.cache:
            yield

    def test_one(self):
        self.assertIsNone(self.cache.get("k"))
        self.cache.set("k", "v")
        self.clock.advance(61)
        self.assertIsNone(self.cache.get("k"))

    def test_two(self):
        self.assertIsNone(self.cache.get("k"))
        self.cache.set("k", "v")
        self.assertEqual(self.cache.get("k"), "v")
""",
        passed=2,
    )


def test_the_fixtures_work_beside_pytester(suite: Suite) -> None:
    suite(
        """
pytest_plugins = ["pytester"]

def test_inner(pytester, metacache_url):
    pytester.makepyfile('''
def test_fixtures(metacache_url, memcached):
    from metacache import connect
    for url in (metacache_url, memcached.url):
        with connect(url, int) as numbers:
            assert numbers.set("n", 1)
''')
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)
""",
        passed=1,
    )


def test_contracts_run_in_a_file_of_tests_and_fail_for_a_broken_serializer(suite: Suite) -> None:
    done = suite(
        """
from metacache.testing import SerializerContract

class TestStr(SerializerContract):
    plugin = "str"
    values = {str: ["", "text"]}
    refused_values = {str: [b"text", 1]}

class TestWrong(SerializerContract):
    plugin = "str"
    values = {str: [7]}
""",
        passed=21,
        failed=5,
    )
    assert "Contract::" not in done.stdout, "the contract itself is not collected"
