"""The threaded worker, run as a program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from metacache.testing import Memcached

PROGRAM: Final = Path(__file__).parents[2] / "examples" / "threaded_worker.py"


def run(url: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", str(PROGRAM), *map(str, paths)],
        env={**os.environ, "CACHE_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Twenty files; file number n has n lines of two words."""
    paths = [tmp_path / f"{number}.txt" for number in range(20)]
    for number, path in enumerate(paths):
        path.write_text("two words\n" * number)
    return paths


def expected(paths: list[Path]) -> list[str]:
    return [f"{number:8} {2 * number:8} {path}" for number, path in enumerate(paths)]


def test_a_second_run_takes_every_count_from_the_cache(memcached: Memcached, files: list[Path]) -> None:
    first, second = run(memcached.url, *files), run(memcached.url, *files)
    assert first.stderr == second.stderr == ""
    assert first.stdout.splitlines() == [*expected(files), "0 from the cache, 20 counted now, 20 in total"]
    assert second.stdout.splitlines() == [*expected(files), "20 from the cache, 0 counted now, 20 in total"]


def test_a_file_that_changed_is_counted_again(memcached: Memcached, files: list[Path]) -> None:
    run(memcached.url, *files)
    files[0].write_text("three more words\n")
    lines = run(memcached.url, *files).stdout.splitlines()
    assert lines[0] == f"{1:8} {3:8} {files[0]}"
    assert lines[-1] == "19 from the cache, 1 counted now, 21 in total"


def test_the_worker_counts_without_its_cache(files: list[Path]) -> None:
    done = run("memcached://127.0.0.1:1", *files)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:-1] == expected(files)


def test_no_files_are_a_usage_error() -> None:
    done = run("memcached://127.0.0.1:1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: ")
