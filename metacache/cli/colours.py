"""Paint lines with colours by rich. The only module that imports rich, which the extra ``cli`` installs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TextIO

from rich.console import Console
from rich.text import Text

from metacache.cli.layout import Line, Style

__all__ = ["painter"]

STYLES: Final[dict[Style, str]] = {
    "": "",
    "title": "bold",
    "name": "cyan",
    "good": "green",
    "bad": "red",
    "dim": "dim",
}


def painter(stdout: TextIO) -> Callable[[Sequence[Line]], str]:
    """Return a function that returns lines with the escape sequences that the terminal of *stdout* understands."""
    console = Console(file=stdout, highlight=False, markup=False, emoji=False)

    def paint(lines: Sequence[Line]) -> str:
        with console.capture() as captured:
            for line in lines:
                text = Text()
                for content, style in line:
                    text.append(content, STYLES[style])
                text.rstrip()
                console.print(text, soft_wrap=True)
        return captured.get()

    return paint
