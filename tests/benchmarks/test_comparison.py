"""`make bench-check` fails for each count that rose by more than 5 %, and lists it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.comparison import FIGURES, Change, Figures, changes, load, report, save

COMMITTED = {"client": {"get": 1000, "set": 2000}}


@pytest.mark.parametrize(
    ("measured", "fails"), [(900, False), (1000, False), (1050, False), (1051, True), (3000, True)]
)
def test_a_count_may_rise_by_five_per_cent(measured: int, fails: bool) -> None:
    assert Change("client", "get", 1000, measured).fails is fails


def test_every_operation_of_both_sides_is_compared() -> None:
    found = changes(COMMITTED, {"client": {"get": 1000}, "other": {"get": 5}})
    assert found == [
        Change("client", "get", 1000, 1000),
        Change("client", "set", 2000, None),
        Change("other", "get", None, 5),
    ]
    assert [each.fails for each in found] == [False, True, True]


def test_the_report_lists_what_rose_and_by_how_much() -> None:
    rows, sentence = report(changes(COMMITTED, {"client": {"get": 1100, "set": 1000}}))
    assert rows == [
        ["client: get", "1,000", "1,100", "+10.0% ROSE"],
        ["client: set", "2,000", "1,000", "-50.0%"],
    ]
    assert sentence == "1 of 2 counts failed: client: get (+10.0% ROSE)"


def test_the_report_says_which_counts_are_new_or_gone() -> None:
    rows, sentence = report(changes({"client": {"get": 1}}, {"client": {"set": 2}}))
    assert [row[1:] for row in rows] == [["1", "-", "GONE: write the figures"], ["-", "2", "NEW: write the figures"]]
    assert sentence.startswith("2 of 2 counts failed")


def test_the_report_says_that_nothing_rose() -> None:
    assert report(changes(COMMITTED, COMMITTED))[1] == "No count rose by more than 5%."


def test_written_figures_are_read_back(tmp_path: Path) -> None:
    figures = Figures("3.11", COMMITTED)
    save(figures, tmp_path / "figures.json")
    assert load(tmp_path / "figures.json") == figures


def test_the_committed_figures_can_be_read() -> None:
    figures = load(FIGURES)
    assert figures.python.startswith("3.")
    assert all(count > 0 for counts in figures.counts.values() for count in counts.values())
