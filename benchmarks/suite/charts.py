"""Bar charts as SVG, by hand: no plotting library gives such small files that are the same on each run. Pure.

A chart has a panel for each case, with its own scale. The best contender is on top. The thin line on a bar is the
spread: half of the rounds lie within it. A bar that would make all others short is cut, and has a gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Final, final
from xml.etree import ElementTree

import attrs

from benchmarks.suite.cases import CASES, Group
from benchmarks.suite.results import Figure, Results
from benchmarks.suite.wording import ranked, shown, text_of

__all__ = ["DARK", "LIGHT", "Chart", "Theme", "describe", "draw", "summary"]

WIDTH: Final = 880
MARGIN: Final = 16
GAP: Final = 32  # between columns
ROW: Final = 22
BAR: Final = 13
CHARACTER: Final = 7.5  # the width of a character of a bold name, on average
FIGURES: Final = 52  # the width of the figures behind the bars
PANEL: Final = 34  # the height of a panel's title
TOP: Final = 74  # the title and the unit
CUT: Final = 4  # a bar is cut at this multiple of the median bar


@final
@attrs.frozen
class Theme:
    """Colours. Each text has a contrast of at least 4.5 to the background, each bar of at least 3."""

    background: str
    text: str
    quiet: str
    ours: str
    pure: str
    others: str
    spread: str


LIGHT: Final = Theme("#ffffff", "#1f2328", "#59636e", "#0a58b5", "#4c8fd6", "#7d8590", "#1f2328")
DARK: Final = Theme("#0d1117", "#e6edf3", "#9198a1", "#58a6ff", "#2f6fc0", "#6e7681", "#e6edf3")


@final
@attrs.frozen
class Chart:
    """What a chart shows: names of CASES that have one unit, and the number of columns of panels."""

    title: str
    cases: Sequence[str]
    columns: int = 2


def summary(chart: Chart) -> str:
    """Return the title and the unit."""
    return f"{chart.title}, {_unit(chart)}"


def describe(chart: Chart, results: Results) -> str:
    """Return the chart in words, for readers who cannot see it: the unit, and the figures of each panel."""
    panels: list[str] = []
    for name in chart.cases:
        group, case = CASES[name]
        bars = [f"{who} {text_of(shown(group, figure.median))}" for who, figure in ranked(results.figures[name])]
        panels.append(f"{case.title}: {', '.join(bars)}")
    return f"{summary(chart)}. {'. '.join(panels)}."


def draw(chart: Chart, results: Results, theme: Theme) -> str:
    """Return the SVG."""
    panels = [(name, ranked(results.figures[name])) for name in chart.cases]
    height = PANEL + ROW * max(len(bars) for _, bars in panels)
    lines = -(-len(panels) // chart.columns)
    width = (WIDTH - 2 * MARGIN - GAP * (chart.columns - 1)) / chart.columns
    svg = _svg(chart, results, TOP + lines * height + MARGIN, theme)
    names = 8 + CHARACTER * max(len(who) for _, bars in panels for who, _ in bars)
    for number, (name, bars) in enumerate(panels):
        row, column = divmod(number, chart.columns)
        x, y = MARGIN + column * (width + GAP), TOP + row * height
        _draw_panel(svg, name, bars, theme, (x, y, width, names))
    ElementTree.indent(svg, " ")
    return ElementTree.tostring(svg, encoding="unicode") + "\n"


def _unit(chart: Chart) -> str:
    (unit,) = {CASES[name][0].unit for name in chart.cases}
    return unit


def _svg(chart: Chart, results: Results, height: int, theme: Theme) -> ElementTree.Element:
    svg = ElementTree.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {WIDTH} {height}",
            "width": str(WIDTH),
            "height": str(height),
            "role": "img",
            "font-family": "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif",
            "font-size": "12",
        },
    )
    _add(svg, "title", text=chart.title)
    _add(svg, "desc", text=describe(chart, results))
    _add(svg, "rect", width=WIDTH, height=height, fill=theme.background)
    _text(svg, MARGIN, 28, chart.title, theme.text, size=18, weight=600)
    _text(svg, MARGIN, 50, f"{_unit(chart)}; the thin line on a bar is the spread of the rounds", theme.quiet, size=13)
    return svg


def _draw_panel(
    svg: ElementTree.Element,
    name: str,
    bars: Sequence[tuple[str, Figure]],
    theme: Theme,
    place: tuple[float, float, float, float],
) -> None:
    x, y, width, names = place
    group, case = CASES[name]
    _text(svg, x, y + 18, case.title, theme.text, size=13, weight=600)
    ends = {who: shown(group, figure.median) for who, figure in bars}
    longest = min(
        max(max(_spread(group, figure)) for _, figure in bars), max(CUT * median(ends.values()), min(ends.values()))
    )
    scale = (width - names - FIGURES) / longest
    for number, (who, figure) in enumerate(bars):
        corner = (x + names, y + PANEL + number * ROW)
        _draw_bar(svg, who, _Bar(group, figure, scale, longest), theme, corner)


@final
class _Bar:
    """The lengths of a bar, in the units of the SVG."""

    def __init__(self, group: Group, figure: Figure, scale: float, longest: float) -> None:
        value = shown(group, figure.median)
        low, high = _spread(group, figure)
        self.text = text_of(value)
        self.is_cut = value > longest
        self.length = min(value, longest) * scale
        self.low, self.high = min(low, longest) * scale, min(high, longest) * scale


def _spread(group: Group, figure: Figure) -> tuple[float, float]:
    low, high = sorted(shown(group, each) for each in figure.quartiles)
    return low, high


def _draw_bar(svg: ElementTree.Element, who: str, bar: _Bar, theme: Theme, place: tuple[float, float]) -> None:
    start, y = place
    middle = y + BAR / 2
    is_ours = who.startswith("metacache")
    _text(svg, start - 8, y + 11, who, theme.text, weight=600 if is_ours else 400, anchor="end")
    _add(svg, "rect", x=start, y=y, width=bar.length, height=BAR, rx=2, fill=_colour(who, theme))
    if bar.is_cut:
        gap = start + bar.length * 0.8
        _add(svg, "path", d=f"M{gap:.1f} {y + BAR:.1f}l6 -{BAR}h5l-6 {BAR}z", fill=theme.background)
    else:
        _add(svg, "path", d=f"M{start + bar.low:.1f} {middle:.1f}H{start + bar.high:.1f}", stroke=theme.spread)
    _text(svg, start + max(bar.length, bar.high) + 6, y + 11, bar.text, theme.text)


def _colour(who: str, theme: Theme) -> str:
    if not who.startswith("metacache"):
        return theme.others
    return theme.ours if "[speed]" in who else theme.pure


def _text(
    svg: ElementTree.Element,
    x: float,
    y: float,
    text: str,
    fill: str,
    *,
    size: int = 12,
    weight: int = 400,
    anchor: str = "start",
) -> None:
    element = _add(svg, "text", text=text, x=x, y=y, fill=fill)
    for name, value, default in (
        ("font-size", size, 12),
        ("font-weight", weight, 400),
        ("text-anchor", anchor, "start"),
    ):
        if value != default:
            element.set(name, str(value))


def _add(
    parent: ElementTree.Element, tag: str, *, text: str | None = None, **attributes: float | str
) -> ElementTree.Element:
    written = {
        name: value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")
        for name, value in attributes.items()
    }
    element = ElementTree.SubElement(parent, tag, written)
    element.text = text
    return element
