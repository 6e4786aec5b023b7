"""Lay out lines and tables of styled text for a width in columns. Pure.

A line is a tuple of spans; a span is a text and its style. The output decides what a style looks like. All texts are
already escaped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Literal, TypeAlias, final

import attrs

from metacache.cli.text import Charset, width_of

__all__ = ["Column", "Line", "Span", "Style", "cut_line", "fields", "plain", "table"]

Style: TypeAlias = Literal["", "title", "name", "good", "bad", "dim"]
Span: TypeAlias = tuple[str, Style]
Line: TypeAlias = tuple[Span, ...]

GAP: Final = 2  # columns between two columns of a table
NARROWEST: Final = 12  # a flexible column is not cut below this


@final
@attrs.frozen
class Column:
    """A column of a table.

    Attributes:
        title: its first line.
        align: ``<`` or ``>``.
        rank: if the table is too wide, the column with the greatest rank is left out first; 0: never.
        is_flexible: if the table is too wide, its texts are cut before a column is left out.
    """

    title: str
    align: Literal["<", ">"] = "<"
    rank: int = 0
    is_flexible: bool = False


def plain(line: Line) -> str:
    """Return the text of *line* without styles."""
    return "".join(text for text, _ in line)


def table(columns: Sequence[Column], rows: Sequence[Line], width: int | None, charset: Charset) -> list[Line]:
    """Return the lines of a table: the titles, then *rows*, each with a span for each column.

    *width*: the columns of the terminal; None: no limit.
    """
    widths = [
        max([width_of(column.title), *(width_of(row[index][0]) for row in rows)])
        for index, column in enumerate(columns)
    ]
    shown = list(range(len(columns)))
    if width is not None:
        shown, widths = _fitted(columns, widths, width)
    titles: Line = tuple((column.title, "title") for column in columns)
    return [
        _row([columns[index] for index in shown], [row[index] for index in shown], widths, charset)
        for row in (titles, *rows)
    ]


def _fitted(columns: Sequence[Column], widths: list[int], width: int) -> tuple[list[int], list[int]]:
    """Return the indexes of the columns that fit into *width*, and their widths."""
    shown = list(range(len(columns)))
    while True:
        excess = sum(widths[index] for index in shown) + GAP * (len(shown) - 1) - width
        spare = {index: max(widths[index] - NARROWEST, 0) for index in shown if columns[index].is_flexible}
        if excess <= sum(spare.values()):
            break
        optional = [index for index in shown if columns[index].rank]
        if not optional:
            break
        shown.remove(max(optional, key=lambda index: columns[index].rank))
    fitted = dict(enumerate(widths))
    for index, room in spare.items():
        taken = min(max(excess, 0), room)
        fitted[index] -= taken
        excess -= taken
    return shown, [fitted[index] for index in shown]


def _row(columns: Sequence[Column], cells: Sequence[Span], widths: Sequence[int], charset: Charset) -> Line:
    spans: list[Span] = []
    for index, (column, (text, style), width) in enumerate(zip(columns, cells, widths, strict=True)):
        shown = charset.cut(text, width)
        padding = " " * (width - width_of(shown))
        is_last = index == len(columns) - 1
        gap = "" if is_last else " " * GAP
        before, after = (padding, "") if column.align == ">" else ("", "" if is_last else padding)
        around: list[Span] = [(before, ""), (shown, style), (after + gap, "")]
        spans += [span for span in around if span[0]]
    return tuple(spans)


def fields(pairs: Sequence[tuple[str, Span]]) -> Iterator[Line]:
    """Yield a line for each name and its text, with the texts aligned."""
    widest = max((len(name) for name, _ in pairs), default=0)
    for name, span in pairs:
        yield ((f"{name:<{widest}}{' ' * GAP}", "title"), span)


def cut_line(line: Line, width: int, charset: Charset) -> Line:
    """Return *line*, or its beginning if it is wider than *width* columns."""
    if sum(width_of(text) for text, _ in line) <= width:
        return line
    left, spans = width, list[Span]()
    for text, style in line:
        if width_of(text) > left:
            return (*spans, (charset.cut(text, left) if left else "", style))
        spans.append((text, style))
        left -= width_of(text)
    return tuple(spans)
