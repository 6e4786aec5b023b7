"""`Plan`: one node per change, with the minimal interval, and always at least one node."""

from __future__ import annotations

import math
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metacache import InvalidArgumentError, Node, RendezvousRouter, Settings
from metacache.discovery.schedule import LONGEST_PAUSE, Plan, next_nodes, node_set_problem
from tests.discovery.sources import nodes

SETTINGS: Final = Settings(poll_interval=30.0, change_interval=5.0)


def begun(first: str = "a", *, settings: Settings = SETTINGS, chance: float = 0.5) -> Plan:
    """Return the plan of a watch that began at the time 100."""
    return Plan.of(settings, nodes(first), 100.0, chance)


# --- changes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("current", "target", "steps"),
    [
        ("a b", "a b", []),
        ("a b", "b a", []),
        ("a", "a b", ["a b"]),
        ("a b", "b", ["b"]),
        ("a", "d c b a", ["a b", "a b c", "a b c d"]),
        ("a b c d", "d", ["b c d", "c d", "d"]),
        ("a b", "c d", ["a b c", "a b c d", "b c d", "c d"]),
        ("a b", "a=2 b=3", ["a=2 b", "a=2 b=3"]),
        ("b c", "a=0 b=2", ["a=0 b c", "a=0 b=2 c", "a=0 b=2"]),
        ("b", "a b@new", ["b@new", "a b@new"]),
        ("a b", "a@new=2 b", ["a@new=2 b"]),
        # In the order of names, these changes would lead to a total weight of 0 between two steps.
        ("a=1 b=0", "a=0 b=1", ["a b=1", "a=0 b=1"]),
        ("a=1 b=0", "b=1", ["a b=1", "b=1"]),
        ("a=1 b=0", "a@new=0 b=1", ["a b=1", "a@new=0 b=1"]),
        ("a", "a=0 b", ["a b", "a=0 b"]),
    ],
)
def test_a_plan_changes_one_node_at_a_time(current: str, target: str, steps: list[str]) -> None:
    at = nodes(current)
    taken: list[tuple[Node, ...]] = []
    while at != tuple(sorted(nodes(target), key=str)):
        at = next_nodes(at, nodes(target))
        taken.append(at)
    assert taken == [nodes(step) for step in steps]


def node_sets() -> st.SearchStrategy[tuple[Node, ...]]:
    node = st.builds(
        Node,
        st.sampled_from(["here", "there"]),
        weight=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
        name=st.sampled_from("abcdefgh"),
    )
    return (
        st.lists(node, min_size=1, unique_by=lambda node: node.name)
        .filter(lambda found: any(node.weight for node in found))
        .map(tuple)
    )


@given(current=node_sets(), target=node_sets())
def test_every_step_changes_one_node_and_leaves_usable_nodes(
    current: tuple[Node, ...], target: tuple[Node, ...]
) -> None:
    at = set(current)
    differing = {node.name for node in at ^ set(target)}
    for _ in differing:
        after = next_nodes(tuple(at), target)
        assert len({node.name for node in at ^ set(after)}) == 1
        assert RendezvousRouter(after).nodes == after, "not empty, no name twice, not all drained"
        at = set(after)
    assert at == set(target)


@given(current=node_sets(), target=node_sets(), data=st.data())
def test_the_order_in_which_a_source_lists_nodes_does_not_matter(
    current: tuple[Node, ...], target: tuple[Node, ...], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(target))
    assert next_nodes(current, shuffled) == next_nodes(tuple(reversed(current)), target)


# --- times -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("chance", "poll_at"), [(0.0, 124.0), (0.5, 130.0), (1.0, 136.0)])
def test_the_poll_interval_varies_by_a_fifth(chance: float, poll_at: float) -> None:
    for plan in (
        begun(chance=chance),
        begun().answered(nodes("a"), 100.0, chance),
        begun().failed(100.0, chance),
    ):
        assert plan.poll_at == pytest.approx(poll_at)
        assert plan.pause(100.0) == pytest.approx(poll_at - 100.0)
        assert not plan.is_poll_due(poll_at - 0.1)
        assert plan.is_poll_due(poll_at + 0.1)


