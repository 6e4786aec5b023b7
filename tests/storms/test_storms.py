"""Each storm of `make storm`, for seconds: no foreign value, no late call, no leak, and every effect at most once."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Final

import pytest

from storms.fleet import has_tls
from tests.loops import new_uvloop

# The parts of the machine that one storm uses, other tests need too.
pytestmark = [
    pytest.mark.alone,
    pytest.mark.usefixtures("shared_memcached"),  # skips if there is no memcached
]

MINUTES: Final = 2.5 / 60
SEED: Final = 7

operations_of = re.compile(r"operations +10,000,000 +([\d,]+)").search


def storm(name: str) -> str:
    """Run the storm *name* in a process of its own, which measures how late the machine is; return its summary."""
    command = [sys.executable, "-m", "storms", name, "--minutes", str(MINUTES), "--seed", str(SEED)]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=50.0)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def check(summary: str, *, at_least: int) -> None:
    found = operations_of(summary)
    assert found is not None
    assert int(found[1].replace(",", "")) >= at_least


def test_threads_in_a_storm_get_their_own_values_in_time_and_leak_nothing() -> None:
    summary = storm("threads")
    check(summary, at_least=1_000)
    assert re.search(r"[1-9]\d* signals", summary)


def test_tasks_in_a_storm_get_their_own_values_in_time_and_leak_nothing() -> None:
    summary = storm("asyncio")
    check(summary, at_least=1_000)
    assert re.search(r"\d cancelled", summary)
    assert re.search(r"[1-9]\d* signals in calls", summary)


def test_tasks_on_uvloop_too() -> None:
    new_uvloop().close()  # skips if there is no uvloop
    check(storm("uvloop"), at_least=1_000)


@pytest.mark.parametrize("name", ["threads-tls", "asyncio-tls"])
def test_storms_over_tls_too(name: str) -> None:
    if not has_tls():
        pytest.skip("this memcached does not speak TLS")
    check(storm(name), at_least=100)


def test_writes_through_a_proxy_that_cuts_have_their_effect_at_most_once() -> None:
    summary = storm("cuts")
    check(summary, at_least=100)
    for verb in ("increment", "add", "compare_and_set", "append"):
        assert f"{verb} acknowledged" in summary
        assert f"{verb} maybe: applied" in summary, "some connections are cut before the reply"
