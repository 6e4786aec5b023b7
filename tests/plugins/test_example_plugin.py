"""The example plugin works by its entry point after pip installed it into a directory of its own."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from metacache.testing import Memcached

EXAMPLE: Final = Path(__file__).parent / "example_plugin"

USE: Final = """
import sys
from metacache import available_serializers, connect

assert [info.distribution for info in available_serializers() if info.name == "plist"] == ["metacache-plist"]
assert "metacache_plist" not in sys.modules
with connect(sys.argv[1], dict[str, int], serializer="plist", prefix="example:") as visits:
    visits.set("today", {"home": 3})
    print(visits.get("today"))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Install the example, and return the environment variables for a Python that finds it."""
    source = tmp_path_factory.mktemp("source") / "metacache-plist"
    target = tmp_path_factory.mktemp("target")
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("__pycache__"))
    # Without build isolation pip uses the installed hatchling and needs no network.
    offline = ["--no-build-isolation", "--no-index"] if importlib.util.find_spec("hatchling") else []
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
    run([*pip, *offline, "--target", str(target), str(source)])
    return {**os.environ, "PYTHONPATH": str(target)}


def run(command: list[str], env: dict[str, str] | None = None) -> str:
    """Run *command* and return its output. Fail with the output if the command fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_installed_example_serves_a_client(environment: dict[str, str], shared_memcached: Memcached) -> None:
    assert run([sys.executable, "-c", USE, shared_memcached.url], environment) == "{'home': 3}\n"


def test_the_examples_own_test_passes_against_the_installed_example(environment: dict[str, str]) -> None:
    test = EXAMPLE / "tests" / "test_plist.py"
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(test.parent), str(test)]
    assert "13 passed" in run([*command, "-p", "no:cacheprovider", "--import-mode=importlib"], environment)
