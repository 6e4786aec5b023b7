"""The memory of this process: how much is resident, and how much of it is in use.

The resident memory shows every leak, and also what the allocator keeps: pages with one living block among freed ones.
So the storms run with one allocator and one heap, those of the C library (see `waits`). It returns its free pages
before each sample, and it knows how much of the heap is in use. All that is resident outside the heap counts as used.
So a leak of any kind grows both figures, fragmentation of the heap only the first.
"""

from __future__ import annotations

import ctypes
import gc
import os
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple, final

__all__ = ["GROWTH", "NAMES", "Growth", "Memory", "collected", "growth", "memory"]

ENOUGH: Final = 20  # samples; fewer are all warm-up and say nothing of growth
GROWTH: Final = 0.01  # how much either figure may grow after the warm-up
PAGE: Final = os.sysconf("SC_PAGE_SIZE")


NAMES: Final = ("resident memory", "memory in use")


class Memory(NamedTuple):
    """Bytes at one moment. *in_use*: without the free blocks of the heap; as *resident* if nothing says how many."""

    resident: int
    in_use: int


class Growth(NamedTuple):
    """How much the memory grew, as fractions."""

    resident: float
    in_use: float

    @property
    def excesses(self) -> list[str]:
        """What grew too much, as sentences."""
        return [f"the {name} grew by {share:.2%}" for name, share in zip(NAMES, self, strict=True) if share >= GROWTH]


@final
class _Info(ctypes.Structure):
    """``struct mallinfo2``: see mallinfo(3)."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    )

    uordblks: int  # bytes of the heap that are in use


def collected() -> None:
    """Collect garbage twice, so that finalizers of the first round are freed too."""
    gc.collect()
    gc.collect()


def memory() -> Memory:
    """Return the memory of this process, after the garbage collector and the allocator have freed what they can."""
    collected()
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
    return Memory(resident, resident - _free(library))


def _free(library: ctypes.CDLL) -> int:
    """Return the resident bytes of the heap that are free; 0 where nothing says so."""
    heap = re.search(r"\[heap\]\n(?:.*\n)*?Rss: +(\d+) kB", Path("/proc/self/smaps").read_text())
    if heap is None or not hasattr(library, "mallinfo2"):
        return 0
    library.mallinfo2.restype = _Info
    info: _Info = library.mallinfo2()
    return int(heap[1]) * 1024 - info.uordblks


def growth(samples: Sequence[Memory]) -> Growth | None:
    """Return how much the last fifth of *samples* exceeds the second fifth; None for few samples."""
    if len(samples) < ENOUGH:
        return None
    fifth = len(samples) // 5
    warm, last = _typical(samples[fifth : 2 * fifth]), _typical(samples[-fifth:])
    return Growth(*(after / before - 1 for before, after in zip(warm, last, strict=True)))


def _typical(samples: Sequence[Memory]) -> Memory:
    """Return the median of *samples*: what calls have left for a moment makes single ones larger."""
    return Memory(*map(round, map(statistics.median, zip(*samples, strict=True))))
