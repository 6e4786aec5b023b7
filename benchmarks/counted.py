"""The program that `instructions` runs under valgrind: repeat one operation of one subject.

python -m benchmarks.counted SUBJECT OPERATION COUNT ADDRESS…
"""

from __future__ import annotations

import math
import sys
from contextlib import ExitStack

from benchmarks.subjects import subject
from metacache import Node
from metacache.transports.blocking import lending


def main(name: str, operation: str, count: str, *addresses: str) -> None:
    # Under valgrind on a busy machine, a request often takes so long that the next one finds its connection idle and
    # checks it. That would add up to 2,000 instructions, by chance. setattr, because the name is Final.
    setattr(lending, "TRUST", math.inf)  # noqa: B010
    with ExitStack() as stack:
        repeat = subject(name).setup([Node(address) for address in addresses], stack)[operation]
        repeat(int(count))


if __name__ == "__main__":
    main(*sys.argv[1:])
