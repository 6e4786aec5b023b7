"""SECURITY.md and CONTRIBUTING.md name tests and files that exist."""

from __future__ import annotations

import re
from typing import Final

import pytest

from tests.docs.pages import ROOT

TESTS: Final = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
}


def test_every_promise_of_security_names_the_tests_that_hold_it() -> None:
    table = (ROOT / "SECURITY.md").read_text().partition("| promise | tests |")[2].partition("\n\n")[0]
    rows = [line.strip("|").split("|") for line in table.strip().splitlines()[1:]]
    assert len(rows) >= 10
    for promise, tests in rows:
        named = re.findall(r"`(\w+)`", tests)
        assert named, promise
        assert set(named) <= TESTS, promise


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md"])
def test_every_path_and_target_that_is_named_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    paths = [path for path in re.findall(r"`([\w./-]+/[\w./-]*)`", text) if not path.startswith(".venv")]
    assert [path for path in paths if not (ROOT / path).exists()] == []
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)(?= {2,}#|`)", text)) <= targets
