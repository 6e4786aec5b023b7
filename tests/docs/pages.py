"""The pages as text: README files and docs/**/*.md, their fenced blocks, their tables. Runs nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, final

import attrs

__all__ = ["PAGES", "ROOT", "Block", "Page"]

ROOT: Final = Path(__file__).parents[2]
FENCE: Final = re.compile(r"^( *)(`{3,})(.*)$")


@final
@attrs.frozen
class Block:
    """A fenced block of a page: its language, its text without the indentation, the line where the text begins."""

    language: str
    text: str
    line: int

    @property
    def is_example(self) -> bool:
        """Whether the block is Python, which is run and type-checked."""
        return self.language == "python"

    @property
    def is_session(self) -> bool:
        """Whether the block is written with prompts."""
        return self.text.startswith(">>> ")


@final
@attrs.frozen
class Page:
    """A Markdown page, by its path from the root of the repository."""

    name: str
    text: str

    @property
    def blocks(self) -> Sequence[Block]:
        """The fenced blocks, those inside of directives (`{note}`) too."""
        return tuple(_blocks(self.text.splitlines()))

    @property
    def examples(self) -> Sequence[Block]:
        """The blocks that are run."""
        return tuple(block for block in self.blocks if block.is_example)

    @property
    def prose(self) -> str:
        """The text without its fenced blocks."""
        return "\n".join(line for line, fenced in _lines(self.text.splitlines()) if not fenced)

    def table(self, first: str) -> Mapping[str, Sequence[str]]:
        """Return the rows of the tables whose first column is called *first*: the other cells, by the first."""
        rows: dict[str, Sequence[str]] = {}
        for match in re.finditer(rf"^\| {re.escape(first)} \|.*\n\|[-| :]+\|\n((?:\|.*\n?)*)", self.text, re.MULTILINE):
            for line in match[1].splitlines():
                name, *cells = (cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1])
                rows[name] = cells
        return rows


def _blocks(lines: Sequence[str]) -> Iterator[Block]:
    """Yield the blocks of code. The fence of a directive is skipped, so that the blocks inside of it are found."""
    fence, text, indentation, begin, language = "", list[str](), 0, 0, ""
    for number, line in enumerate(lines, 1):
        match = FENCE.match(line)
        if fence and match and match[2] == fence and not match[3].strip():
            yield Block(language, "".join(f"{row[indentation:]}\n" for row in text), begin)
            fence = ""
        elif fence:
            text.append(line)
        elif match and match[3].strip() and not match[3].startswith("{"):
            fence, language, indentation, begin, text = match[2], match[3].strip(), len(match[1]), number + 1, []


def _lines(lines: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Yield each line, and whether it is inside of a block of code."""
    fenced = {
        block.line - 1 + offset
        for block in _blocks(lines)
        for offset in range(block.text.count("\n") + 2)  # and its two fences
    }
    yield from ((line, number in fenced) for number, line in enumerate(lines, 1))


def _read(path: Path) -> Page:
    return Page(path.relative_to(ROOT).as_posix(), path.read_text())


def _paths() -> Iterator[Path]:
    yield ROOT / "README.md"
    yield ROOT / "examples" / "README.md"
    yield from sorted(ROOT.glob("plugins/*/README.md"))
    yield from (path for path in sorted(ROOT.glob("docs/**/*.md")) if "_build" not in path.parts)


PAGES: Final[Sequence[Page]] = tuple(_read(path) for path in _paths())
