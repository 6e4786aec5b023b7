"""The program that `instructions` runs under valgrind: repeat one operation of one subject, and count only that.

python -m benchmarks.counted SUBJECT OPERATION COUNT ADDRESS…
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from contextlib import ExitStack
from typing import Final

from benchmarks.subjects import subject
from metacache import Node
from metacache.cluster import quick_parts
from metacache.transports.blocking import lending

__all__ = ["WARM_UP", "main", "switch_counting", "trust_connections"]

WARM_UP: Final = 20  # operations: dial connections, specialise bytecode


def main(name: str, operation: str, count: str, *addresses: str) -> None:
    trust_connections()
    with ExitStack() as stack:
        repeat = subject(name).setup([Node(address) for address in addresses], stack)[operation]
        repeat(WARM_UP)
        switch_counting("on")
        repeat(int(count))
        switch_counting("off")


def trust_connections() -> None:
    """Let clients use every idle connection without a check.

    Under valgrind on a busy machine, a request often takes so long that the next one finds its connection idle and
    checks it. That would add up to 2,000 instructions, by chance.
    """
    setattr(lending, "TRUST", math.inf)  # noqa: B010 - because the name is Final
    # Likewise, the replies of several nodes often take longer than compiled code waits for them.
    setattr(quick_parts, "LONGEST", math.inf)  # noqa: B010


def switch_counting(state: str) -> None:
    """Let valgrind begin or end counting. Without counting, the start of the program is six times faster."""
    if "vgpreload" in os.environ.get("LD_PRELOAD", ""):  # valgrind sets it; the first run is without valgrind
        subprocess.run(
            ["vgdb", f"--pid={os.getpid()}", "instrumentation", state], check=True, stdout=subprocess.DEVNULL
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
