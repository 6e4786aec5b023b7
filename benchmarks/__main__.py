"""python -m benchmarks [section…]: print those sections, or all of them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Final

from benchmarks import instructions, routing, wall

SECTIONS: Final[dict[str, Callable[[], None]]] = {
    "instructions": instructions.main,
    "wall": wall.main,
    "routing": routing.print_routing,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="What metacache costs, beside other clients."
    )
    parser.add_argument("section", nargs="*", help=f"{', '.join(SECTIONS)}; all when left out")
    chosen: list[str] = parser.parse_args().section
    unknown = [name for name in chosen if name not in SECTIONS]
    if unknown:
        parser.error(f"no section is called {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    for name in chosen or SECTIONS:
        SECTIONS[name]()


if __name__ == "__main__":
    main()
