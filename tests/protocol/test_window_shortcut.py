"""The shortcut of a window gives the same replies as the parser, for every stream, however it is cut."""

from __future__ import annotations

from itertools import pairwise
from typing import Final, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metacache.protocol import commands
from metacache.protocol.commands import Command
from metacache.protocol.connection import ProtocolConnection

LIMIT: Final = 1000

# What follows the header of a reply: the opaque that belongs there, none, one of another request, flags behind it, or
# several opaques, which no server sends.
USUAL: Final = b" %b"
MARKS: Final = (USUAL, b"", b" O9999", b" %b W", b" %b %b", b" O9999 %b")
OF_VALUES: Final = (
    b"VA 5 f12%m\r\nhello\r\n",
    b"VA 5 f12%m\r\nHELLO\r\n",
    b"VA 3 f12%m\r\nabc\r\n",
    b"VA 9 f12%m\r\na\r\nb\r\nEN\r\r\n",
    b"VA 0 f12%m\r\n\r\n",
    b"VA 3 f12%m\r\nhello\r\n",
    b"VA 1001 f12%m\r\n" + b"x" * (LIMIT + 1) + b"\r\n",
    b"EN%m\r\n",
    b"HD%m\r\n",
    b"SERVER_ERROR out of memory writing get response\r\n",
)
OF_STORES: Final = (
    b"HD%m\r\n",
    b"NS%m\r\n",
    b"EN%m\r\n",
    b"SERVER_ERROR object too large for cache\r\n",
    b"junk%m\r\n",
)
KINDS: Final = {commands.MG_VALUE: OF_VALUES, commands.MS: OF_STORES}

Outcome: TypeAlias = tuple[list[bytes], list[bytes | None], dict[int, str], bool, str | None, int]


def outcome(command: Command, replies: list[tuple[bytes, bytes]], cuts: list[int], *, splits: bool) -> Outcome:
    """Return what a window makes of *replies*, (text, mark) each."""
    connection = ProtocolConnection(max_reply_size=LIMIT)
    bodies = None if command is commands.MG_VALUE else [b"v"] * len(replies)
    sent, window = connection.send_window(command, [b"xx k"] * len(replies), bodies)
    window._can_split = splits
    lines = sent.split(b"\r\n")[:: 1 if bodies is None else 2]
    stream = b""
    for line, (text, mark) in zip(lines, replies, strict=False):
        opaque = line.removeprefix(b"xx k")  # with its space; empty in the middle
        stream += text.replace(b"%m", mark.replace(USUAL, opaque))
    finished = 0
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    for start, stop in pairwise(edges):
        if start < stop and connection.failure is None and not connection.must_close:
            finished += len(connection.receive(stream[start:stop]))
    errors = {index: repr(error) for index, error in window.replies.errors.items()}
    headers, values = window.replies.headers, window.replies.values
    failure = None if connection.failure is None else connection.failure.message
    if failure is not None:
        headers, values, errors = [], [], {}  # a window with a failure is not used
    return headers, values, errors, connection.must_close, failure, finished


@pytest.mark.parametrize("command", KINDS, ids=lambda command: command.name)
@given(data=st.data())
def test_a_window_with_and_without_the_shortcut_is_the_same(command: Command, data: st.DataObject) -> None:
    usual = st.just(USUAL)
    reply = st.tuples(
        st.one_of(st.just(KINDS[command][0]), st.sampled_from(KINDS[command])),
        st.one_of(usual, usual, usual, usual, st.sampled_from(MARKS)),
    )
    replies = data.draw(st.lists(reply, min_size=1, max_size=7))
    cuts = data.draw(st.lists(st.integers(0, 400), max_size=3))
    expected = outcome(command, replies, cuts, splits=False)
    assert outcome(command, replies, cuts, splits=True) == expected
    assert outcome(command, replies, cuts, splits=True) == expected  # now the headers are known
