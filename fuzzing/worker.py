"""One process of atheris: `python -m fuzzing.worker TARGET [libFuzzer option or folder…]`. It runs one target.

The modules of metacache are instrumented while they are imported, so this module imports none of them first.
"""

from __future__ import annotations

import sys
from typing import Final

import atheris

INSTRUMENTED: Final = (
    "metacache",
    "metacache_attrs",
    "metacache_msgspec",
    "metacache_orjson",
    "metacache_pydantic",
)


def main() -> None:
    name, *options = sys.argv[1:]
    with atheris.instrument_imports(include=list(INSTRUMENTED)):
        from fuzzing.targets import TARGETS  # late: see above
    atheris.Setup([sys.argv[0], *options], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
