"""README.md is short, and what it names exists. The links of every page work on the site and in a clone."""

from __future__ import annotations

import re
from typing import Final

import pytest

from metacache import __version__
from tests.docs.pages import PAGES, ROOT, Page
from tests.docs.test_examples import announcements, names

README: Final = PAGES[0]


def test_the_readme_has_at_most_two_hundred_lines() -> None:
    assert README.name == "README.md"
    assert README.text.count("\n") <= 200


def test_the_readme_shows_a_line_that_the_type_checker_rejects() -> None:
    code = [line for block in README.examples for line in block.text.splitlines() if line]
    assert len(code) == 12
    assert len(announcements(README)) == 1


def test_the_readme_names_the_commands() -> None:
    assert {"make demo", "make test"} <= set(re.findall(r"make \w+", README.text))


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_a_file_that_a_page_links_exists(page: Page) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.text)
    assert [link for link in links if not ((ROOT / page.name).parent / link).exists()] == []


def test_the_changelog_begins_with_this_version() -> None:
    first = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0]
    assert first == __version__
