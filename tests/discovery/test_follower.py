"""`Follower`, with a clock that the test controls, so that no test waits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final, final

import pytest

from metacache import ClosedError, ConnectError, InvalidArgumentError, Node, Settings
from metacache.discovery.follower import Answer, Follower, poll_source
from tests.discovery.sources import Listed, nodes

EVERY_TEN: Final = Settings(poll_interval=10.0, change_interval=1.0)


@final
class Simulated:
    """Effects whose clock moves only in `sleep`; closed at the time *until*."""

    def __init__(self, *answers: Answer, until: float = 100.0) -> None:
        self._source = Listed(*answers)
        self._until = until
        self._now = 0.0
        self.polled: list[float] = []
        self.applied: list[tuple[float, str]] = []
        self.refuse: Exception | None = None

    def now(self) -> float:
        return self._now

    async def sleep(self, seconds: float, /) -> bool:
        self._now += seconds
        return self._now < self._until

    async def poll(self) -> Answer:
        self.polled.append(self._now)
        return poll_source(self._source)

    def apply(self, found: Sequence[Node]) -> None:
        self.applied.append((self._now, " ".join(node.name for node in found)))
        if self.refuse is not None:
            raise self.refuse


def follow(world: Simulated, first: str = "a") -> Follower:
    follower = Follower(world.apply, lambda: None, settings=EVERY_TEN, first=nodes(first), now=0.0)
    asyncio.run(follower.run(world))
    return follower


def test_an_unchanged_source_is_polled_at_its_interval_and_changes_nothing() -> None:
    world = Simulated(nodes("a"))
    follow(world)
    assert world.applied == []
    assert 8 <= len(world.polled) <= 12
    gaps = [after - before for before, after in zip(world.polled, world.polled[1:], strict=False)]
    assert all(8.0 <= gap <= 12.0 for gap in gaps)
    assert len(set(gaps)) > 1, "the jitter is drawn for each poll"


def test_an_answer_with_many_changes_is_applied_one_by_one() -> None:
    world = Simulated(nodes("c b a"), nodes("c"), until=28.0)
    follow(world)
    assert [found for _, found in world.applied] == ["a b", "a b c", "b c", "c"]
    times = [time for time, _ in world.applied]
    assert times[0] == world.polled[0]
    assert times[1] == times[0] + 1.0
    assert times[2] == world.polled[1]
    assert times[3] == times[2] + 1.0


@pytest.mark.parametrize(
    "bad", [(), nodes("a a"), nodes("a=0"), OSError("gone"), RuntimeError("a bug"), StopIteration()]
)
def test_an_unusable_answer_changes_nothing_and_is_logged_once(bad: Answer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "metacache.discovery")
    world = Simulated(nodes("a b"), bad, bad, bad, nodes("a b"), bad, nodes("a"))
    follow(world)
    assert [found for _, found in world.applied] == ["a b", "a"]
    logged = [record.levelname for record in caplog.records if "usable" in record.getMessage()]
    assert logged == ["WARNING", "INFO", "WARNING", "INFO"]
    assert "keeping the 2 nodes of the last good answer" in caplog.text


def test_the_message_of_a_foreign_error_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    follow(Simulated(OSError("https://user:secret@consul/")))
    assert "no usable answer (OSError)" in caplog.text
    assert "secret" not in caplog.text


def test_the_message_of_a_metacache_error_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    follow(Simulated(ConnectError("the connection was refused", node="cache:11211")))
    assert "ConnectError: cache:11211: the connection was refused" in caplog.text


def test_a_refused_change_is_retried_with_each_answer_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = Simulated(nodes("a b c"))
    world.refuse = InvalidArgumentError("no such node")
    follower = follow(world)
    assert [found for _, found in world.applied] == ["a b"] * len(world.polled)
    assert len([record for record in caplog.records if "refused" in record.getMessage()]) == 1
    assert follower.plan.current == nodes("a")


def test_a_follower_ends_when_apply_raises_closed_error() -> None:
    world = Simulated(nodes("a b"))
    world.refuse = ClosedError("the cluster was closed")
    follow(world)
    assert len(world.applied) == len(world.polled) == 1


def test_a_later_run_continues_with_the_plan_of_the_earlier_one() -> None:
    world = Simulated(nodes("a b c d"), until=13.0)
    follower = Follower(world.apply, lambda: None, settings=EVERY_TEN, first=nodes("a"), now=0.0)
    asyncio.run(follower.run(world))
    before = len(world.applied)
    assert before > 0
    again = Simulated(nodes("a b c d"))
    asyncio.run(follower.run(again))
    assert world.applied[-1][1] == "a b c d"
    assert len(world.applied) == 3, "no step is taken twice"


@final
class Listener:
    """An object with a bound method for *apply*."""

    def take(self, found: Sequence[Node]) -> None:
        raise AssertionError(found)


def test_the_object_of_a_bound_method_is_not_kept_alive() -> None:
    logged: list[str] = []
    listener = Listener()
    follower = Follower(listener.take, lambda: logged.append("gone"), settings=EVERY_TEN, first=nodes("a"), now=0.0)
    assert not logged
    del listener
    assert logged == ["gone"]
    world = Simulated(nodes("a b"))
    asyncio.run(follower.run(world))
    assert len(world.polled) == 1, "the follower ended"
