"""The strict parser of requests refuses what the client must never send; and a Cursor reads every input."""

from __future__ import annotations

import pytest

from fuzzing.cursor import Cursor
from fuzzing.strict import NotStrict, Sent, parse


def test_correct_requests_are_read() -> None:
    assert parse(b"mg key v f O1\r\nms a2V5 3 b T30 F9\r\nabc\r\n") == [
        Sent(b"mg", b"key", {b"v": b"", b"f": b"", b"O": b"1"}, None),
        Sent(b"ms", b"key", {b"b": b"", b"T": b"30", b"F": b"9"}, b"abc"),
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"mg key v",
        b"mg key v\n",
        b"mg\r\n",
        b"get key\r\n",
        b"mg  key v\r\n",
        b"mg key v \r\n",
        b"mg key v v\r\n",
        b"mg key v1\r\n",
        b"mg key q9\r\n",
        b"mg key F1\r\n",
        b"mg key T\r\n",
        b"mg key T2147483648\r\n",
        b"mg key T+1\r\n",
        b"mg k\x7fy v\r\n",
        b"mg " + b"k" * 251 + b" v\r\n",
        b"mg a2V5 b k\r\n",
        b"mg a2V b v\r\n",
        b"ms key 3\r\nab\r\n",
        b"ms key 2\r\nabc\r\n",
        b"ms key -1\r\n",
        b"ms key x\r\nabc\r\n",
        b"ms key 3 MX\r\nabc\r\n",
        b"ms key 3 F4294967296\r\nabc\r\n",
        b"mg key v\r\nrest",
        b"mg " + b"k" * 10 + b" v" + b" f" * 1100 + b"\r\n",
    ],
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(NotStrict):
        parse(data)


def test_a_cursor_reads_numbers_pieces_and_what_is_left() -> None:
    cursor = Cursor(b"\x01\x02\x00\x03abcrest")
    assert (cursor.number(), cursor.number(2), cursor.piece(), cursor.rest()) == (1, 2, b"abc", b"rest")
    assert cursor.is_at_end
    assert (cursor.number(), cursor.piece(), cursor.text(), cursor.choice("ab")) == (0, b"", "", "a")
