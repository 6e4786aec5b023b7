"""README.md in parts: its fenced blocks, its tables, its examples as one doctest. Knows Markdown, not what it says."""

from __future__ import annotations

import doctest
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["README", "ROOT", "Block", "blocks", "examples", "table"]

ROOT: Final = Path(__file__).parents[2]
README: Final = (ROOT / "README.md").read_text()


class Block(NamedTuple):
    """A fenced block, and the line before it."""

    before: str
    language: str
    text: str


def blocks(readme: str = README) -> Sequence[Block]:
    """Return the fenced blocks."""
    found: list[Block] = []
    before, language, text = "", "", [""]
    for line in readme.splitlines():
        if line.startswith("```") and not language:
            language, text = line[3:], []
        elif line == "```":
            found.append(Block(before, language, "\n".join([*text, ""])))
            language = ""
        elif language:
            text.append(line)
        elif line:
            before = line
    return found


def examples(readme: str = README) -> doctest.DocTest:
    """Return all examples as one doctest, to be run from top to bottom.

    All but the blocks of Python is blanked out, so that a line has the number that it has in the README.
    """
    language = ""
    lines: list[str] = []
    for line in readme.splitlines():
        if line.startswith("```"):
            language = line[3:]
            lines.append("")
        else:
            lines.append(line if language == "python" else "")
    return doctest.DocTestParser().get_doctest("\n".join(lines), {"__name__": "__main__"}, "README", "README.md", 0)


def table(first: str, readme: str = README) -> Mapping[str, Sequence[str]]:
    """Return the rows of the table whose first column is called *first*: the other cells, by the first."""
    lines = readme[readme.index(f"\n| {first} |") :].split("\n\n")[0].strip().splitlines()
    rows = [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]
    return {name: cells for name, *cells in rows}
