"""The command ``python -m benchmarks [section…]``: print the given sections, or all of them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Final

from benchmarks import (
    cluster,
    concurrency,
    django_cache,
    goals,
    instructions,
    large,
    serializers,
    stampede,
    start,
    wall,
)

SECTIONS: Final[dict[str, Callable[[], None]]] = {
    "goals": goals.main,
    "instructions": instructions.main,
    "wall": wall.main,
    "large": large.main,
    "start": start.main,
    "cluster": cluster.main,
    "asyncio": concurrency.main,
    "stampede": stampede.main,
    "serializers": serializers.main,
    "django": django_cache.main,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure the cost of metacache and of other clients."
    )
    parser.add_argument("section", nargs="*", help=f"{', '.join(SECTIONS)}; by default all")
    parser.add_argument(
        "--tasks", nargs="+", type=int, default=concurrency.TASKS, help="asyncio: only these numbers of tasks"
    )
    parser.add_argument("--loops", nargs="+", choices=concurrency.LOOPS, help="asyncio: event loops")
    arguments = parser.parse_args()
    chosen: list[str] = arguments.section
    unknown = [name for name in chosen if name not in SECTIONS]
    if unknown:
        parser.error(f"no section is called {', '.join(unknown)}; the sections are {', '.join(SECTIONS)}")
    loops: list[str] = arguments.loops or list(concurrency.LOOPS)
    narrowed: Callable[[], None] = partial(concurrency.main, loops=loops, tasks=arguments.tasks)
    sections = {**SECTIONS, "asyncio": narrowed}
    for name in chosen or SECTIONS:
        sections[name]()


if __name__ == "__main__":
    main()
