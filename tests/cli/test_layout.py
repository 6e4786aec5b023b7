"""Tables fit into the terminal: long texts are cut first, then the least important columns are left out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metacache.cli.layout import Column, Line, cut_line, fields, plain, table
from metacache.cli.text import UNICODE, width_of

COLUMNS = (Column("name", is_flexible=True), Column("size", ">"), Column("note", rank=1), Column("more", rank=2))
ROWS: list[Line] = [
    (("cache-1.example.org:11211", "name"), ("12", ""), ("a note", ""), ("more", "")),
    (("b", "name"), ("3", "good"), ("", ""), ("", "")),
]


def shown(width: int | None) -> list[str]:
    return [plain(line).rstrip() for line in table(COLUMNS, ROWS, width, UNICODE)]


def test_columns_are_aligned() -> None:
    assert shown(None) == [
        "name                       size  note    more",
        "cache-1.example.org:11211    12  a note  more",
        "b                             3",
    ]


@pytest.mark.parametrize(
    ("width", "titles", "name"),
    [
        (45, ["name", "size", "note", "more"], "cache-1.example.org:11211"),
        (32, ["name", "size", "note", "more"], "cache-1.exa…"),
        (31, ["name", "size", "note"], "cache-1.example.…"),
        (25, ["name", "size"], "cache-1.example.or…"),
        (18, ["name", "size"], "cache-1.exa…"),
    ],
)
def test_a_table_that_is_too_wide_loses_text_then_columns(width: int, titles: list[str], name: str) -> None:
    first, second, _ = shown(width)
    assert first.split() == titles
    assert second.split()[0] == name


@given(st.integers(18, 60))
def test_a_table_is_never_wider_than_the_terminal(width: int) -> None:
    assert max(map(width_of, shown(width))) <= width


def test_a_line_is_cut_in_the_span_that_does_not_fit() -> None:
    line: Line = (("abc", "name"), ("defgh", ""), ("ij", ""))
    assert cut_line(line, 10, UNICODE) == line
    assert plain(cut_line(line, 6, UNICODE)) == "abcde…"


def test_fields_align_their_texts() -> None:
    assert [plain(line) for line in fields([("a", ("1", "")), ("long", ("2", ""))])] == ["a     1", "long  2"]
