"""The service that the FastAPI tutorial builds is the program of examples/."""

from __future__ import annotations

from typing import Final

from tests.docs.pages import PAGES, ROOT

TUTORIAL: Final = next(page for page in PAGES if page.name == "docs/tutorials/fastapi-service.md")


def test_the_parts_of_the_tutorial_are_the_whole_program() -> None:
    service = TUTORIAL.text.partition("## Test it without a server")[0]
    parts = [block.text.strip() for block in TUTORIAL.examples if block.text in service]
    program = (ROOT / "examples" / "fastapi_service.py").read_text()
    assert program.partition("import os\n")[2].split() == "\n".join(parts).partition("import os\n")[2].split()
