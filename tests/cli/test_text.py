"""Text for a terminal is without control characters, has a known width, and is cut to fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metacache.cli.text import ASCII, UNICODE, Charset, charset_of, width_of

BOTH = pytest.mark.parametrize("charset", [UNICODE, ASCII], ids=["unicode", "ascii"])


@BOTH
@given(raw=st.binary(max_size=40))
def test_no_bytes_become_a_control_character(charset: Charset, raw: bytes) -> None:
    assert charset.decoded(raw).isprintable()


@BOTH
@given(text=st.text(st.characters(exclude_categories=())))
def test_no_text_becomes_a_control_character(charset: Charset, text: str) -> None:
    shown = charset.escaped(text)
    assert shown.isprintable()
    assert shown.isascii() or not charset.is_ascii


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("\x9b31m", r"\x9b31m"),
        ("right\u202eleft", r"right\u202eleft"),
        ("hidden\u200b", r"hidden\u200b"),
        ("plain ä 値", "plain ä 値"),
    ],
)
def test_what_could_control_a_terminal_is_written_as_an_escape(text: str, shown: str) -> None:
    assert UNICODE.escaped(text) == shown


def test_a_terminal_without_utf_8_gets_ascii() -> None:
    assert ASCII.escaped("ä値") == r"\xe4\u5024"
    assert charset_of("ANSI_X3.4-1968") is ASCII
    assert charset_of("ascii") is ASCII
    assert charset_of("utf-8") is UNICODE
    assert charset_of("UTF8") is UNICODE
    assert charset_of(None) is ASCII


def test_a_wide_character_takes_two_columns_and_an_accent_none() -> None:
    assert [width_of(text) for text in ("abc", "値段", "e\u0301", "🙂")] == [3, 4, 1, 2]


@BOTH
@given(text=st.text(), width=st.integers(0, 30))
def test_a_cut_text_is_never_wider_than_its_limit(charset: Charset, text: str, width: int) -> None:
    shown = charset.escaped(text)
    cut = charset.cut(shown, width)
    assert width_of(cut) <= width
    assert cut == shown or width_of(shown) > width


def test_a_cut_text_says_that_it_is_cut() -> None:
    assert UNICODE.cut("abcdef", 4) == "abc…"
    assert UNICODE.cut("値段値段", 4) == "値…"
    assert ASCII.cut("abcdef", 4) == "abc~"


@BOTH
@given(share=st.floats(0, 1), width=st.integers(1, 40))
def test_a_bar_is_as_long_as_its_share(charset: Charset, share: float, width: int) -> None:
    bar = charset.bar(share, width)
    assert len(bar) <= width
    assert abs(len(bar) - share * width) <= 1
    assert bool(bar) == (share > 0)


def test_bars_and_sparklines_show_extremes() -> None:
    assert UNICODE.bar(1.0, 4) == "████"
    assert UNICODE.bar(0.5, 4) == "██"
    assert UNICODE.sparkline([0.0, None, 0.5, 1.0]) == "▁ ▅█"
    assert ASCII.sparkline([0.0, 1.0]) == "_#"
