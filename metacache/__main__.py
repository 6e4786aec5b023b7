"""Runs the command line: `python -m metacache …` is `metacache …`."""

from __future__ import annotations

import sys

from metacache.cli.commands import COMMANDS
from metacache.cli.main import main

__all__ = ["COMMANDS", "main"]

if __name__ == "__main__":
    sys.exit(main())
