"""Each Python example of each page does what its page shows, and a type checker says of it what its page says."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, final

import attrs
import pytest

from metacache.__main__ import COMMANDS
from tests.docs.pages import PAGES, ROOT, Block, Page
from tests.docs.running import ExampleFailed, Session, script

LANGUAGES: Final = {"python", "console", "text", "toml", "ini", "yaml", "json"}
PAGES_WITH_EXAMPLES: Final = [page for page in PAGES if page.examples]
EXAMPLES: Final = [
    pytest.param(page, number, id=f"{page.name}:{block.line}")
    for page in PAGES
    for number, block in enumerate(page.examples)
]


def names(pages: Sequence[Page]) -> list[str]:
    return [page.name for page in pages]


# --- running ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    """The examples of one page; pytest keeps it until the tests of that page are done."""
    request.getfixturevalue("shared_memcached")  # skips where none is installed
    running = Session(request.param)
    yield running
    running.close()


@pytest.mark.parametrize(("session", "number"), EXAMPLES, indirect=["session"])
def test_an_example_does_what_its_page_shows(session: Session, number: int) -> None:
    session.run(number)


def page(text: str) -> Page:
    return Page("docs/page.md", text)


def run(text: str) -> Session:
    """Run all examples of a page; return its closed session."""
    running = Session(page(text))
    try:
        for number in range(len(page(text).examples)):
            running.run(number)
    finally:
        running.close()
    return running


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("# A title\n\n```python\n>>> 1 + 1\n3\n```\n", 'File "docs/page.md", line 4'),
        ("# A title\n\n```python\nassert False\n```\n", 'File "docs/page.md", line 4'),
        ("```python\n>>> print(1)\n1\n```\n\n```{note}\n```python\n>>> print(1)\n2\n```\n```\n", "line 8"),
        ("```python\nprint(1)\n```\n\n```text\n2\n```\n", "prints\n1\n\nThe page shows\n2"),
        ("```python\nprint(1)\n```\n", "prints\n1\n\nThe page shows\n"),
        ("```python\n>>> import logging\n>>> logging.warning('lost')\n```\n", r"does not quote: \['lost'\]"),
        ("```python\n>>> 1 / 0\nTraceback (most recent call last):\nValueError: no\n```\n", "ZeroDivisionError"),
    ],
)
def test_an_example_that_does_something_else_fails_with_its_line(text: str, reason: str) -> None:
    with pytest.raises(ExampleFailed, match=reason):
        run(text)


def test_an_example_below_one_that_failed_names_that_one() -> None:
    running = Session(page("```python\nx = 1 / 0\n```\n\n```python\n>>> 1\n1\n```\n"))
    with pytest.raises(ExampleFailed):
        running.run(0)
    with pytest.raises(ExampleFailed, match=r"an example above failed: docs/page.md:2"):
        running.run(1)


@pytest.mark.usefixtures("shared_memcached")
def test_examples_share_the_names_of_their_page_and_find_a_server_at_each_address() -> None:
    run(
        """\
```python
from dataclasses import dataclass
from typing import get_type_hints

from metacache import connect

@dataclass
class Pair:
    other: "Pair | None"

assert Pair.__module__ == "__main__"
assert "other" in get_type_hints(Pair)
texts = connect("memcached://localhost:11211", str)
texts.set("greeting", "hello")
print("localhost:11211")
```

```text
localhost:11211
```

- In a list:

  ```python
  >>> texts.get("greeting")
  'hello'
  >>> with connect("memcached://cache-1:11211", str) as other:
  ...     other.get("greeting") is None
  True
  >>> from metacache import Cluster
  >>> with Cluster.from_url("memcached://cache-3:11211,cache-1:11211,cache-2:11211") as cluster:
  ...     [node.name for node in cluster.nodes]
  ['cache-1:11211', 'cache-2:11211', 'cache-3:11211']
  >>> with connect("memcached+unix:///run/memcached.sock", str) as other:
  ...     other.get("greeting") is None
  True
  ```
