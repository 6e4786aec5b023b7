"""What a pool decides, with numbers for time: open, wait or refuse, and which idle connections to close."""

from __future__ import annotations

import math
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metacache import Settings
from metacache.pool.state import Decision, Limits, Open, Refuse, Wait
from metacache.transports.counters import CloseReason, IdleTimes

# --- open, wait, refuse ----------------------------------------------------------------------------------------------

DECISIONS: Final[tuple[tuple[int, float, float, Decision], ...]] = (
    # opened, now, until
    (0, 10.0, 20.0, Open()),
    (2, 10.0, 20.0, Open()),
    (2, 10.0, 10.0, Open()),  # opening one takes no waiting for others
    (2, 30.0, 20.0, Open()),
    (3, 10.0, 20.0, Wait(20.0)),
    (3, 20.0, 20.0, Refuse()),
    (3, 30.0, 20.0, Refuse()),
    (4, 10.0, 20.0, Wait(20.0)),
)


@pytest.mark.parametrize(("opened", "now", "until", "decision"), DECISIONS)
def test_a_caller_opens_one_more_or_waits_or_is_refused(
    opened: int, now: float, until: float, decision: Decision
) -> None:
    assert Limits(size=3).checkout(opened=opened, now=now, until=until) == decision


AFTER_FAILURES: Final[tuple[tuple[int, int, float, Decision], ...]] = (
    # opened, connected, seconds since a dial failed
    (1, 1, 0.0, Wait(20.0)),
    (2, 1, 0.9, Wait(20.0)),
    (2, 1, 1.0, Open()),
    (2, 0, 0.0, Open()),  # there is nothing to wait for
    (3, 0, 0.0, Wait(20.0)),
    (3, 3, 9.0, Wait(20.0)),
)


@pytest.mark.parametrize(("opened", "connected", "ago", "decision"), AFTER_FAILURES)
def test_for_a_while_after_a_failed_dial_a_caller_waits_for_what_is_connected(
    opened: int, connected: int, ago: float, decision: Decision
) -> None:
    limits, now = Limits(size=3), 10.0
    decided = limits.checkout(opened=opened, now=now, until=20.0, connected=connected, failed_at=now - ago)
    assert decided == decision


@pytest.mark.parametrize(
    ("wait", "until"),
    [(None, 12.0), (0.0, 10.0), (0.5, 10.5), (2.0, 12.0), (99.0, 12.0)],
)
def test_a_caller_waits_until_its_deadline_or_as_long_as_was_set(wait: float | None, until: float) -> None:
    assert Limits(wait=wait).wait_until(10.0, 12.0) == until


def test_the_limits_are_those_of_the_settings() -> None:
    settings = Settings(pool_size=3, pool_min_idle=2, pool_max_idle_time=4.0, max_lifetime=5.0, pool_wait=0.5)
    assert Limits.of(settings) == Limits(size=3, min_idle=2, max_idle_time=4.0, max_lifetime=5.0, wait=0.5)


# --- which of the idle to close --------------------------------------------------------------------------------------

NOW: Final = 100.0
DISCARDS: Final[dict[str, tuple[Limits, list[IdleTimes], dict[int, CloseReason]]]] = {
    "nothing is limited": (Limits(), [IdleTimes(0.0, 0.0)], {}),
    "there are none": (Limits(max_idle_time=1.0, max_lifetime=1.0), [], {}),
    "unused for just as long as is allowed": (
        Limits(max_idle_time=10.0),
        [IdleTimes(0.0, 89.0), IdleTimes(0.0, 90.0), IdleTimes(0.0, 90.1)],
        {0: CloseReason.IDLE, 1: CloseReason.IDLE},
    ),
    "open for just as long as is allowed, though just used": (
        Limits(max_lifetime=10.0),
        [IdleTimes(89.0, 100.0), IdleTimes(90.0, 100.0), IdleTimes(90.1, 100.0)],
        {0: CloseReason.OLD, 1: CloseReason.OLD},
    ),
    "old and unused is old": (Limits(max_idle_time=1.0, max_lifetime=1.0), [IdleTimes(0.0, 0.0)], {0: CloseReason.OLD}),
    "the least used go first, and min_idle stay": (
        Limits(max_idle_time=10.0, min_idle=2),
        [IdleTimes(0.0, 1.0), IdleTimes(0.0, 2.0), IdleTimes(0.0, 3.0)],
        {0: CloseReason.IDLE},
    ),
    "the old go, min_idle or not": (
        Limits(max_lifetime=10.0, min_idle=2),
        [IdleTimes(0.0, 99.0), IdleTimes(95.0, 99.0)],
        {0: CloseReason.OLD},
    ),
    "the old do not count for those that stay": (
        Limits(max_idle_time=10.0, max_lifetime=50.0, min_idle=1),
        [IdleTimes(0.0, 1.0), IdleTimes(60.0, 61.0), IdleTimes(60.0, 62.0)],
        {0: CloseReason.OLD, 1: CloseReason.IDLE},
    ),
    "fewer than min_idle stay all": (Limits(max_idle_time=1.0, min_idle=5), [IdleTimes(0.0, 1.0)], {}),
}


@pytest.mark.parametrize("name", DISCARDS)
def test_idle_connections_are_closed_for_a_cause(name: str) -> None:
    limits, idle, expected = DISCARDS[name]
    assert limits.discard(idle, NOW) == expected


AGES: Final = st.lists(
    st.tuples(st.floats(0, 100), st.floats(0, 100)).map(lambda both: IdleTimes(min(both), max(both))), max_size=10
).map(lambda ages: sorted(ages, key=lambda age: age.used))


@given(idle=AGES, limit=st.floats(0.1, 200), min_idle=st.integers(0, 12))
def test_the_most_recently_used_are_kept_and_at_least_min_idle(
    idle: list[IdleTimes], limit: float, min_idle: int
) -> None:
    discarded = Limits(max_idle_time=limit, min_idle=min_idle).discard(idle, NOW)
    left = [age for index, age in enumerate(idle) if index not in discarded]
    assert len(left) >= min(min_idle, len(idle))
    assert sum(NOW - age.used >= limit for age in left) <= min_idle
    assert list(discarded) == list(range(len(discarded))), "the longest unused go first"


# --- when to look ----------------------------------------------------------------------------------------------------


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
def test_the_idle_are_looked_through_four_times_within_the_shortest_limit(limits: Limits, at: float) -> None:
    assert limits.next_round(NOW) == at
