"""`Stampede` refuses wrong values, and `Plan` turns the rest into numbers of the protocol."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, Final

import pytest

from metacache import Client, InvalidArgumentError, InvalidTypeError, Stampede
from metacache.caching.policy import Plan
from metacache.client.blocking_caching import BlockingCaching
from metacache.testing import FakeServer, FakeTransport
from tests.caching.rig import Rig

DAY: Final = 24 * 60 * 60

WRONG_VALUES: Final = [
    ("lease", 1),
    ("lease", 30 * DAY + 1),
    ("lease", timedelta(seconds=0.5)),
    ("wait", -0.1),
    ("wait", math.nan),
    ("wait", math.inf),
    ("on_busy", "wait"),
    ("refresh_ahead", 0.51),
    ("refresh_ahead", -0.1),
    ("refresh_ahead", math.nan),
    ("refresh_ahead", timedelta(seconds=-1)),
    ("serve_stale", -1),
    ("serve_stale", 30 * DAY + 1),
    ("jitter", 0.26),
    ("jitter", -0.01),
]
WRONG_TYPES: Final = [
    ("lease", 2.5),
    ("lease", True),
    ("lease", "10"),
    ("lease", None),
    ("wait", "1"),
    ("wait", True),
    ("refresh_ahead", True),
    ("refresh_ahead", None),
    ("serve_stale", 1.5),
    ("serve_stale", False),
    ("stale_on", ValueError),
    ("stale_on", (KeyboardInterrupt,)),
    ("stale_on", ("ValueError",)),
    ("stale_on", [ValueError]),
    ("jitter", True),
    ("background", 1),
    ("background", None),
]


def stampede(name: str, value: object) -> Stampede:
    wrong: dict[str, Any] = {name: value}  # Any: a value of a wrong type
    return Stampede(**wrong)


@pytest.mark.parametrize(("name", "value"), WRONG_VALUES)
def test_a_wrong_value_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InvalidArgumentError, match=f"Stampede.{name} "):
        stampede(name, value)


@pytest.mark.parametrize(("name", "value"), WRONG_TYPES)
def test_a_wrong_type_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InvalidTypeError, match=f"Stampede.{name} "):
        stampede(name, value)


def test_a_policy_is_keyword_only_and_frozen_and_compares_by_value() -> None:
    with pytest.raises(TypeError):
        Stampede(10)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with pytest.raises(AttributeError):
        Stampede().lease = 5  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    assert Stampede(lease=5) == Stampede(lease=5) != Stampede(lease=6)
    assert hash(Stampede()) == hash(Stampede())


# Policy, ttl: lease, wait, fresh, stale, recache, jitter.
PLANS: Final = [
    (Stampede(), 300, (10, 20.0, 300.0, 0, 31, 15)),
    (Stampede(), None, (10, 20.0, math.inf, 0, 0, 0)),
    (Stampede(), timedelta(minutes=5), (10, 20.0, 300.0, 0, 31, 15)),
    (Stampede(), 1, (10, 20.0, 1.0, 0, 0, 0)),
    (Stampede(lease=timedelta(seconds=2.5)), 100, (3, 6.0, 100.0, 0, 11, 5)),
    (Stampede(wait=0), 100, (10, 0.0, 100.0, 0, 11, 5)),
    (Stampede(wait=timedelta(milliseconds=100)), 100, (10, 0.1, 100.0, 0, 11, 5)),
    (Stampede(refresh_ahead=0), 100, (10, 20.0, 100.0, 0, 0, 5)),
    (Stampede(refresh_ahead=0, serve_stale=60), 100, (10, 20.0, 100.0, 60, 61, 5)),
    (Stampede(refresh_ahead=0.5, serve_stale=60, jitter=0.25), 100, (10, 20.0, 100.0, 60, 111, 25)),
    (Stampede(refresh_ahead=timedelta(seconds=30)), 100, (10, 20.0, 100.0, 0, 31, 5)),
    (Stampede(refresh_ahead=timedelta(hours=1)), 100, (10, 20.0, 100.0, 0, 51, 5)),  # at most half of the ttl
    (Stampede(refresh_ahead=timedelta(hours=1)), None, (10, 20.0, math.inf, 0, 0, 0)),
    (Stampede(serve_stale=60), None, (10, 20.0, math.inf, 0, 0, 0)),
    # A larger R would be a time since 1970.
    (Stampede(serve_stale=30 * DAY), 3600, (10, 20.0, 3600.0, 30 * DAY, 30 * DAY, 180)),
    (Stampede(refresh_ahead=0.5, jitter=0), 90 * DAY, (10, 20.0, 90.0 * DAY, 0, 30 * DAY, 0)),
]


@pytest.mark.parametrize(("policy", "ttl", "numbers"), PLANS)
def test_a_plan_has_whole_seconds(
    policy: Stampede, ttl: int | timedelta | None, numbers: tuple[int, float, float, int, int, int]
) -> None:
    plan = Plan.of(policy, ttl)
    assert (plan.lease, plan.wait, plan.fresh, plan.stale, plan.recache, plan.jitter) == numbers


def test_jitter_shortens_the_fresh_life_only() -> None:
    plan = Plan.of(Stampede(jitter=0.25, serve_stale=60), 100)
    assert [plan.life(chance) for chance in (0.0, 0.5, 1.0)] == [160, 148, 135]
    assert Plan.of(Stampede(jitter=0.25), None).life(1.0) is None
    assert Plan.of(Stampede(jitter=0.25), 1).life(1.0) == 1


@pytest.mark.parametrize("ttl", range(1, 60))
def test_a_value_that_was_just_stored_is_not_recached(ttl: int) -> None:
    for ahead in (0.0, 0.1, 0.3, 0.5):
        for stale in (0, 1, 30):
            plan = Plan.of(Stampede(refresh_ahead=ahead, serve_stale=stale, jitter=0.0), ttl)
            assert plan.recache <= (plan.life(1.0) or 0) + 1
            assert plan.recache == 0 or plan.recache > stale


async def test_the_ask_has_the_numbers_of_the_policy(kind: str) -> None:
    rig, asks = Rig(kind, FakeServer()), list[str]()
    rig.transport.hook = lambda _, head: asks.append(head)
    client = rig.texts(default_ttl=200)

    async def make() -> str:
        return "new"

    policy = Stampede(lease=7, serve_stale=60, jitter=0.0)
    await client.get_or_compute("k", rig.factory(make), policy=policy)
    await client.get_or_compute("m", rig.factory(make), policy=policy, ttl=None)
    assert asks == [
        "mg k v f c t N7 R81",
        "ms k 3 F2952790032 T260 C1",
        "mg m v f c t N7",
        "ms m 3 F2952790032 C3",
    ]


async def test_background_is_true_for_tasks_and_an_executor_for_threads(kind: str) -> None:
    rig = Rig(kind, FakeServer())

    async def make() -> str:
        return "new"

    with ThreadPoolExecutor(1) as executor:
        fitting, wrong = (executor, True) if rig.is_blocking else (True, executor)
        client = rig.texts()
        assert await client.get_or_compute("k", rig.factory(make), policy=Stampede(background=fitting)) == "new"
        with pytest.raises(InvalidArgumentError, match="background is"):
            await client.get_or_compute("k", rig.factory(make), policy=Stampede(background=wrong))


def test_many_policies_and_ttls_are_not_kept_for_ever() -> None:
    client = Client(FakeTransport())
    for number in range(1, 2000):
        client.get_or_compute("k", lambda: b"v", ttl=number, policy=Stampede())
    assert isinstance(client._caching, BlockingCaching)
    assert len(client._caching._asks._plans) <= 256


@pytest.mark.parametrize("ttl", [0, -5, True, "5", 1.5, [5]])
async def test_a_wrong_ttl_is_refused_each_time(kind: str, ttl: int) -> None:
    rig = Rig(kind, FakeServer())

    async def make() -> str:
        return "new"

    for _ in range(2):
        with pytest.raises(InvalidArgumentError, match="ttl"):
            await rig.texts().get_or_compute("k", rig.factory(make), ttl=ttl)
    assert rig.transport.count == 0
