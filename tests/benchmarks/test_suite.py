"""The comparison with other clients: the page shows the committed figures, and a run saves what it measured."""

from __future__ import annotations

import math
import os
import re
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

import attrs
import pytest

from benchmarks.pairing import take_turns
from benchmarks.suite.cases import CASES, GROUPS, Group, Kind
from benchmarks.suite.charts import DARK, LIGHT, Chart, Theme, describe, draw
from benchmarks.suite.contenders import CONTENDERS
from benchmarks.suite.markdown import chapter, replace_between
from benchmarks.suite.publishing import CHARTS, ROOT, files
from benchmarks.suite.results import RESULTS, Figure, Results, load, save
from benchmarks.suite.running import Plan, run
from benchmarks.suite.wording import ranked
from benchmarks.suite.worker import Worker, WorkerFailed
from metacache.testing import Memcached

CASE: Final = "single: get 100 B"
GROUP, OTHER = "single", "batches"
EMPTY: Final = Results({"Python": "3.11"}, {"pymemcache": "4.0.0"})
FIGURES: Final = {
    "metacache": Figure((20.0, 21.0, 30.0)),
    "pymemcache": Figure((40.0, 42.0, 44.0), instructions=46_000),
    "memcache": Figure(reason="has no method for many keys"),
}
MEASURED: Final = EMPTY.with_case(CASE, FIGURES, day="2026-01-02", busy=0.0)


def committed() -> Results:
    found = load(RESULTS)
    assert found is not None
    return found


# --- what is committed -----------------------------------------------------------------------------------------------


def test_the_committed_pages_and_charts_are_those_of_the_committed_figures() -> None:
    made = files(committed())
    stale = [str(path) for path, text in made.items() if (ROOT / path).read_text() != text]
    assert stale == [], "run: python -m benchmarks.suite publish"
    assert {path.name for path in (ROOT / CHARTS).iterdir()} == {path.name for path in made if path.suffix == ".svg"}


def test_the_committed_figures_have_every_case_and_contender() -> None:
    found = committed().figures
    assert {case: set(figures) for case, figures in found.items()} == {
        case: {each.name for each in CONTENDERS[group.kind]} for case, (group, _) in CASES.items()
    }


def test_a_figure_has_times_or_a_reason() -> None:
    for figures in committed().figures.values():
        assert all(bool(each.times) is (each.reason is None) for each in figures.values())


# --- results ---------------------------------------------------------------------------------------------------------


def test_saved_results_are_read_back(tmp_path: Path) -> None:
    save(MEASURED, tmp_path / "results.json")
    assert load(tmp_path / "results.json") == MEASURED
    assert load(tmp_path / "other.json") is None


def test_new_times_keep_the_count_of_instructions_if_they_are_not_counted_again() -> None:
    again = MEASURED.with_case(CASE, {"pymemcache": Figure((1.0,))}, day="2026-01-03", busy=0.0)
    assert again.figures[CASE]["pymemcache"].is_uncounted
    again = MEASURED.with_case(CASE, {"pymemcache": Figure((1.0,))}, day="2026-01-03", busy=0.0, keeps_counts=True)
    assert again.figures[CASE] == {"pymemcache": Figure((1.0,), instructions=46_000)}


def test_the_spread_is_that_of_the_middle_half_of_the_rounds() -> None:
    assert Figure((5.0, 1.0, 2.0, 3.0, 4.0)).quartiles == (2.0, 4.0)
    assert Figure((7.0,)).quartiles == (7.0, 7.0)


def test_figures_of_another_version_do_not_fit() -> None:
    assert MEASURED.fits(EMPTY)
    assert not MEASURED.fits(attrs.evolve(EMPTY, versions={"pymemcache": "4.0.1"}))


# --- pages and charts ------------------------------------------------------------------------------------------------


def test_the_page_has_medians_spreads_counts_and_reasons() -> None:
    text = chapter(MEASURED, {GROUP: "(chart)"})
    assert "| metacache | 21.0 | 20.5 to 25.5 | - |" in text
    assert "| pymemcache | 42.0 | 41.0 to 43.0 | 46,000 |" in text
    assert "| memcache | - | - | - |" in text
    assert "- memcache has no method for many keys (get 100 B)" in text
    assert "not reliable" not in text


def test_the_page_says_that_the_machine_was_busy() -> None:
    busy = MEASURED.with_case(CASE, FIGURES, day="2026-01-02", busy=0.4)
    assert "up to 40% of the processors" in chapter(busy, {GROUP: "(chart)"})


