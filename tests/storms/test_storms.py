"""Each storm of `make storm`, for seconds: no foreign value, no late call, no leak, and every effect at most once."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from storms import aio, blocking, cuts
from storms.measures import Limits, Result
from tests.loops import new_uvloop

# The parts of the machine that one storm uses, other tests need too.
pytestmark = [
    pytest.mark.alone,
    pytest.mark.usefixtures("shared_memcached"),  # skips if there is no memcached
    # A signal or a cancel may come before the first step of a coroutine, or when a socket has no owner yet.
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

SHORT: Final = Limits(10**9, 2.5)
SEED: Final = 7


def check(result: Result, *, at_least: int) -> None:
    assert result.faults == [], result.events
    assert result.tally.foreign == result.tally.late == 0
    assert result.tally.operations >= at_least


def test_threads_in_a_storm_get_their_own_values_in_time_and_leak_nothing() -> None:
    result = blocking.run(SHORT, SEED, print)
    check(result, at_least=1_000)
    assert "signals" in result.events


def test_tasks_in_a_storm_get_their_own_values_in_time_and_leak_nothing() -> None:
    result = aio.run("asyncio", asyncio.new_event_loop, SHORT, SEED, print)
    check(result, at_least=1_000)
    assert result.tally.outcomes["cancelled"]


def test_tasks_on_uvloop_too() -> None:
    check(aio.run("uvloop", new_uvloop, SHORT, SEED, print), at_least=1_000)


def test_writes_through_a_proxy_that_cuts_have_their_effect_at_most_once() -> None:
    result = cuts.run(SHORT, SEED, print)
    check(result, at_least=100)
    for verb in ("increment", "add", "compare_and_set", "append"):
        assert result.tally.outcomes[f"{verb} acknowledged"]
        assert result.tally.outcomes[f"{verb} maybe: applied"], "some connections are cut before the reply"
