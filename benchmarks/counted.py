"""The program that `instructions` runs under valgrind: repeat one operation of one subject.

python -m benchmarks.counted SUBJECT OPERATION COUNT ADDRESS
"""

from __future__ import annotations

import sys
from contextlib import ExitStack

from benchmarks.subjects import subject
from metacache import Node


def main(name: str, operation: str, count: str, address: str) -> None:
    with ExitStack() as stack:
        repeat = subject(name).setup(Node(address), stack)[operation]
        repeat(int(count))


if __name__ == "__main__":
    main(*sys.argv[1:])
