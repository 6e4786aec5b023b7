"""The health of a node, with numbers for time and chance: up, suspect, down, probing, up again."""

from __future__ import annotations

from typing import Final, Literal, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metacache.cluster.health import HEALTHY, Health, moved_off
from metacache.observe import NodeState

NOW: Final = 1000.0
EVEN: Final = 0.5  # a chance that neither shortens nor lengthens a pause

DOWN: Final = HEALTHY.failed(NOW, EVEN).failed(NOW, EVEN).failed(NOW, EVEN)


# --- going down ------------------------------------------------------------------------------------------------------


def test_a_node_is_down_after_three_failures_in_a_row_and_not_before() -> None:
    states: list[tuple[NodeState, bool]] = []
    health = HEALTHY
    for _ in range(4):
        states.append((health.state, health.is_down))
        health = health.failed(NOW, EVEN)
    assert states == [
        (NodeState.UP, False),
        (NodeState.SUSPECT, False),
        (NodeState.SUSPECT, False),
        (NodeState.DOWN, True),
    ]


@pytest.mark.parametrize("failures", [1, 2])
def test_one_reply_makes_a_suspect_healthy_and_resets_the_count(failures: int) -> None:
    health = HEALTHY
    for _ in range(failures):
        health = health.failed(NOW, EVEN)
    health = health.succeeded()
    assert health is HEALTHY
    assert not health.failed(NOW, EVEN).failed(NOW, EVEN).is_down


def test_a_failure_of_a_node_that_is_down_changes_nothing() -> None:
    assert DOWN.failed(NOW + 10, EVEN) is DOWN
    probing = DOWN.probing(NOW + 30)
    assert probing.failed(NOW + 10, EVEN) is probing


def test_a_late_reply_does_not_bring_a_node_up() -> None:
    probing = DOWN.probing(NOW + 30)
    assert DOWN.succeeded() is DOWN
    assert probing.succeeded() is probing


# --- probes ----------------------------------------------------------------------------------------------------------


def test_a_healthy_or_suspect_node_is_not_probed() -> None:
    assert not HEALTHY.may_probe(NOW)
    assert not HEALTHY.failed(NOW, EVEN).may_probe(NOW + 1000)


def test_the_first_probe_comes_half_a_second_after_the_node_went_down() -> None:
    assert not DOWN.may_probe(NOW)
    assert not DOWN.may_probe(NOW + 0.499)
    assert DOWN.may_probe(NOW + 0.5)


def test_while_one_caller_probes_no_other_does_until_its_lease_expires() -> None:
    probing = DOWN.probing(NOW + 31)
    assert probing.state is NodeState.PROBING
    assert probing.is_down
    assert not probing.may_probe(NOW + 30.9)
    assert probing.may_probe(NOW + 31)


def test_failed_probes_double_the_pause_up_to_thirty_seconds() -> None:
    health, pauses = DOWN, [DOWN.pause]
    for _ in range(8):
        health = health.probing(NOW + 30).probe_failed(NOW, EVEN)
        assert health.state is NodeState.DOWN
        assert health.probe_at == pytest.approx(NOW + health.pause)
        pauses.append(health.pause)
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_an_answered_probe_brings_the_node_up_and_resets_the_pauses() -> None:
    health = DOWN.probing(NOW + 30).probe_failed(NOW, EVEN).probing(NOW + 30).probe_answered()
    assert health is HEALTHY
    for _ in range(3):
        health = health.failed(NOW, EVEN)
    assert health.pause == 0.5


def test_after_an_abandoned_probe_the_next_caller_may_probe_immediately() -> None:
    health = DOWN.probing(NOW + 30).probe_failed(NOW, EVEN)
    abandoned = health.probing(NOW + 30).probe_abandoned()
    assert abandoned.state is NodeState.DOWN
    assert (abandoned.pause, abandoned.failures) == (health.pause, health.failures)
    assert abandoned.may_probe(NOW)


@pytest.mark.parametrize("health", [HEALTHY, HEALTHY.failed(NOW, EVEN), DOWN])
def test_a_probe_that_ends_when_no_probe_is_current_changes_nothing(health: Health) -> None:
    assert health.probe_answered() is health
    assert health.probe_failed(NOW, EVEN) is health
    assert health.probe_abandoned() is health


