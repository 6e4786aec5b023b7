"""Make the page, the charts and the part of README.md that show `benchmarks/results.json`. Measures nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final
from xml.sax.saxutils import quoteattr

from benchmarks.suite import results
from benchmarks.suite.cases import GROUPS
from benchmarks.suite.charts import DARK, LIGHT, Chart, describe, draw, summary
from benchmarks.suite.markdown import chapter, replace_between, warning
from benchmarks.suite.results import Results

__all__ = ["files", "publish"]

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = Path("docs/explanation/benchmarks.md")
README: Final = Path("README.md")
CHARTS: Final = Path("docs/charts")
BEGIN: Final = "<!-- made by python -m benchmarks.suite publish: begin -->"
END: Final = "<!-- made by python -m benchmarks.suite publish: end -->"
THEMES: Final = {"light": LIGHT, "dark": DARK}

# What README.md shows.
OVERVIEW: Final = Chart(
    "metacache beside other clients",
    ("single: get 100 B", "single: set 100 B", "batches: get_many of 100", "batches: set_many of 100"),
)


def publish() -> None:
    """Write all files."""
    found = results.load()
    if found is None:
        raise SystemExit(f"benchmarks: there is no {results.RESULTS.name}; run python -m benchmarks.suite run")
    for path, text in files(found).items():
        (ROOT / path).parent.mkdir(exist_ok=True)
        (ROOT / path).write_text(text, encoding="utf-8")


def files(found: Results) -> Mapping[Path, str]:
    """Return the text of each file that shows *found*, by its path from the root of the repository."""
    charts = _charts(found)
    drawn = {
        CHARTS / f"{name}-{theme}.svg": draw(chart, found, colours)
        for name, chart in charts.items()
        for theme, colours in THEMES.items()
    }
    pictures = {
        name: _picture(f"../{CHARTS.name}/{name}", f"{summary(chart)}; the tables have the figures")
        for name, chart in charts.items()
    }
    overview = f"{_picture(f'{CHARTS}/overview', describe(OVERVIEW, found))}\n\n{warning(found)}"
    texts = {PAGE: chapter(found, pictures), README: overview}
    pages = {path: replace_between((ROOT / path).read_text("utf-8"), BEGIN, END, text) for path, text in texts.items()}
    return {**drawn, **pages}


def _charts(found: Results) -> Mapping[str, Chart]:
    """Return a chart for each group that has figures."""
    cases = {
        name: tuple(each for case in group.cases if (each := f"{name}: {case.title}") in found.figures)
        for name, group in GROUPS.items()
    }
    charts = {name: Chart(GROUPS[name].title, each) for name, each in cases.items() if each}
    return {**charts, "overview": OVERVIEW}


def _picture(path: str, text: str) -> str:
    """Return the HTML of a chart, in the colours that the reader's system asks for. *text*: for who cannot see it."""
    return "\n".join(
        (
            "<picture>",
            f'  <source media="(prefers-color-scheme: dark)" srcset="{path}-dark.svg">',
            f'  <img src="{path}-light.svg" alt={quoteattr(text)}>',
            "</picture>",
        )
    )