def test_two_changes_are_at_least_change_interval_apart() -> None:
    plan = begun("a").answered(nodes("a b c d"), 100.0, 0.5)
    assert plan.change(100.0) == nodes("a b")
    plan = plan.applied(nodes("a b"), 100.0)
    assert plan.pause(100.0) == 5.0
    assert plan.change(104.9) is None
    assert plan.change(105.0) == nodes("a b c")
    plan = plan.applied(nodes("a b c"), 107.0)
    assert plan.change(111.9) is None
    assert plan.change(112.0) == nodes("a b c d")


def test_a_new_answer_during_changes_is_the_new_target() -> None:
    plan = begun("a").answered(nodes("a b c"), 100.0, 0.5).applied(nodes("a b"), 100.0)
    plan = plan.answered(nodes("a"), 101.0, 0.5)
    assert plan.change(104.0) is None
    assert plan.change(105.0) == nodes("a")


def test_a_change_that_is_undone_before_it_is_due_is_not_applied() -> None:
    plan = begun("a").answered(nodes("a b"), 100.0, 0.5).answered(nodes("a"), 100.0, 0.5)
    assert plan.is_settled
    assert plan.change(100.0) is None


def test_a_failed_poll_keeps_the_target_and_pending_changes() -> None:
    plan = begun("a").answered(nodes("a b c"), 100.0, 0.5).applied(nodes("a b"), 100.0).failed(101.0, 0.5)
    assert plan.is_failing
    assert plan.change(105.0) == nodes("a b c")
    assert not plan.answered(nodes("a"), 102.0, 0.5).is_failing


def test_a_refused_change_is_not_retried_before_the_next_answer() -> None:
    plan = begun("a").answered(nodes("a b"), 100.0, 0.5).refused(100.0)
    assert plan.is_refused
    assert plan.change(1000.0) is None
    plan = plan.answered(nodes("a b"), 130.0, 0.5)
    assert plan.change(130.0) == nodes("a b")
    assert not plan.applied(nodes("a b"), 130.0).is_refused


def test_without_an_interval_changes_are_immediate_but_one_by_one() -> None:
    plan = begun("a", settings=Settings(change_interval=0.0)).answered(nodes("a b c"), 100.0, 0.5)
    for expected in (nodes("a b"), nodes("a b c")):
        assert plan.pause(100.0) == 0.0
        assert plan.change(100.0) == expected
        plan = plan.applied(expected, 100.0)
    assert plan.change(100.0) is None


@pytest.mark.parametrize("interval", [1e6, 1e9])
def test_no_pause_is_longer_than_a_lock_or_a_loop_can_wait(interval: float) -> None:
    assert begun(settings=Settings(poll_interval=interval)).pause(100.0) == LONGEST_PAUSE


def test_the_text_of_a_plan_shows_its_state() -> None:
    plan = begun("a b")
    assert str(plan) == "2 nodes, settled"
    assert str(plan.answered(nodes("a"), 100.0, 0.5)) == "2 nodes, changing"
    assert str(plan.failed(100.0, 0.5)) == "2 nodes, failing"


# --- unusable nodes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ((), "there are none"),
        (nodes("a b a"), "two have the name a"),
        (nodes("a=0 b=0"), "all have weight 0"),
        ((*nodes("a"), "b:11211", None), "2 of 3 are not a Node"),
        (nodes("a b=0"), None),
    ],
)
def test_unusable_nodes_are_refused_with_the_reason(found: tuple[object, ...], why: str | None) -> None:
    assert node_set_problem(found) == why


def test_a_plan_with_unusable_first_nodes_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="the first nodes of a watch: there are none"):
        Plan.of(SETTINGS, (), 0.0, math.nan)
