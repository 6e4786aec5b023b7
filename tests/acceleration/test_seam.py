"""metacache-speed is used if it is installed and fits; otherwise pure Python runs."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest

import metacache
from metacache.acceleration import API

SHOW: Final = "import metacache; print(metacache.accelerated)"


def started(program: str = SHOW, *, path: Path | None = None, **variables: str) -> tuple[str, str]:
    """Run *program* in a new process; return what it prints, and its errors."""
    paths = [str(Path(metacache.__file__).parents[1]), *sys.path] if path is None else [str(path), *sys.path]
    environment = {**os.environ, "METACACHE_PURE": "", "PYTHONPATH": os.pathsep.join(paths), **variables}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip(), done.stderr.strip()


def test_an_installed_extension_is_used() -> None:
    usable = find_spec("metacache_speed._speed") is not None if find_spec("metacache_speed") is not None else False
    assert started() == (str(usable), "")


@pytest.mark.parametrize(("value", "is_off"), [("1", True), ("yes", True), ("0", False), ("", False)])
def test_metacache_pure_turns_it_off(value: str, is_off: bool, tmp_path: Path) -> None:
    (tmp_path / "metacache_speed.py").write_text(f"API = {API}\ndef __getattr__(_): return None\n")
    assert started(path=tmp_path, METACACHE_PURE=value) == (str(not is_off), "")


def test_another_interface_is_not_used_and_is_logged_once(tmp_path: Path) -> None:
    (tmp_path / "metacache_speed.py").write_text("API = 99\n")
    printed, errors = started(
        "import metacache.client.blocking, metacache; print(metacache.accelerated)", path=tmp_path
    )
    assert printed == "False"
    assert errors == (
        f"metacache-speed has interface 99, and metacache needs {API}; pure Python is used; "
        "install the versions of one release"
    )


def test_an_extension_that_cannot_be_loaded_is_logged(tmp_path: Path) -> None:
    (tmp_path / "metacache_speed.py").write_text("raise ImportError('undefined symbol: XXH')\n")
    printed, errors = started(path=tmp_path)
    assert printed == "False"
    assert errors.startswith("metacache-speed cannot be loaded (undefined symbol: XXH)")


def test_without_the_extension_nothing_is_logged() -> None:
    program = "import sys; sys.modules['metacache_speed'] = None; " + SHOW
    assert started(program) == ("False", "")
