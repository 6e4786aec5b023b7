"""The page about the architecture names modules, tests and rooms that exist, and all rooms that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import metacache
from tests.docs.pages import ROOT

PAGE: Final = (ROOT / "docs/explanation/architecture.md").read_text()
PACKAGE: Final = Path(metacache.__file__).parent


def paths() -> set[str]:
    """Return the paths in code spans of the page."""
    return set(re.findall(r"`([a-z_]+(?:/[a-z_]+)*(?:\.(?:py|md|toml)|/))`", PAGE))


def test_every_path_on_the_page_exists() -> None:
    missing = [path for path in paths() if not (ROOT / path).exists() and not (PACKAGE / path).exists()]
    assert len(paths()) > 40
    assert missing == []


def test_the_page_shows_every_room() -> None:
    rooms = {f"{path.name}/" for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    modules = {path.name for path in PACKAGE.glob("*.py")} - {"__main__.py"}
    diagram = PAGE.partition("```text\n")[2].partition("```")[0]
    assert [name for name in sorted(rooms | modules) if name not in diagram] == []