@given(chance=st.floats(0, 1), failed=st.integers(0, 8))
def test_a_pause_is_a_fifth_shorter_or_longer_at_most(chance: float, failed: int) -> None:
    health = HEALTHY.failed(NOW, chance).failed(NOW, chance).failed(NOW, chance)
    for _ in range(failed):
        health = health.probing(NOW + 30).probe_failed(NOW, chance)
    assert 0.8 * health.pause - 1e-9 <= health.probe_at - NOW <= 1.2 * health.pause + 1e-9


def test_chance_spreads_the_pauses_over_the_whole_range() -> None:
    down = HEALTHY.failed(NOW, 0).failed(NOW, 0)
    assert down.failed(NOW, 0.0).probe_at == pytest.approx(NOW + 0.4)
    assert down.failed(NOW, 1.0).probe_at == pytest.approx(NOW + 0.6)


# --- any history -----------------------------------------------------------------------------------------------------

Step = Literal["failed", "succeeded", "probing", "probe_answered", "probe_failed", "probe_abandoned"]
STEPS: Final[tuple[Step, ...]] = get_args(Step)


def step(health: Health, name: Step, now: float) -> Health:
    """Take a step that a cluster may take: probes begin only when they are due; results come at any time."""
    if name == "probing":
        return health.probing(now + 30) if health.may_probe(now) else health
    steps = {
        "failed": health.failed(now, EVEN),
        "succeeded": health.succeeded(),
        "probe_answered": health.probe_answered(),
        "probe_failed": health.probe_failed(now, EVEN),
        "probe_abandoned": health.probe_abandoned(),
    }
    return steps[name]


@given(st.lists(st.sampled_from(STEPS), max_size=60))
def test_only_three_failures_take_a_node_down_and_only_an_answered_probe_brings_it_up(
    history: list[Step],
) -> None:
    health, in_a_row = HEALTHY, 0
    for now, name in enumerate(history):
        before = health
        health = step(before, name, float(now))
        in_a_row = 0 if health is HEALTHY else in_a_row + (name == "failed")
        if not before.is_down and health.is_down:
            assert name == "failed"
            assert in_a_row >= 3
        if before.is_down and not health.is_down:
            assert name == "probe_answered"
            assert before.state is NodeState.PROBING
        assert health.is_down or health.failures < 3
        assert health.is_down == (health.state in {NodeState.DOWN, NodeState.PROBING})
        assert health.pause >= 0.5 if health.is_down else health.pause == 0.0


# --- half of the weight ----------------------------------------------------------------------------------------------

EQUAL: Final = dict.fromkeys("abcde", 1.0)
MOVED: Final[dict[str, tuple[list[str], dict[str, float], str]]] = {
    "none is down": ([], EQUAL, ""),
    "one of five": (["c"], EQUAL, "c"),
    "two of five": (["c", "a"], EQUAL, "ac"),
    "of three of five the two that were down first": (["c", "a", "e"], EQUAL, "ac"),
    "one of two": (["b"], {"a": 1.0, "b": 1.0}, "b"),
    "the only one": (["a"], {"a": 1.0}, ""),
    "more than half of the weight in one": (["b"], {"a": 1.0, "b": 1.1}, ""),
    "a smaller one after one that is too large": (["b", "a"], {"a": 1.0, "b": 3.0, "c": 1.0}, "a"),
    "a drained one": (["a"], {"a": 0.0, "b": 1.0}, "a"),
    "one that is no longer there": (["x"], EQUAL, "x"),
}


@pytest.mark.parametrize("name", MOVED)
def test_keys_move_off_nodes_of_half_of_the_weight(name: str) -> None:
    down, weights, expected = MOVED[name]
    assert moved_off(down, weights) == frozenset(expected)


@given(weights=st.dictionaries(st.text(max_size=3), st.floats(0, 1e6), min_size=1), data=st.data())
def test_keys_never_move_off_more_than_half_of_the_weight(weights: dict[str, float], data: st.DataObject) -> None:
    down = data.draw(st.lists(st.sampled_from(sorted(weights)), unique=True))
    moved = moved_off(down, weights)
    assert moved <= set(down)
    assert sum(weights[name] for name in moved) <= sum(weights.values()) / 2 * (1 + 1e-9)
    left = sum(weights.values()) / 2 - sum(weights[name] for name in moved)
    assert all(weights[name] > left * (1 - 1e-9) - 1e-9 for name in set(down) - moved), "no room is left unused"
