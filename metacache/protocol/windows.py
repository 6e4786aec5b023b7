"""What a connection waits for when a batch is under way: the replies to a window of requests.

A window begins and ends with an opaque. Nothing is handed out before the end was seen, and every count, code and length
agreed; a doubt is a ProtocolError.
"""

from __future__ import annotations

import itertools
from typing import Final, final

from metacache.errors import ConnectError, ConnectionLost, MetacacheError
from metacache.protocol.commands import Command
from metacache.protocol.expectations import Answer, Single
from metacache.protocol.replies import Opaque, Refusal, known_sizes, value_header

__all__ = ["LONGEST_SPLIT", "Replies", "Window", "closing_error"]

# Bytes that are split at CRLF in one go. More comes only with a data block that is longer still, whose length is known:
# splitting such a block could take nine times its memory.
LONGEST_SPLIT: Final = 1 << 18


@final
class Replies:
    """The replies to a batch: parallel lists in the order of its requests, and the errors by index.

    ``headers[i]`` is the header line of reply i without its opaque (``b""`` when it failed), ``values[i]`` its data
    block or None.
    """

    __slots__ = ("errors", "headers", "values")

    def __init__(self, count: int = 0) -> None:
        self.headers = [b""] * count
        self.values: list[bytes | None] = [None] * count
        self.errors: dict[int, MetacacheError] = {}

    def fill(self, start: int, part: Replies) -> None:
        """Put *part*, the replies to the requests from *start* on, into their places."""
        if len(part.headers) == len(self.headers):
            self.headers, self.values, self.errors = part.headers, part.values, part.errors
            return
        stop = start + len(part.headers)
        self.headers[start:stop] = part.headers
        self.values[start:stop] = part.values
        for index, error in part.errors.items():
            self.errors[start + index] = error

    def add(self, answer: Answer) -> None:
        """Append one answer."""
        if isinstance(answer, Refusal):
            self.errors[len(self.headers)] = answer.error
            self.headers.append(b"")
            self.values.append(None)
        else:
            tokens, value = answer
            self.headers.append(b" ".join([token for token in tokens if token[:1] != b"O"]))
            self.values.append(value)


@final
class Window:
    """The replies to *count* requests of one command of which the first and the last carry an opaque.

    In between, order and count tell which reply is whose. Nothing is handed out before the last opaque has been seen.
    """

    __slots__ = ("_can_split", "_count", "_first", "_last", "closes", "command", "needed", "replies")

    def __init__(self, command: Command, count: int, first: Opaque, last: Opaque) -> None:
        self.command = command
        self.replies = Replies()
        self.needed = 1
        self.closes = False
        self._count = count
        self._first = first[1]
        self._last = last[1]
        self._can_split = True

    def parse(self, data: bytes, pos: int, limit: int, /) -> int:
        """Consume what is there; see `Expectation`."""
        headers = self.replies.headers
        while len(headers) < self._count:
            before = len(headers)
            splits = self._can_split and 0 < before < self._count - 1 and len(data) - pos <= LONGEST_SPLIT
            if splits:
                pos = self._parse_middle(data, pos, limit)
            if len(headers) == before:
                single = Single(self.command, self._opaque_at(before))
                pos = single.parse(data, pos, limit)
                if single.answer is None:
                    self.needed = single.needed
                    return pos
                # A reply that splitting did not explain holds a CRLF in its value: splitting again would cost more than
                # it saves.
                self._can_split = self._can_split and not splits
                self._take(single.answer)
        self.needed = 0
        return pos

    def _opaque_at(self, index: int) -> bytes | None:
        return self._first if index == 0 else self._last if index == self._count - 1 else None

    def _take(self, answer: Answer) -> None:
        self.replies.add(answer)
        if isinstance(answer, Refusal) and answer.closes:
            self.closes = True
            self._count = len(self.replies.headers)

    def _parse_middle(self, data: bytes, pos: int, limit: int) -> int:
        """Consume what splitting at CRLF explains without a doubt, all in C but one loop; return the position after."""
        lines = data[pos:].split(b"\r\n")
        complete = len(lines) - 1  # what follows the last CRLF is not a line yet
        left = self._count - 1 - len(self.replies.headers)
        if not self.command.has_value:
            used = self._split_lines(lines[: min(complete, left)])
        else:
            used = self._split_values(lines, min(left, complete // 2), len(data) - pos <= limit)
            used = used or self._split_one_by_one(lines, complete, left, limit)
        return pos + len(b"\r\n".join(lines[:used])) + 2 if used else pos

    def _split_lines(self, lines: list[bytes]) -> int:
        if lines.count(b"HD") != len(lines):
            lines = list(itertools.takewhile(self.command.codes.__contains__, lines))
        self.replies.headers += lines
        self.replies.values += [None] * len(lines)
        return len(lines)

    def _split_values(self, lines: list[bytes], pairs: int, fit: bool) -> int:
        """Take *pairs* of headers and values if all are hits with headers seen before.

        A quarter of the price of the loop below.
        """
        headers, values = lines[: 2 * pairs : 2], lines[1 : 2 * pairs : 2]
        if not fit or list(map(known_sizes.get, headers)) != list(map(len, values)):
            return 0
        self.replies.headers += headers
        self.replies.values += values
        return 2 * pairs

    def _split_one_by_one(self, lines: list[bytes], complete: int, left: int, limit: int) -> int:
        add_header, add_value = self.replies.headers.append, self.replies.values.append
        whole = self.command.whole
        used = 0
        while left and used < complete:
            header = lines[used]
            if header in whole:
                value = None
                used += 1
            else:
                size = known_sizes.get(header) or value_header(header)[0]
                value = lines[used + 1]  # there is one: the last line is not complete
                if len(value) != size or size > limit or used + 1 == complete:
                    break  # the value holds a CRLF, or is not all there, or this is no VA
                used += 2
            add_header(header)
            add_value(value)
            left -= 1
        return used

    def end_of_stream(self) -> bool:
        """Return False: the end is never the answer."""
        return False


def closing_error(answer: object, *, is_first: bool) -> MetacacheError:
    """Return what *answer*, an error line or a window cut short by one, means for all requests that follow it.

    *is_first*: nothing was answered on the connection before; a server that refuses the connection took nothing then.
    """
    error = answer.error if isinstance(answer, Refusal) else None
    if isinstance(answer, Window) and len(answer.replies.headers) == 1:
        error = answer.replies.errors.get(0)
    if is_first and isinstance(error, ConnectError):
        return ConnectError(error.message)
    return ConnectionLost("closed after an error that leaves unclear what the server takes for requests")
