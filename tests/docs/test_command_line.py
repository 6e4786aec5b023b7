"""The examples of the command line: the parser takes each one, and the picture is what the command prints."""

from __future__ import annotations

import shlex

import pytest

from metacache.cli.arguments import parse
from metacache.cli.main import main
from tests.docs.pages import PAGES


def examples() -> list[list[str]]:
    """Return the arguments of each line in a console block that runs metacache."""
    blocks = [block.text for page in PAGES for block in page.blocks if block.language == "console"]
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("metacache ")]


@pytest.mark.parametrize("arguments", examples(), ids=" ".join)
def test_each_example_of_the_command_line_is_parsed(arguments: list[str]) -> None:
    assert parse(arguments).command == arguments[0]


def test_the_picture_of_a_change_is_what_explain_prints(capsys: pytest.CaptureFixture[str]) -> None:
    (page,) = [page for page in PAGES if page.name == "docs/reference/command-line.md"]
    (arguments,) = [words for words in examples() if words[-1] == "add=cache-4:11211"]
    assert main(["--url", "memcached://cache-1,cache-2,cache-3", *arguments]) == 0
    assert capsys.readouterr().out in [block.text for block in page.blocks]
