"""`Output`: writes lines, JSON and progress to the streams of the process, and draws a full screen.

Styles, the width and the drawing of progress depend on whether a stream is a terminal. Colours come from rich if it is
installed (`colours`). Nothing but the text itself goes into a pipe.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from types import FrameType
from typing import Final, TextIO, TypeAlias, final

from metacache.cli.layout import Line, cut_line, plain
from metacache.cli.messagepack import Shown
from metacache.cli.text import Charset, charset_of

__all__ = ["Output", "Progress", "output_of"]

Paint: TypeAlias = Callable[[Sequence[Line]], str]

FALLBACK_WIDTH: Final = 80
REDRAW_AFTER: Final = 0.1  # seconds between two drawings of a progress bar
# ECMA-48 and xterm: the alternate screen, the cursor, the position, erasing.
ENTER: Final = "\x1b[?1049h\x1b[?25l"
LEAVE: Final = "\x1b[?25h\x1b[?1049l"
HOME: Final = "\x1b[H"
ERASE_LINE: Final = "\x1b[K"
ERASE_BELOW: Final = "\x1b[J"


def _plain(lines: Sequence[Line]) -> str:
    return "".join(f"{plain(line).rstrip()}\n" for line in lines)


@final
class Progress:
    """A progress bar on a terminal's standard error. Without a terminal it draws nothing."""

    def __init__(self, stream: TextIO | None, total: int, width: int, charset: Charset) -> None:
        self._stream = stream
        self._total = total
        self._width = width
        self._charset = charset
        self._drawn_at = time.monotonic()  # a short command draws none
        self._is_drawn = False

    def update(self, done: int) -> None:
        """Draw the bar for *done* of the total, at most ten times a second."""
        now = time.monotonic()
        if self._stream is None or now - self._drawn_at < REDRAW_AFTER:
            return
        self._drawn_at = now
        share = done / self._total if self._total else 0.0
        count = f" {min(share, 1.0):4.0%}  {done:,} of {self._total:,} items"
        room = min(self._width - len(count) - 1, 40)
        bar = f"{self._charset.bar(share, room):<{room}}" if room >= 5 else ""
        self._stream.write(f"\r{(bar + count)[: self._width - 1]}{ERASE_LINE}")
        self._stream.flush()
        self._is_drawn = True

    def clear(self) -> None:
        """Erase the bar, so that other text can be written in its line."""
        if self._stream is not None and self._is_drawn:
            self._stream.write(f"\r{ERASE_LINE}")
            self._stream.flush()
            self._is_drawn = False


@final
class Output:
    """The standard output and standard error of one command."""

    def __init__(self, stdout: TextIO, stderr: TextIO, paint: Paint) -> None:
        self._stdout = stdout
        self._stderr = stderr
        self._paint = paint
        self.charset: Final = charset_of(stdout.encoding)

    @property
    def is_terminal(self) -> bool:
        """True if standard output is a terminal."""
        return self._stdout.isatty()

    @property
    def width(self) -> int | None:
        """The columns of the terminal; None if standard output is not one. A window may change its size."""
        return _size(self._stdout)[0] if self.is_terminal else None

    @property
    def height(self) -> int:
        """The lines of the terminal."""
        return _size(self._stdout)[1]

    def lines(self, lines: Iterable[Line]) -> None:
        """Write *lines* to standard output."""
        self._stdout.write(self._paint(list(lines)))

    def text(self, text: str) -> None:
        """Write *text*, which ends with a line end, unstyled to standard output."""
        self._stdout.write(text)

    def raw(self, data: bytes) -> None:
        """Write *data* unchanged to standard output."""
        self._stdout.flush()
        self._stdout.buffer.write(data)
        self._stdout.buffer.flush()

    def json(self, value: Mapping[str, Shown] | Sequence[Shown]) -> None:
        """Write *value* as one line of JSON in ASCII, which contains no control character."""
        self._stdout.write(f"{json.dumps(value)}\n")

    def flush(self) -> None:
        """Write what is buffered."""
        self._stdout.flush()

    def message(self, text: str) -> None:
        """Write *text* as a line to standard error, without control characters."""
        charset = charset_of(self._stderr.encoding)
        self._stdout.flush()
        self._stderr.write(f"{charset.escaped(text)}\n")
        self._stderr.flush()

    @contextlib.contextmanager
    def progress(self, total: int) -> Generator[Progress]:
        """Return a progress bar for *total* items, and erase it at the end."""
        stream = self._stderr if self._stderr.isatty() else None
        width = _size(self._stderr)[0] if stream is not None else 0
        bar = Progress(stream, total, width, charset_of(self._stderr.encoding))
        try:
            yield bar
        finally:
            bar.clear()

    @contextlib.contextmanager
    def screen(self) -> Generator[Callable[[Sequence[Line]], None]]:
        """Take over the terminal; return a function that draws lines on it. Restores the terminal at the end.

        SIGTERM ends the block too, with SystemExit.
        """
        before = signal.signal(signal.SIGTERM, _terminated)
        try:
            self._stdout.write(ENTER)
            yield self._draw
        finally:
            signal.signal(signal.SIGTERM, before)
            self._stdout.write(LEAVE)
            self._stdout.flush()

    def _draw(self, lines: Sequence[Line]) -> None:
        width, height = _size(self._stdout)
        shown = [cut_line(line, width, self.charset) for line in lines[:height]]
        painted = self._paint(shown).removesuffix("\n").replace("\n", f"{ERASE_LINE}\n")
        self._stdout.write(f"{HOME}{painted}{ERASE_LINE}{ERASE_BELOW}")
        self._stdout.flush()


def _terminated(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _size(stream: TextIO) -> tuple[int, int]:
    try:
        size = os.get_terminal_size(stream.fileno())
    except OSError:
        return FALLBACK_WIDTH, 24
    return size.columns or FALLBACK_WIDTH, size.lines or 24


def output_of(stdout: TextIO, stderr: TextIO, environment: Mapping[str, str]) -> Output:
    """Return the output for these streams. It has colours on a terminal if rich is installed, not with NO_COLOR."""
    wants_colour = stdout.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"
    if not wants_colour or importlib.util.find_spec("rich") is None:
        return Output(stdout, stderr, _plain)
    from metacache.cli.colours import painter  # imports rich, which is optional and takes 50 ms

    return Output(stdout, stderr, painter(stdout))
