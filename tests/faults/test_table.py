"""The table of faults is complete, its tests exist, and the page is made of it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Final

import pytest

from tests.faults.page import PAGE, text
from tests.faults.rig import KINDS
from tests.faults.table import FAULTS, Fault

ROOT: Final = Path(__file__).parents[2]
COUNT: Final = 30


@pytest.fixture(scope="module")
def collected() -> dict[str, set[str]]:
    """The tests that pytest collects from the files in the table: the words in the parameters of each."""
    files = {test.split("::")[0] for fault in FAULTS for test in (fault.test, *fault.further)}
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n", "0", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, *sorted(files)], capture_output=True, text=True, check=True, cwd=ROOT)
    found: dict[str, set[str]] = defaultdict(set)
    for line in done.stdout.splitlines():
        if match := re.match(r"(\S+::test_\w+)(?:\[(.*)\])?$", line):
            found[match[1]] |= set((match[2] or "").split("-"))
    return found


def test_the_table_has_each_fault_once() -> None:
    assert len(FAULTS) == COUNT
    assert len({fault.what for fault in FAULTS}) == COUNT
    assert len({fault.test for fault in FAULTS}) == COUNT, "each fault has a main test of its own"


def missing(fault: Fault, collected: dict[str, set[str]]) -> list[str]:
    """Return the tests of *fault* that pytest does not collect, and the kinds of client without the main test."""
    absent = [test for test in (fault.test, *fault.further) if test not in collected]
    return absent + [kind for kind in KINDS if kind not in collected.get(fault.test, set())]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.test.split("::")[1])
def test_a_fault_has_tests_for_both_clients_and_every_transport(fault: Fault, collected: dict[str, set[str]]) -> None:
    assert missing(fault, collected) == []


def test_a_test_that_does_not_exist_or_is_not_for_all_clients_is_found(collected: dict[str, set[str]]) -> None:
    main = FAULTS[0].test
    absent = "tests/faults/test_replies.py::test_absent"
    assert missing(Fault("", "", absent), collected) == [absent, *KINDS]
    assert missing(Fault("", "", main, [absent]), collected) == [absent]
    assert missing(Fault("", "", main), {main: {"Pool"}}) == [kind for kind in KINDS if kind != "Pool"]


def test_every_test_of_this_folder_is_in_the_table() -> None:
    listed = {test for fault in FAULTS for test in (fault.test, *fault.further)}
    for name in ("test_replies.py", "test_connections.py"):
        source = (ROOT / "tests" / "faults" / name).read_text()
        tests = {f"tests/faults/{name}::{test}" for test in re.findall(r"def (test_\w+)", source)}
        assert tests <= listed


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == text(), "run python -m tests.faults.page"