def test_only_the_text_between_the_marks_is_replaced() -> None:
    assert replace_between("a\n<!\nold\n!>\nb\n", "<!", "!>", "new\n") == "a\n<!\n\nnew\n\n!>\nb\n"
    with pytest.raises(ValueError, match="no lines"):
        replace_between("a\n<!\n", "<!", "!>", "new")


def test_a_chart_names_the_fastest_first_and_says_which_way_is_better() -> None:
    chart = Chart("A title", [CASE])
    assert [name for name, _ in ranked(FIGURES)] == ["metacache", "pymemcache"]
    assert describe(chart, MEASURED) == (
        "A title, µs per key, lower is better. get 100 B: metacache 21.0, pymemcache 42.0."
    )
    texts = [each.text for each in ElementTree.fromstring(draw(chart, MEASURED, LIGHT)).iter() if each.text]
    assert any("lower is better" in text for text in texts)
    assert texts.index("metacache") < texts.index("pymemcache")


def test_a_bar_that_would_make_the_others_short_is_cut() -> None:
    slow = MEASURED.with_case(
        CASE, {**FIGURES, "pylibmc": Figure((30.0,)), "memcache": Figure((9000.0,))}, day="", busy=0.0
    )
    bars = bar_lengths(draw(Chart("", [CASE]), slow, LIGHT))
    assert bars == sorted(bars)
    assert bars[-1] == pytest.approx(4 * (bars[1] + bars[2]) / 2, rel=0.01)


@pytest.mark.parametrize("path", sorted((ROOT / CHARTS).glob("*-light.svg")), ids=lambda path: path.stem)
def test_the_names_and_figures_of_a_chart_fit_into_it(path: Path) -> None:
    svg = ElementTree.parse(path).getroot()
    for text in svg.iter("{http://www.w3.org/2000/svg}text"):
        x, length = float(text.attrib["x"]), 7.5 * len(text.text or "")
        if text.get("font-size") is None:  # not a title
            assert x - length >= 0 if text.get("text-anchor") == "end" else x + length <= float(svg.attrib["width"])


def bar_lengths(svg: str) -> list[float]:
    return [float(match) for match in re.findall(r'width="([\d.]+)" height="13"', svg)]


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_texts_and_bars_stand_out_from_the_background(theme: Theme) -> None:
    assert all(contrast(colour, theme.background) >= 4.5 for colour in (theme.text, theme.quiet))
    assert all(contrast(colour, theme.background) >= 3 for colour in (theme.ours, theme.pure, theme.others))


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of WCAG 2."""
    dark, light = sorted(luminance(colour) for colour in (one, other))
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


# --- a run -----------------------------------------------------------------------------------------------------------


def test_each_round_begins_with_another_contender() -> None:
    order: list[str] = []

    def take_round(name: str) -> float:
        order.append(name)
        return float(len(order))

    times = take_turns({name: partial(take_round, name) for name in "abc"}, 2)
    assert times == {"a": [1.0, 6.0], "b": [2.0, 4.0], "c": [3.0, 5.0]}
    assert "".join(order) == "abcbca"


@pytest.mark.parametrize("group", [GROUPS["unix"], GROUPS["typed"], GROUPS["tasks"]], ids=["unix", "typed", "tasks"])
def test_a_run_saves_times_and_reasons_of_every_contender(
    group: Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = next(name for name, (its, _) in CASES.items() if its is group)
    monkeypatch.setattr("benchmarks.suite.running.ROUND", 0.001)
    run(Plan([name], [], rounds=1), EMPTY, tmp_path / "results.json")
    found = load(tmp_path / "results.json")
    assert found is not None
    figures = found.figures[name]
    assert list(figures) == [each.name for each in CONTENDERS[CASES[name][0].kind]]
    assert all(0 < each.median < math.inf for each in figures.values() if each.reason is None)
    # Without a compiler there is no metacache[speed], and pylibmc has no wheel for the newest Pythons.
    lacking = {name for name, each in figures.items() if each.reason and "is not there" not in each.reason}
    assert lacking == ({"memcache"} if name.startswith("unix") else set())


@pytest.fixture
def worker() -> Iterator[Worker]:
    found = Worker(Kind.BLOCKING, next(each for each in CONTENDERS[Kind.BLOCKING] if each.name == "memcache"))
    yield found
    found.close()


def test_a_worker_says_what_its_client_lacks_and_lives_on(worker: Worker, memcached: Memcached) -> None:
    with pytest.raises(WorkerFailed, match="has no method for many keys"):
        worker.prepare("batches: get_many of 100", [memcached.node])
    worker.prepare(CASE, [memcached.node])
    assert worker.time(0.001) > 0


def test_a_worker_that_ended_has_failed(worker: Worker, memcached: Memcached) -> None:
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerFailed, match="ended"):
        worker.prepare(CASE, [memcached.node])
