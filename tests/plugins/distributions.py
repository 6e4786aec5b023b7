"""Make distributions for a test: modules and a .dist-info in a directory that the test puts on sys.path."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

import pytest

PLUGIN = """
    from metacache.serializers import fingerprint

    class Text:
        def __init__(self, wire_id, fingerprint):
            self.wire_id, self.fingerprint = wire_id, fingerprint
        def dumps(self, value): return value.encode()
        def loads(self, data): return data.decode()

    class Plugin:
        def __init__(self, wire_id, api_version=1, fingerprint=0, built=None, served=str):
            self.wire_id, self.api_version = wire_id, api_version
            self.fingerprint, self.built, self.served = fingerprint, built or wire_id, served
        def supports(self, type_): return type_ is self.served
        def build(self, type_): return Text(self.built, self.fingerprint)
"""


def install(
    directory: Path,
    name: str,
    entry_points: Mapping[str, str],
    modules: Mapping[str, str],
    group: str = "serializers",
    version: str = "1.0",
) -> None:
    """Write a distribution in the form that an installer leaves."""
    for module, source in modules.items():
        (directory / f"{module}.py").write_text(dedent(source))
    info = directory / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"{point} = {target}" for point, target in entry_points.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[metacache.{group}]", *lines, ""]))


def put_on_path(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    """Put *directory* first on sys.path for the duration of a test."""
    monkeypatch.setattr(sys, "path", [str(directory), *sys.path])
    importlib.invalidate_caches()
