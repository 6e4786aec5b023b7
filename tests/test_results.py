"""What verbs return, as a person at a prompt or in a log sees it: what it came to, and never a value."""

from __future__ import annotations

from metacache import OperationTimeout, Outcomes


def test_the_repr_of_outcomes_shows_counts_and_no_value() -> None:
    outcomes = Outcomes({"a": b"hunter2", "b": b"hunter2"}, {"c": OperationTimeout("too late")})
    assert repr(outcomes) == "<Outcomes: 2 results, 1 errors>"
    assert str(outcomes) == "2 results, 1 errors"
    assert repr(Outcomes[str, bytes]({}, {})) == "<Outcomes: 0 results, 0 errors>"
