"""The decisions of `Limits`: whether to open a connection, and which idle ones to close. Time is a number."""

from __future__ import annotations

import math
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metacache import Settings
from metacache.transports.counters import CloseReason, IdleTimes
from metacache.transports.limits import Limits

# --- whether to open one more ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("opened", "may_open"), [(0, True), (2, True), (3, False), (4, False)])
def test_a_caller_may_open_a_connection_while_there_are_fewer_than_size(opened: int, *, may_open: bool) -> None:
    assert Limits(size=3).may_open(opened) is may_open


AFTER_FAILURES: Final[tuple[tuple[int, int, float, bool], ...]] = (
    # opened, connected, seconds since a dial failed
    (1, 1, 0.0, False),
    (2, 1, 0.9, False),
    (2, 1, 1.0, True),
    (2, 0, 0.0, True),  # there is no connection to wait for
    (3, 0, 0.0, False),
    (3, 3, 9.0, False),
)


@pytest.mark.parametrize(("opened", "connected", "ago", "may_open"), AFTER_FAILURES)
def test_after_a_failed_dial_a_caller_waits_a_while_for_a_connected_one(
    opened: int, connected: int, ago: float, *, may_open: bool
) -> None:
    now = 10.0
    assert Limits(size=3).may_open(opened, connected=connected, now=now, failed_at=now - ago) is may_open


@pytest.mark.parametrize(
    ("wait", "until"),
    [(None, 12.0), (0.0, 10.0), (0.5, 10.5), (2.0, 12.0), (99.0, 12.0)],
)
def test_a_caller_waits_until_its_deadline_or_for_pool_wait_seconds(wait: float | None, until: float) -> None:
    assert Limits(wait=wait).wait_until(10.0, 12.0) == until


def test_the_limits_are_those_of_the_settings() -> None:
    settings = Settings(pool_size=3, pool_min_idle=2, pool_max_idle_time=4.0, max_lifetime=5.0, pool_wait=0.5)
    assert Limits.of(settings) == Limits(size=3, min_idle=2, max_idle_time=4.0, max_lifetime=5.0, wait=0.5)


# --- which idle connections to close ---------------------------------------------------------------------------------

NOW: Final = 100.0
DISCARDS: Final[dict[str, tuple[Limits, list[IdleTimes], dict[int, CloseReason]]]] = {
    "there is no limit": (Limits(), [IdleTimes(0.0, 0.0)], {}),
    "there is no idle connection": (Limits(max_idle_time=1.0, max_lifetime=1.0), [], {}),
    "unused for exactly the limit": (
        Limits(max_idle_time=10.0),
        [IdleTimes(0.0, 89.0), IdleTimes(0.0, 90.0), IdleTimes(0.0, 90.1)],
        {0: CloseReason.IDLE, 1: CloseReason.IDLE},
    ),
    "open for exactly the limit, although just used": (
        Limits(max_lifetime=10.0),
        [IdleTimes(89.0, 100.0), IdleTimes(90.0, 100.0), IdleTimes(90.1, 100.0)],
        {0: CloseReason.OLD, 1: CloseReason.OLD},
    ),
    "old and unused is old": (Limits(max_idle_time=1.0, max_lifetime=1.0), [IdleTimes(0.0, 0.0)], {0: CloseReason.OLD}),
    "the longest unused are closed first, and min_idle stay": (
        Limits(max_idle_time=10.0, min_idle=2),
        [IdleTimes(0.0, 1.0), IdleTimes(0.0, 2.0), IdleTimes(0.0, 3.0)],
        {0: CloseReason.IDLE},
    ),
    "old ones are closed whatever min_idle says": (
        Limits(max_lifetime=10.0, min_idle=2),
        [IdleTimes(0.0, 99.0), IdleTimes(95.0, 99.0)],
        {0: CloseReason.OLD},
    ),
    "old ones do not count for min_idle": (
        Limits(max_idle_time=10.0, max_lifetime=50.0, min_idle=1),
        [IdleTimes(0.0, 1.0), IdleTimes(60.0, 61.0), IdleTimes(60.0, 62.0)],
        {0: CloseReason.OLD, 1: CloseReason.IDLE},
    ),
    "fewer than min_idle all stay": (Limits(max_idle_time=1.0, min_idle=5), [IdleTimes(0.0, 1.0)], {}),
}


@pytest.mark.parametrize("name", DISCARDS)
def test_idle_connections_are_closed_when_old_or_unused(name: str) -> None:
    limits, idle, expected = DISCARDS[name]
    assert limits.to_close(idle, NOW) == expected


AGES: Final = st.lists(
    st.tuples(st.floats(0, 100), st.floats(0, 100)).map(lambda both: IdleTimes(min(both), max(both))), max_size=10
).map(lambda ages: sorted(ages, key=lambda age: age.used))


@given(idle=AGES, limit=st.floats(0.1, 200), min_idle=st.integers(0, 12))
def test_the_most_recently_used_are_kept_and_at_least_min_idle(
    idle: list[IdleTimes], limit: float, min_idle: int
) -> None:
    discarded = Limits(max_idle_time=limit, min_idle=min_idle).to_close(idle, NOW)
    left = [age for index, age in enumerate(idle) if index not in discarded]
    assert len(left) >= min(min_idle, len(idle))
    assert sum(NOW - age.used >= limit for age in left) <= min_idle
    assert list(discarded) == list(range(len(discarded))), "the longest unused go first"


# --- when to review --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "at"),
    [
        (Limits(), math.inf),
        (Limits(max_idle_time=8.0), 102.0),
        (Limits(max_lifetime=8.0), 102.0),
        (Limits(max_idle_time=8.0, max_lifetime=4.0), 101.0),
        (Limits(max_lifetime=3600.0), 130.0),
    ],
)
def test_idle_connections_are_reviewed_four_times_within_the_shortest_limit(limits: Limits, at: float) -> None:
    assert limits.next_review(NOW) == at
