"""The reprs of results show what happened, and no value."""

from __future__ import annotations

from metacache import OperationTimeout, Outcomes


def test_the_repr_of_outcomes_shows_counts_and_no_value() -> None:
    outcomes = Outcomes({"a": b"hunter2", "b": b"hunter2"}, {"c": OperationTimeout("too late")})
    assert repr(outcomes) == "<Outcomes: 2 results, 1 errors>"
    assert str(outcomes) == "2 results, 1 errors"
    assert repr(Outcomes[str, bytes]({}, {})) == "<Outcomes: 0 results, 0 errors>"