"""
    )


# --- types -----------------------------------------------------------------------------------------------------------

REPORTED: Final = re.compile(r"^(?P<file>[^:]+):(?P<line>\d+): error: (?P<message>.*)$")


@final
@attrs.frozen
class Checked:
    """What mypy reports of each page, by the line of the page."""

    reported: Mapping[str, Mapping[int, str]]

    def differences(self, page: Page) -> list[str]:
        """Return where *page* and mypy differ: an error that no comment announces, or a comment without its error."""
        reported = self.reported[page.name]
        announced = announcements(page)
        return [
            f"{page.name}:{line}: mypy reports {reported.get(line)!r}, and the page {announced.get(line)!r}"
            for line in sorted(reported.keys() | announced.keys())
            if line not in reported or line not in announced or announced[line] not in reported[line]
        ]


def announcements(page: Page) -> dict[int, str]:
    """Return the errors that *page* announces in comments, by line."""
    lines = enumerate(script(page).splitlines(), 1)
    return {number: match[1].strip() for number, line in lines if (match := re.search(r"# error: (.*)$", line))}


def check_types(pages: Sequence[Page], directory: Path) -> Checked:
    """Check the examples of all *pages* in one run of mypy, with the settings of mypy.ini."""
    modules = {f"page_{number}.py": page for number, page in enumerate(pages)}
    for name, page in modules.items():
        (directory / name).write_text(script(page))
    # A cache of its own: mypy.ini's may be in use by another run.
    checker = [sys.executable, "-m", "mypy", "--hide-error-context", "--no-error-summary", "--no-pretty"]
    checker += [f"--cache-dir={ROOT / '.mypy_cache' / 'pages'}", *(str(directory / name) for name in modules)]
    done = subprocess.run(checker, capture_output=True, text=True, timeout=300, cwd=ROOT, check=False)
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    reported: defaultdict[str, dict[int, str]] = defaultdict(dict)
    for line in done.stdout.splitlines():
        if match := REPORTED.match(line):
            lines = reported[modules[Path(match["file"]).name].name]
            number = int(match["line"])
            lines[number] = f"{lines.get(number, '')}{match['message']}\n"
    assert bool(reported) == bool(done.returncode), done.stdout
    return Checked(reported)


@pytest.mark.usefixtures("own_time_limit")
def test_a_type_checker_reports_of_each_page_what_the_page_says(tmp_path: Path) -> None:
    # One test for all pages: to start mypy takes longer than to check a page.
    checked = check_types(PAGES_WITH_EXAMPLES, tmp_path)
    assert [difference for page in PAGES_WITH_EXAMPLES for difference in checked.differences(page)] == []


def test_an_error_that_is_not_announced_and_one_that_does_not_come_are_reported(tmp_path: Path) -> None:
    wrong = page(
        """\
```python
>>> one: int = "1"
>>> two: int = "2"  # error: Incompatible types in assignment
>>> three: int = 3  # error: Incompatible types in assignment
>>> four: int = "4"  # error: of another kind
>>> five: int = "5"  # type: ignore[assignment]
>>> six: int = 6  # type: ignore[assignment]
```
"""
    )
    differences = check_types([wrong], tmp_path).differences(wrong)
    assert [line.split(":")[1] for line in differences] == ["2", "4", "5", "7"]


# --- other blocks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_a_block_has_a_language_and_python_is_an_example(page: Page) -> None:
    assert [f"{page.name}:{block.line}" for block in page.blocks if block.language not in LANGUAGES] == []
    fences = re.findall(r"^ *`{3,} *$", page.text, re.MULTILINE)
    openings = re.findall(r"^ *`{3,} *[^\s`].*$", page.text, re.MULTILINE)
    assert len(fences) == len(openings), "a fence has no language, or is not closed"
    assert not re.search(r"\{(code-block|code|sourcecode|doctest|testcode)\}", page.text), "use a fenced block"
    assert not re.search(r"^ *>>> ", page.prose, re.MULTILINE), "an example outside of a fenced block is not run"


def commands(page: Page) -> Iterator[str]:
    """Yield the shell commands of a page: the lines of its `console` blocks, and its words in code."""
    for block in page.blocks:
        if block.language == "console":
            yield from (line.removeprefix("$ ").partition("  #")[0].strip() for line in block.text.splitlines())
    yield from re.findall(r"(?<!`)`([^`\n]+)`(?!`)", page.prose)


TARGETS: Final = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_a_command_that_a_page_names_exists(page: Page) -> None:
    for command in commands(page):
        if match := re.match(r"make ([a-z]\S*)", command):
            assert match[1] in TARGETS, command
        if match := re.match(r"(?:\S*/)?(?:python3? -m )?metacache ([a-z]\S*)", command):
            assert match[1] in COMMANDS, command


def test_commands_are_found_in_blocks_and_in_code() -> None:
    text = "Run `make demo`, then:\n\n```console\n$ make test  # all\n$ python -m metacache version\n```\n"
    assert set(commands(page(text))) == {"make demo", "make test", "python -m metacache version"}
    assert {"demo", "test", "bench"} <= TARGETS


def test_the_examples_of_the_pages_are_found() -> None:
    assert len(EXAMPLES) > 10
    found: Sequence[Block] = page("```text\n```\n\n```python\n>>> 1\n1\n```\n").examples
    assert [(block.line, block.text) for block in found] == [(5, ">>> 1\n1\n")]


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_a_file_that_a_page_includes_exists(page: Page) -> None:
    included = re.findall(r"\{(?:literal)?include\} *(\S+)", page.text)
    assert [path for path in included if not ((ROOT / page.name).parent / path).is_file()] == []
