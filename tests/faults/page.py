"""Make docs/reference/faults.md of the table of faults: ``python -m tests.faults.page``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.faults.table import FAULTS

__all__ = ["PAGE", "text"]

PAGE: Final = Path(__file__).parents[2] / "docs" / "reference" / "faults.md"

_INTRODUCTION: Final = """\
# Faults

Servers, networks and callers fail in these {count} ways, and the test suite produces each of them. In every case:

- A caller never gets bytes that belong to another request or key.
- A request ends once, within its deadline: with a value, a miss or a [typed error](errors.md).
- A connection whose position in the stream of replies is not certain is closed.
- A write that may have reached the server is never sent twice. Its error has `maybe_applied`.
- No connection, place in a pool, or task is lost.

Each main test runs six times: for `Client` and for `AsyncClient`, each on a single connection, a pool and a cluster.
To produce the same faults in the tests of your service, see
[Let it fail](../guides/embedded-server.md#let-it-fail).
"""


def _table() -> Iterator[str]:
    yield "| number | fault | behaviour |"
    yield "|---|---|---|"
    for number, fault in enumerate(FAULTS, 1):
        yield f"| {number} | {fault.what} | {fault.behaviour} |"


def _tests() -> Iterator[str]:
    yield "## The tests"
    yield ""
    yield "`python -m tests.faults.page` makes this page of the table in `tests/faults/table.py`. The first test of"
    yield "each number is the main one."
    for number, fault in enumerate(FAULTS, 1):
        yield ""
        yield f"**{number}. {fault.what}**"
        yield ""
        yield from (f"- `{test}`" for test in (fault.test, *fault.further))


def text() -> str:
    """Return the page."""
    return "\n".join([_INTRODUCTION.format(count=len(FAULTS)), *_table(), "", *_tests(), ""])


if __name__ == "__main__":
    PAGE.write_text(text())
